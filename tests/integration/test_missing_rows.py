"""Sessions whose row is missing on the volume, and a loss of Redis that is noticed before something fails."""

import contextlib

import pytest

from mine import PREFIX, slow_root
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable

pytestmark = pytest.mark.redis
KEYS = RedisKeys(PREFIX)


def lose_row(mine, header):
    """Delete a session's row behind the miner's back. Its leaves stay, as after the end of a session."""
    file = mine.relay_store.file(header.session_end_block_height)
    file._database.execute("DELETE FROM session WHERE session_id=?", (header.session_id,))


async def settled(mine, header, rows):
    await mine.to(14)
    assert mine.claim(header).root_hash == slow_root(rows)
    await mine.to(21)
    assert mine.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_session_missing_on_the_volume_is_registered_again_when_relays_come(alice):
    header = alice.header()
    rows = alice.relays(header, 6)
    await alice.record(rows[:3])
    await alice.to(8)
    lose_row(alice, header)
    await alice.record(rows[3:])
    await alice.miner.tail()
    await alice.miner.tail()
    assert alice.relay_store.file(10).count(alice.supplier, header.session_id) == 6
    await settled(alice, header, rows)


async def test_a_session_missing_on_the_volume_after_its_last_relay_is_not_claimed_as_empty(alice):
    header = alice.header()
    rows = alice.relays(header, 4)
    await alice.record(rows)
    await alice.to(12)
    lose_row(alice, header)
    await settled(alice, header, rows)


async def test_a_session_that_ended_while_its_relays_were_read_is_not_registered_again(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 2))
    await alice.miner.tail()
    session = alice.miner.sessions.pop(header.session_id)
    lose_row(alice, header)
    await alice.miner.consumer.register_missing([session])
    assert alice.relay_store.sessions() == []


@pytest.mark.parametrize("step", ["sessions", "fence", "merge"])
async def test_the_loss_of_redis_is_remembered_until_everything_was_put_back(alice, redis, monkeypatch, step):
    header = alice.header()
    await alice.record(alice.relays(header, 2))
    await alice.miner.tail()
    await redis.flushdb()
    await alice.record(alice.relays(header, 1))  # under another incarnation
    done = []

    class NoPeers:
        urls = frozenset()

        async def sessions(self, supplier):
            done.append(supplier)
            return True, []

        async def seals(self, supplier):
            return []

    alice.miner.peers = NoPeers()
    owner, name = {
        "sessions": (type(alice.miner.consumer.tail), "sessions"),
        "fence": (type(alice.miner.store), "fence"),
        "merge": (NoPeers, "sessions"),
    }[step]

    async def fails(*_, **__):
        raise RedisUnavailable("reset")

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fails)
        # Relays are read without a fence.
        with contextlib.nullcontext() if step == "fence" else pytest.raises(RedisUnavailable):
            await alice.miner.tail()
    await alice.decide()
    assert done == [alice.supplier]
    assert int(await redis.get(KEYS.fence(alice.supplier))) == alice.epoch
