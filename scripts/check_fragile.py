"""Every test that a page in docs/fragile names must exist; every page must name at least one."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def problems() -> list[str]:
    """What is wrong, one sentence each."""
    found = []
    for page in sorted((ROOT / "docs/fragile").glob("*.md")):
        named = _NAMED.findall(page.read_text(encoding="utf-8"))
        if not named:
            found.append(f"{page.name}: names no test")
        for path, test in named:
            file = ROOT / path
            if not file.exists() or f"def {test}(" not in file.read_text(encoding="utf-8"):
                found.append(f"{page.name}: {path}::{test} does not exist")
    return found


if __name__ == "__main__":
    rows = problems()
    print("\n".join(rows) or "every fragile area's tests exist")
    sys.exit(1 if rows else 0)
