"""A public class or a module is found by its name: no two of the product's have the same one."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from mutants import ROOT

PACKAGES = {
    "pocket": "core",
    "pocket_operator": "operator",
    "pocket_relayer": "workloads/relayer",
    "pocket_miner": "workloads/miner",
    "pocket_localnet": "workloads/localnet",
    "pocket_console": "cli",
    "pocket_signer": "cli",
    "relayctl": "cli",
}
PER_PROGRAM = {"__init__", "__main__"}
"""Names of modules with the same role in every package."""


def modules_of(package: str) -> list[Path]:
    """Return the modules of a package that are written by hand."""
    found = sorted((ROOT / PACKAGES[package] / package).rglob("*.py"))
    return [path for path in found if not path.stem.endswith("_pb2")]


def public_classes(source: str) -> list[str]:
    """Return the names of a module's public classes."""
    found = [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return [name for name in found if not name.startswith("_")]


def repeated(names: list[str]) -> list[str]:
    """Return the names that occur more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def test_every_public_class_has_a_name_of_its_own():
    paths = [path for package in PACKAGES for path in modules_of(package)]
    names = [name for path in paths for name in public_classes(path.read_text(encoding="utf-8"))]
    assert len(names) > 500
    assert repeated(names) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_of_a_distribution_has_a_name_of_its_own(package):
    names = [path.stem for path in modules_of(package)]
    assert len(names) > 5
    assert repeated([name for name in names if name not in PER_PROGRAM]) == []


def test_no_package_lies_outside_these():
    found = {path.parent.name for root in set(PACKAGES.values()) for path in (ROOT / root).glob("*/__init__.py")}
    assert found == set(PACKAGES)
