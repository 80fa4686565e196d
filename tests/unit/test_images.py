"""Every image holds what its program imports: a package that only the developers' environment has is noticed here."""

import ast
import functools
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MEMBERS = dict(
    line.split(": ", 1) for line in (ROOT / "images/members").read_text().splitlines() if re.match(r"\w+: ", line)
)
OPTIONAL = {"opentelemetry"}  # the extra `tracing`


def modules_of(folder):
    """Files by dotted module name."""
    files = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


@functools.cache
def imported(path):
    """Dotted names that a file imports, each name of a `from` import included."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


installed = functools.cache(packages_distributions)


def reachable(own, program):
    """Files that the program's modules import, directly or not."""
    waiting = [name for name in own if name.partition(".")[0] == program]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name not in own or name in seen:
            continue
        seen.add(name)
        parts = name.split(".")
        waiting += [".".join(parts[:count]) for count in range(1, len(parts))]
        waiting += imported(own[name])
    return [own[name] for name in seen]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("image", MEMBERS)
def test_whatever_the_program_of_an_image_imports_is_installed_in_it(image):
    folders = [ROOT / member for member in MEMBERS[image].split()]
    own = {name: path for folder in folders for name, path in modules_of(folder).items()}
    files = reachable(own, folders[0].name)
    locked = {
        normal(line.split("==")[0])
        for line in (ROOT / f"requirements/images/{image}.txt").read_text().splitlines()
        if "==" in line
    }
    distributions = installed()
    missing = set()
    for path in files:
        for name in {name.partition(".")[0] for name in imported(path)}:
            if name in OPTIONAL or name in {folder.name for folder in folders} or name in sys.stdlib_module_names:
                continue
            if not {normal(distribution) for distribution in distributions.get(name, ())} & locked:
                missing.add(f"{path.relative_to(ROOT)} imports {name}")
    assert len(files) > 10
    assert not missing


LISTS = {
    "scripts/images": r"for component in ([a-z ]+);",
    "scripts/lock": r"for image in ([a-z ]+);",
    "hack/image-archives": r'components="([a-z ]+)"',
    "images/Dockerfile": r"COMPONENT is ([a-z, ]+) or ([a-z]+);",
    ".github/workflows/release.yml": r"component: \[([a-z, ]+)\]",
}


@pytest.mark.parametrize("file", LISTS)
def test_whatever_builds_the_images_builds_all_of_them(file):
    found = re.search(LISTS[file], (ROOT / file).read_text())
    assert sorted(re.findall("[a-z]+", " ".join(found.groups()))) == sorted(MEMBERS)


def test_a_release_publishes_the_images_that_the_manifests_and_examples_name():
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    (build,) = (step["with"] for step in release["jobs"]["images"]["steps"] if step.get("id") == "build")
    repository = build["tags"].replace("${{ env.REGISTRY }}", release["env"]["REGISTRY"])
    repository = repository.replace("${{ github.repository_owner }}", "pocket-relay-mining").rpartition(":")[0]
    published = {repository.replace("${{ matrix.component }}", image) for image in MEMBERS}
    texts = [(ROOT / "operator/pocket_operator/install.py").read_text()]
    texts += [path.read_text() for path in sorted((ROOT / "examples/compose").iterdir())]
    named = set(re.findall(r"ghcr\.io/[a-z/-]+", "\n".join(texts)))
    assert len(named) == 5
    assert named <= published


def test_both_ways_to_build_stand_on_one_python_and_docker_on_a_pinned_base():
    recipe, archives = ((ROOT / name).read_text() for name in ("images/Dockerfile", "hack/image-archives"))
    base = re.search(r"^ARG BASE=python:(3\.\d+)\.\d+-slim-(\w+)@sha256:[0-9a-f]{64}$", recipe, re.MULTILINE)
    assert base
    python, debian = base.groups()
    assert set(re.findall(r"^FROM (\S+)", recipe, re.MULTILINE)) == {"${BASE}"}
    assert set(re.findall(r"python(3\.\d+)", recipe)) == {python}
    assert set(re.findall(r"python(?:-version )?(3\.\d+)", archives)) == {python}
    assert f" {debian} " in archives
