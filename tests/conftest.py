"""Fixtures for every tier. Helpers of the tiers are importable by their module name."""

import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE / "vectors", HERE / "support", HERE / "cluster", HERE.parent / "scripts"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from ledger.connection import connect  # noqa: E402 - after the path is set - the helpers' folders come first
from servers import RedisServer, running_redis  # noqa: E402 - after the path is set


@pytest.fixture
def seeded_bytes() -> Callable[[int], bytes]:
    """A repeatable stand-in for secrets.token_bytes."""
    return random.Random(20260101).randbytes


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    """One Redis for the tests that leave it running."""
    with running_redis() as server:
        yield server


@pytest.fixture
async def redis(redis_process: RedisServer) -> AsyncIterator[object]:
    """A client on an emptied Redis."""
    client = connect(redis_process.url)
    await client.flushall()
    try:
        yield client
    finally:
        await client.aclose()
