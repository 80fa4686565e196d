"""How many examples a run checks a property with: few, and others in each run. EXAMPLES=<n> checks n times as many."""

import os

_FACTOR = int(os.environ.get("EXAMPLES") or 1)
USUAL = 40


def examples(count: int) -> int:
    """Return the number of examples of this run where `count` are usual."""
    return count * _FACTOR
