"""Fixtures for every tier. The folders of tests are importable as top-level helpers of their own tier."""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE / "vectors", HERE / "support"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture
def seeded_bytes() -> Callable[[int], bytes]:
    """A repeatable stand-in for secrets.token_bytes."""
    return random.Random(20260101).randbytes
