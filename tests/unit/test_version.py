import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pocket.runtime import version

ROOT = Path(__file__).parents[2]
HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / ".git/refs/heads").mkdir(parents=True)
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    return tmp_path


def test_the_commit_of_a_branch_is_read_without_git(checkout):
    (checkout / ".git/refs/heads/main").write_text(f"{HASH}\n")
    assert version.commit_of(checkout) == HASH


def test_the_commit_of_a_packed_branch_is_read(checkout):
    rows = ["# pack-refs with: peeled", f"{'f' * 40} refs/heads/a", f"{HASH} refs/heads/main"]
    (checkout / ".git/packed-refs").write_text("\n".join(rows))
    assert version.commit_of(checkout) == HASH


def test_the_commit_of_a_detached_head_is_read(checkout):
    (checkout / ".git/HEAD").write_text(f"{HASH}\n")
    assert version.commit_of(checkout) == HASH


def test_the_commit_of_a_worktree_is_read(checkout, tmp_path_factory):
    (checkout / ".git/refs/heads/side").write_text(HASH)
    own = checkout / ".git/worktrees/side"
    own.mkdir(parents=True)
    (own / "HEAD").write_text("ref: refs/heads/side\n")
    (own / "commondir").write_text("../..\n")
    worktree = tmp_path_factory.mktemp("worktree")
    (worktree / ".git").write_text(f"gitdir: {own}\n")
    assert version.commit_of(worktree) == HASH


@pytest.mark.parametrize("head", ["", "ref: refs/heads/none", "not a hash"])
def test_what_names_no_commit_has_none(checkout, head):
    (checkout / ".git/HEAD").write_text(head)
    assert version.commit_of(checkout) == ""
    assert version.commit_of(checkout / "nowhere") == ""


@pytest.mark.processes
def test_a_build_is_told_its_commit_where_there_is_no_checkout():
    program = [sys.executable, "-I", ROOT / "core/pocket/runtime/version.py"]
    printed = subprocess.run(program, env={"COMMIT": HASH}, capture_output=True, text=True, check=True).stdout
    assert printed == f"{HASH}\n"


@pytest.mark.processes
def test_an_image_knows_its_commit(tmp_path):
    environment = {"PATH": os.environ["PATH"], "COMMIT": HASH}
    subprocess.run([ROOT / "images/install-members", "localnet", tmp_path], env=environment, check=True)
    code = "from pocket.runtime.version import COMMIT; print(COMMIT)"
    environment = {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed == f"{HASH[:12]}\n"


def test_the_version_is_written_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pattern = project["tool"]["hatch"]["version"]["pattern"]
    text = (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text()
    assert re.search(pattern, text)["version"] == version.VERSION
    others = []
    for folder in ("core", "cli", "operator", "workloads", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != ROOT / "core/pocket/runtime/version.py" and f'"{version.VERSION}"' in path.read_text():
                others.append(str(path))
    assert others == []
