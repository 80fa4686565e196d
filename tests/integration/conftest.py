"""What the tests of the money path share."""

from dataclasses import replace

import pytest

from mine import mine
from pocket_miner.ingest import relay_consumer


@pytest.fixture
async def alice(redis, tmp_path):
    """Start a miner of one supplier at block 1 of a fresh localnet."""
    async with mine(redis, tmp_path) as made:
        yield made


@pytest.fixture
def no_recorded_terms(monkeypatch):
    """Let volumes know terms and params of sessions no better than those that earlier releases wrote."""
    real = relay_consumer.restored_session
    monkeypatch.setattr(relay_consumer, "restored_session", lambda row: real(replace(row, terms="", params="")))
