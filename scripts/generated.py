"""Generated files: written, or compared with what is there."""

import argparse
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_or_check(documents: Mapping[Path, str], script: str, about: str | None) -> int:
    """Exit code: 0 when nothing had to change or everything was written, 1 when --check found a difference."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    wrong = 0
    for path, text in documents.items():
        file = ROOT / path
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        if check:
            print(f"{path} differs from what the models say: run {script}")
            wrong += 1
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 1 if wrong else 0
