"""What the tests of the money path share."""

import pytest

from mine import mine


@pytest.fixture
async def alice(redis, tmp_path):
    """Start a miner of one supplier at block 1 of a fresh localnet."""
    async with mine(redis, tmp_path) as made:
        yield made
