"""The version of the product and the commit that it was built from.

`python core/pocket/runtime/version.py` prints the commit of a checkout, which builds write to `commit.txt` next to this
module. It therefore imports the standard library only.
"""

import os
import platform
import re
from pathlib import Path
from typing import Final

VERSION: Final = "0.1.0"
"""The only place of the version: packages, images, chart and metrics take it from here."""
UNKNOWN: Final = "unknown"
_HERE: Final = Path(__file__).parent
_CHECKOUT: Final = _HERE.parents[2]
_SHORT: Final = 12
_HASH: Final = re.compile(r"[0-9a-f]{40}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def commit_of(checkout: Path) -> str:
    """Return the commit that a checkout is on, or an empty text if it is no checkout.

    Git is not needed.
    """
    folder = checkout / ".git"
    if (pointer := _text(folder)).startswith("gitdir: "):  # a worktree
        folder = checkout / pointer.removeprefix("gitdir: ")
    common = folder / (_text(folder / "commondir") or ".")
    head = _text(folder / "HEAD")
    if head.startswith("ref: "):
        name = head.removeprefix("ref: ")
        packed = (row.split(" ") for row in _text(common / "packed-refs").splitlines())
        head = _text(common / name) or next((row[0] for row in packed if row[-1] == name), "")
    return head if _HASH.fullmatch(head) else ""


COMMIT: Final = (_text(_HERE / "commit.txt") or commit_of(_CHECKOUT))[:_SHORT] or UNKNOWN
"""The abbreviated commit of this build or checkout. It is read at import, not on the event loop."""


def build_labels() -> tuple[str, str, str]:
    """Return version, commit and Python's version, the labels of `*_build_info`."""
    return VERSION, COMMIT, platform.python_version()


if __name__ == "__main__":
    print(os.environ.get("COMMIT") or commit_of(_CHECKOUT) or UNKNOWN)  # noqa: T201 - the output of a program
