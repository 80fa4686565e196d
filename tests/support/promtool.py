"""Run promtool (Debian's package prometheus) on rules."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml


def promtool(*arguments):
    """Run promtool. Without it the test is skipped, but not in CI."""
    tool = shutil.which("promtool")
    if tool is None and not os.environ.get("CI"):
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return subprocess.run([tool or "promtool", *arguments], capture_output=True, text=True, check=False)


def without_others(rules, *names):
    """Return a rule resource's spec with these alerts or records, and the records that they query, alone.

    promtool evaluates every rule at each step, so all of them take fifteen times as long as one.
    """
    rows = [row for group in rules["groups"] for row in group["rules"]]
    wanted = [row for row in rows if {row.get("alert"), row.get("record")} & set(names)]
    queried = " ".join(row["expr"] for row in wanted)
    kept = [row for row in rows if row in wanted or ("record" in row and row["record"] in queried)]
    return {"groups": [{"name": "tested", "rules": kept}]}


def passes(folder: Path, rules, *tests, step="1m"):
    """Check that promtool finds the tests of these rules, evaluated at each step, to pass."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    wanted = {"rule_files": ["rules.yaml"], "evaluation_interval": step, "tests": list(tests)}
    (folder / "test.yaml").write_text(yaml.safe_dump(wanted))
    found = promtool("test", "rules", str(folder / "test.yaml"))
    assert found.returncode == 0, found.stdout + found.stderr
