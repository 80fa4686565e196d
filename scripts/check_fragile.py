"""Every test that a page in docs/fragile names must exist; every page must name at least one."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def problems() -> list[str]:
    """What is wrong, one sentence each."""
    found = []
    for page in sorted((ROOT / "docs/fragile").glob("*.md")):
        named = _NAMED.findall(page.read_text(encoding="utf-8"))
        if not named:
            found.append(f"{page.name}: names no test")
        for path, test in named:
            file = ROOT / path
            if not file.exists() or f"def {test}(" not in file.read_text(encoding="utf-8"):
                found.append(f"{page.name}: {path}::{test} does not exist")
    return found


_ROW = re.compile(r"^\| ((?:FIX|REG)-\d\d) \|.*\|(.*)\|$", re.MULTILINE)
_LOSS = re.compile(r"^\| ([a-z_ ]+) \| `(\w+)` \|.*\| (Pocket\w+) \|$", re.MULTILINE)
_WANTED = {*(f"FIX-{n:02}" for n in range(1, 57)), *(f"REG-{n:02}" for n in range(1, 33))}


def hardening_problems() -> list[str]:
    """What is wrong with docs/hardening.md: a missing row, a test, metric or alert that does not exist."""
    text = (ROOT / "docs/hardening.md").read_text(encoding="utf-8")
    rows = dict(_ROW.findall(text))
    found = [f"hardening.md: {name} has no row" for name in sorted(_WANTED - set(rows))]
    found += [f"hardening.md: {n} names neither a test nor a design" for n, by in rows.items()
              if "`tests/" not in by and "design:" not in by]  # fmt: skip
    for path, test in _NAMED.findall(text):
        file = ROOT / path
        if not file.exists() or f"def {test}(" not in file.read_text(encoding="utf-8"):
            found.append(f"hardening.md: {path}::{test} does not exist")
    metrics = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    runbook = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    for loss, metric, alert in _LOSS.findall(text):
        if f"`{metric}`" not in metrics:
            found.append(f"hardening.md: {loss}: metric {metric} does not exist")
        if f"## {alert}\n" not in runbook:
            found.append(f"hardening.md: {loss}: {alert} has no entry in runbook.md")
    return found


def losses() -> set[str]:
    """Names of everything that can cost money, as docs/hardening.md lists them."""
    return {row[0] for row in _LOSS.findall((ROOT / "docs/hardening.md").read_text(encoding="utf-8"))}


if __name__ == "__main__":
    rows = problems() + hardening_problems()
    print("\n".join(rows) or "every fragile area's tests exist, and every known defect's")
    sys.exit(1 if rows else 0)
