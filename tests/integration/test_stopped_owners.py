"""An owner whose process is stopped while it concludes sessions: it has lost them when it goes on.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

import pytest

from other_miners import another
from pocket.redis_store.store_errors import StaleEpoch
from pocket_miner.settlement import concluding

pytestmark = pytest.mark.redis


class StoppedReader:
    """Reads settlements, and lets something else happen before the answer is used."""

    def __init__(self, real, meanwhile):
        self._real, self._meanwhile = real, meanwhile

    async def events(self, *arguments):
        answer = await self._real.events(*arguments)
        await self._meanwhile()
        return answer

    def __getattr__(self, name):
        return getattr(self._real, name)


async def test_an_owner_that_is_stopped_while_it_reads_a_settlement_books_nothing(alice):
    header = await alice.recorded(3)
    await alice.to(19)
    alice.skip(20)
    block = await alice.comet.block()
    with another(alice) as other:

        async def take_over():
            await other.miner.start()
            await other.decide()

        alice.miner.settlements = StoppedReader(alice.miner.settlements, take_over)
        with pytest.raises(StaleEpoch):
            await alice.miner.on_block(block, await alice.client.proof_params())
        assert header.session_id in other.outcomes()
        assert alice.outcomes() == {}


async def test_an_owner_that_is_stopped_after_its_last_check_books_at_the_next_block(alice, monkeypatch):
    header = await alice.recorded(3)
    await alice.to(19)
    with monkeypatch.context() as patch:
        patch.setattr(concluding, "_CHECKED_SECONDS", -1.0)
        await alice.to(20)
        assert alice.outcomes() == {}
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
