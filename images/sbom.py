"""Write a CycloneDX list of what an image installs.

Usage: sbom.py COMPONENT REQUIREMENTS TARGET. TARGET lies in the folder of the installed packages. The Debian packages
are those of the base image, which `/var/lib/dpkg/status` lists.
"""

import json
import re
import sys
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path


def normal(name: str) -> str:
    """Return a package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def hashes_of(requirements: str) -> dict[tuple[str, str], list[str]]:
    """Return the SHA-256 hashes of each pinned requirement by name and version."""
    found = {}
    for block in re.split(r"\n(?=\S)", requirements):
        if pinned := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block):
            found[normal(pinned[1]), pinned[2]] = re.findall(r"--hash=sha256:([0-9a-f]{64})", block)
    return found


def components(requirements: str, installed: Iterable[tuple[str, str]]) -> list[dict[str, object]]:
    """Return name, version and hashes of each installed package.

    Raises ValueError for one that is not pinned.
    """
    hashes = hashes_of(requirements)
    rows = sorted((normal(name), version) for name, version in installed)
    if unknown := [f"{name} {version}" for name, version in rows if (name, version) not in hashes]:
        raise ValueError(f"installed without a pinned requirement: {', '.join(unknown)}")
    return [
        {
            "type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": value} for value in hashes[name, version]],
        }
        for name, version in rows
    ]  # fmt: skip


# Compiled into the accelerators (native/README.md).
VENDORED = {"type": "library", "name": "libsecp256k1", "version": "0.8.0",
            "purl": "pkg:github/bitcoin-core/secp256k1@v0.8.0"}  # fmt: skip


def document(component: str, requirements: str, folder: Path) -> dict[str, object]:
    """Return the list for the packages in a folder. Raises ValueError."""
    installed = [(row.metadata["Name"], row.version) for row in distributions(path=[str(folder)])]
    source = (folder / "pocket/runtime/version.py").read_text(encoding="utf-8")
    version = re.findall(r'^VERSION: Final = "(.+)"$', source, re.MULTILINE)[0]
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "application", "name": f"pocket-{component}", "version": version}},
        "components": components(requirements, installed) + [VENDORED] * (folder / "pocket_accelerator").is_dir(),
    }  # fmt: skip


def main() -> int:
    """Return 0 when the file is written, 1 if a package is not pinned."""
    component, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    try:
        found = document(component, source.read_text(encoding="utf-8"), target.parent)
    except ValueError as error:
        sys.stderr.write(f"sbom: {error}\n")
        return 1
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
