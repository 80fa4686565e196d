"""Refuses giant modules: a file has at most 450 lines (generated code and data aside)."""

import subprocess
import sys
from pathlib import Path

LIMIT = 450


def main() -> int:
    """Return exit code 1 if a file is too long.

    The complexity of functions is limited by ruff.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    long = []
    for name in listed:
        if "_pb2" in name or not Path(name).exists():
            continue
        lines = len(Path(name).read_text(encoding="utf-8").splitlines())
        if lines > LIMIT:
            long.append(f"{name}: {lines} lines, at most {LIMIT}: one concept each?")
    print("\n".join(long) or f"{len(listed)} files, none above {LIMIT} lines")
    return 1 if long else 0


if __name__ == "__main__":
    sys.exit(main())
