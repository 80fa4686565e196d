"""When other miners are asked for relays: after a loss, until all have answered, and when one comes back.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

import pytest

from other_miners import another, served

pytestmark = pytest.mark.redis


async def test_a_peer_is_asked_again_until_it_answers(alice):
    header = await alice.recorded(5)
    await alice.miner.tail()
    await alice.redis.flushall()
    await alice.record(alice.relays(header, 2))
    async with served(alice) as asked:
        urls, asked._urls = asked._urls, lambda: ["http://127.0.0.1:9"]
        with another(alice, asked=asked) as other:
            await other.to(11)
            assert other.mirror.file(10).count(other.supplier, header.session_id) == 2
            asked._urls = urls
            await other.to(12)
            assert other.mirror.file(10).count(other.supplier, header.session_id) == 7


async def test_relays_of_a_peer_that_was_away_when_redis_lost_them_are_in_the_proof(alice):
    header = await alice.recorded(5)
    await alice.to(14)
    assert alice.chain.state.claims
    await alice.redis.flushall()
    async with served(alice) as asked:
        urls, asked._urls = asked._urls, list  # neither the stream nor a live miner knows the session
        with another(alice, asked=asked) as other:
            await other.to(17)
            assert header.session_id not in other.miner.sessions
            asked._urls = urls
            await other.to(21)
            assert other.outcomes()[header.session_id]["outcome"] == "settled"


async def test_what_the_stream_still_holds_is_not_fetched_from_peers(alice, monkeypatch):
    header = await alice.recorded(5)
    await alice.miner.tail()
    async with served(alice) as asked:

        async def never(*_):
            raise AssertionError("the stream has everything")

        monkeypatch.setattr(asked, "relays", never)
        with another(alice, asked=asked) as other:
            await other.miner.tail()
            assert other.mirror.file(10).count(other.supplier, header.session_id) == 5
