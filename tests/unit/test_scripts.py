import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from check_fragile import _defects, hardening_problems, losses, problems
from generate_pb import drifted
from mutant_list import MUTANTS
from mutants import ROOT
from pocket_miner.storage.outcomes import SessionOutcome
from pocket_relayer.relayer_metrics import Unrecorded

FIND = ROOT / "scripts/find-python"


def find(folder):
    environment = {"PATH": str(folder), "PYTHON": ""}
    return subprocess.run(["/bin/sh", str(FIND)], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.processes
def test_without_a_suitable_interpreter_make_says_what_to_install(tmp_path):
    (tmp_path / "cat").symlink_to(shutil.which("cat"))
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    run = find(tmp_path)
    assert run.returncode == 1
    assert "CPython 3.11 to 3.14" in run.stderr
    assert "apt-get install" in run.stderr


@pytest.mark.processes
def test_a_suitable_interpreter_is_found(tmp_path):
    python = Path(os.path.realpath(sys.executable))
    wrapper = tmp_path / "python3"
    wrapper.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    wrapper.chmod(0o755)
    assert find(tmp_path).stdout.strip() == str(wrapper)


@pytest.mark.processes
def test_an_interpreter_that_is_named_is_used_or_refused(tmp_path):
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "none")}
    run = subprocess.run(["/bin/sh", str(FIND)], env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    assert f"PYTHON={tmp_path / 'none'} cannot be used" in run.stderr


_STAND_IN = """#!/bin/sh
case "$*" in
  -) cat > /dev/null ;;
  "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp /bin/true .venv/bin/uv ;;
  *version_info*) echo "{version}" ;;
esac
"""


@pytest.mark.processes
def test_setup_uses_the_interpreter_that_is_named_though_another_one_is_installed(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "requirements").mkdir()
    for name in ("setup", "find-python"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    (tmp_path / "scripts/build_accelerator").symlink_to("/bin/true")
    for name in ("pyproject.toml", "requirements/bootstrap.txt", "requirements/runtime.txt"):
        (tmp_path / name).touch()
    pythons = {version: tmp_path / f"python{version}" for version in ("3.12", "3.14")}
    for version, program in pythons.items():
        program.write_text(_STAND_IN.replace("{version}", version))
        program.chmod(0o755)

    def set_up(python):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": python}
        command = ["/bin/sh", str(tmp_path / "scripts/setup"), "runtime"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "with Python 3.12" in set_up(str(pythons["3.12"]))
    assert set_up(str(pythons["3.12"])) == set_up("") == "", "nothing is left to do"
    assert "Replacing .venv, which has Python 3.12" in set_up(str(pythons["3.14"]))
    assert (tmp_path / ".venv/bin/python").read_text() == pythons["3.14"].read_text()


def test_the_generated_messages_are_those_of_the_proto_files():
    assert drifted() == []


def test_every_fragile_area_names_tests_that_exist():
    assert problems() == []


def test_every_known_defect_and_every_loss_has_a_test_a_metric_and_a_runbook_entry():
    assert hardening_problems() == []
    assert {*SessionOutcome, *Unrecorded} <= losses()
    assert len(_defects((ROOT / "docs/hardening.md").read_text())) > 80


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            "| empty | m | `pocket_miner_session_outcomes_total` | t | PocketSessionLost |",
            "does not fire for this outcome",
        ),
        ("| equal relays | m | `pocket_relayer_relays_duplicate_total` | t | PocketRelaysRejected |", "does not use"),
        ("| a | m | `pocket_miner_balance_upokt` | t | PocketNothing |", "does not exist"),
        ("| a | m | `pocket_nothing` | t | none |", "metric pocket_nothing does not exist"),
        ("## Defects\n| a | b | nothing |", "neither a test nor a design"),
        ("`tests/unit/test_scripts.py::test_nothing`", "does not exist"),
    ],
)
def test_a_row_of_the_hardening_page_that_cannot_be_true_is_reported(row, problem):
    assert problem in "\n".join(hardening_problems(row + "\n"))


def test_every_mutant_still_finds_its_line_and_its_test():
    for mutant in MUTANTS:
        assert (ROOT / mutant.file).read_text().count(mutant.old) >= 1, mutant.old
        path, _, name = mutant.test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(), mutant.test


@pytest.mark.processes
@pytest.mark.parametrize(
    ("subject", "accepted"),
    [
        ("fix(miner): send a lost claim again", True),
        ("feat(api)!: rename a field", True),
        ("Fix the miner", False),
        ("fix: Send a lost claim again", False),
        ("fix: " + "x" * 68, False),
    ],
)
def test_commit_subjects_are_conventional_commits(tmp_path, subject, accepted):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--initial-branch=main")
    git("commit", "--allow-empty", "-m", "anything")
    git("commit", "--allow-empty", "-m", subject)
    run = subprocess.run(
        [ROOT / "scripts/check_commits", "HEAD~1..HEAD"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == (0 if accepted else 1)
    assert (subject in run.stderr) is not accepted
