"""Refuse giant modules.

Files of the product have at most 430 lines, others 450. Generated code and data are not counted.
"""

import subprocess
import sys
from pathlib import Path

LIMIT = 450
PRODUCT_LIMIT = 430
PRODUCT = ("core/", "operator/", "workloads/", "cli/")


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
        limit = PRODUCT_LIMIT if name.startswith(PRODUCT) else LIMIT
        if lines > limit:
            long.append(f"{name}: {lines} lines, at most {limit}: one concept each?")
    print("\n".join(long) or f"{len(listed)} files, none too long")
    return 1 if long else 0


if __name__ == "__main__":
    sys.exit(main())
