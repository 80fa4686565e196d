"""The list of an image's packages names those that are installed there, and nothing is installed that is not pinned."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pocket.runtime.version import VERSION

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements/images/relayer.txt"
INSTALLED = {"aiohttp": "", "typing_extensions": ""}
pytestmark = pytest.mark.processes


def install(folder, name, version):
    (folder / f"{name}-{version}.dist-info").mkdir()
    text = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
    (folder / f"{name}-{version}.dist-info/METADATA").write_text(text)


@pytest.fixture
def app(tmp_path):
    """Return the folder of an image with two of the pinned packages."""
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE))
    for name in INSTALLED:
        install(tmp_path, name, pinned[name.replace("_", "-")])
    place = tmp_path / "pocket/runtime"
    place.mkdir(parents=True)
    shutil.copy(ROOT / "core/pocket/runtime/version.py", place)
    return tmp_path


def written(app):
    target = app / "sbom.cdx.json"
    command = [sys.executable, ROOT / "images/sbom.py", "relayer", REQUIREMENTS, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done, json.loads(target.read_text()) if target.exists() else None


def test_what_is_installed_is_listed_with_the_image_and_its_hashes(app):
    done, found = written(app)
    assert done.returncode == 0, done.stderr
    image = found["metadata"]["component"]
    assert (image["name"], image["version"]) == ("pocket-relayer", VERSION)
    assert [row["name"] for row in found["components"]] == ["aiohttp", "typing-extensions"]
    assert all(row["hashes"] and row["version"] in row["purl"] for row in found["components"])
    (app / "pocket_accelerator").mkdir()
    row = written(app)[1]["components"][-1]
    assert row["name"] == "libsecp256k1"
    assert (
        f"{row['name']}](https://github.com/bitcoin-core/secp256k1) {row['version']} "
        in (ROOT / "native/README.md").read_text()
    )


def test_a_package_that_is_not_pinned_is_refused(app):
    install(app, "left_over", "1.0")
    done, found = written(app)
    assert (done.returncode, found) == (1, None)
    assert "left-over 1.0" in done.stderr
