"""Writes a CycloneDX list of what an image installs: sbom.py REQUIREMENTS TARGET."""

import json
import re
import sys
from pathlib import Path


def components(requirements: str) -> list[dict[str, object]]:
    """Name, version and hashes of each pinned requirement."""
    found: list[dict[str, object]] = []
    for block in re.split(r"\n(?=\S)", requirements):
        pinned = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block)
        if pinned is None:
            continue
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", block)
        found.append(
            {
                "type": "library",
                "name": pinned[1],
                "version": pinned[2],
                "purl": f"pkg:pypi/{pinned[1].lower()}@{pinned[2]}",
                "hashes": [{"alg": "SHA-256", "content": value} for value in hashes],
            }
        )
    return found


def main() -> int:
    """0 when the file is written."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    rows = components(source.read_text(encoding="utf-8"))
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": rows}
    target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
