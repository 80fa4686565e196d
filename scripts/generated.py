"""Generated files: written, or compared with what is there."""

import argparse
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def differing(documents: Mapping[Path, str]) -> list[Path]:
    """Return the files whose contents are not as generated."""
    files = {path: ROOT / path for path in documents}
    return [p for p, file in files.items() if not file.exists() or file.read_text(encoding="utf-8") != documents[p]]


def write_or_check(documents: Mapping[Path, str], script: str, about: str | None) -> int:
    """Write generated files, or check them with --check.

    Returns 1 when --check found a difference, otherwise 0.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    changed = differing(documents)
    for path in changed:
        if check:
            print(f"{path} differs from what the models say: run {script}")
        else:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(documents[path], encoding="utf-8")
            print(f"wrote {path}")
    return 1 if check and changed else 0
