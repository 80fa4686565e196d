"""Every image holds what its members import: a package that only the developers' environment has is noticed here."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMBERS = dict(
    line.split(": ", 1) for line in (ROOT / "images/members").read_text().splitlines() if re.match(r"\w+: ", line)
)
OPTIONAL = {"opentelemetry"}  # the extra `tracing`


def imported(folder):
    """Top-level names of all imports below a folder, with one file that has each."""
    found = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            found |= {name.partition(".")[0]: path for name in names}
    return found


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("image", MEMBERS)
def test_whatever_the_members_of_an_image_import_is_installed_in_it(image):
    folders = [ROOT / member / "src" for member in MEMBERS[image].split()]
    own = {path.name for folder in folders for path in folder.iterdir()}
    locked = {
        normal(line.split("==")[0])
        for line in (ROOT / f"requirements/images/{image}.txt").read_text().splitlines()
        if "==" in line
    }
    distributions = packages_distributions()
    for folder in folders:
        for name, path in imported(folder).items():
            if name in own | OPTIONAL or name in sys.stdlib_module_names or name == "__future__":
                continue
            by = {normal(distribution) for distribution in distributions.get(name, ())}
            assert by & locked, f"{path} imports {name}, which the image {image} does not hold"
