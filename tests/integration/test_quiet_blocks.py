"""A miner that skips the blocks at which it is quiet does all that it owes."""

import pytest

from mine import ended, mine
from world import World

pytestmark = pytest.mark.redis


async def test_a_session_is_settled_though_only_blocks_that_concern_it_are_decided(alice):
    header = await alice.recorded(5)
    await alice.decide()
    decided = []
    while ended(alice, header) is None:
        alice.localnet.step()
        await alice.miner.tail()
        if not alice.miner.quiet_at(alice.chain.height):
            await alice.decide()
            decided.append(alice.chain.height)
        assert alice.chain.height < 40
    assert ended(alice, header) == "settled"
    assert decided[0] == header.session_end_block_height


async def test_what_may_change_a_decision_ends_the_quiet(redis, tmp_path):
    async with mine(redis, tmp_path, World(services=("eth", "poly"))) as alice:
        await ends_the_quiet(alice)


async def ends_the_quiet(alice):
    header = await alice.recorded(2)
    assert not alice.miner.quiet_at(1), "nothing is known before the first decision"
    await alice.decide()
    now = alice.chain.height
    assert alice.miner.quiet_at(now)
    assert not alice.miner.quiet_at(header.session_end_block_height)
    alice.miner.on_redis_restarted()
    assert not alice.miner.quiet_at(now)
    await alice.decide()
    assert alice.miner.quiet_at(now)
    other = alice.header(service="poly")
    await alice.record(alice.relays(other, 1))
    assert alice.miner.quiet_at(now)
    alice.miner.last_scan_at -= 3600
    await alice.miner.tail()
    assert not alice.miner.quiet_at(now), "a session was found"
    assert await alice.decide() == {"ACTIVE": 2}
    assert alice.miner.quiet_at(now)
