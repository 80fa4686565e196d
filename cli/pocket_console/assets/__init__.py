"""Hold the page's own files and third-party files.

Those are as their packages publish them (vendor.json).
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def files() -> dict[str, bytes]:
    """Return the files that browsers may load, by name."""
    folders = (FOLDER, FOLDER / "vendor")
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in TYPES]
    return {path.name: path.read_bytes() for path in paths}


@cache
def asset_url(name: str) -> str:
    """Return the address of a file, which changes with its content.

    Raises KeyError for an unknown file.
    """
    return f"/assets/{name}?v={hashlib.sha256(files()[name]).hexdigest()[:12]}"


def vendored() -> list[dict[str, str]]:
    """Return package, version, licence, file and SHA-256 of each third-party file."""
    rows: list[dict[str, str]] = json.loads((FOLDER / "vendor.json").read_text(encoding="utf-8"))
    return rows
