"""When other miners are asked for relays: after a loss, until all have answered, and when one comes back.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

import asyncio

import pytest

from mine import mine, unharmed
from other_miners import another, ask, served
from pocket.protocol.claims.proof_requirement import VALIDATED
from pocket_miner.ingest.peers import PeerSession
from world import World

pytestmark = pytest.mark.redis
PROOF = "/pocket.proof.MsgSubmitProof"


async def test_a_peer_is_asked_again_until_it_answers(alice):
    header = await alice.recorded(5)
    await alice.miner.tail()
    await alice.redis.flushall()
    await alice.record(alice.relays(header, 2))
    async with served(alice) as asked:
        urls, asked._urls = asked._urls, lambda: ["http://127.0.0.1:9"]
        with another(alice, asked=asked) as other:
            await other.to(11)
            assert other.relay_store.file(10).count(other.supplier, header.session_id) == 2
            asked._urls = urls
            await other.to(12)
            assert other.relay_store.file(10).count(other.supplier, header.session_id) == 7


@pytest.mark.parametrize("failing", [0, 1])
async def test_a_peer_that_gave_only_one_of_its_sessions_is_asked_again(redis, tmp_path, failing):
    async with mine(redis, tmp_path, World(services=("eth", "base"))) as alice, served(alice) as asked:
        headers = [alice.header(service=service) for service in ("eth", "base")]
        for header in headers:
            await alice.record(alice.relays(header, 5))
        await alice.miner.tail()
        await redis.flushall()
        for header in headers:
            await alice.record(alice.relays(header, 2))
        give, seen = asked.relays, []

        async def relays(row, *args):
            seen.append(row.session_id)
            return len(seen) != 1 + failing and await give(row, *args)

        asked.relays = relays
        with another(alice, asked=asked) as other:
            await other.to(12)
            assert [other.relay_store.file(10).count(other.supplier, h.session_id) for h in headers] == [7, 7]
            assert len(set(seen[:2])) == 2


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
            assert other.relay_store.file(10).count(other.supplier, header.session_id) == 5


class Peer:
    """A peer without anything, whose answers differ in its subclasses."""

    urls = frozenset({"http://peer"})

    async def seals(self, supplier):
        return []

    async def sessions(self, supplier):
        return True, []

    async def claims(self, supplier, end):
        return set()

    async def ended(self, supplier, session_ids):
        return False, set()


async def test_a_peer_that_gives_relays_slowly_delays_no_claim_beyond_its_window(alice):
    """Each page comes in time, and there are ever more of them."""
    header = await alice.recorded(3)

    class SlowPeer(Peer):
        async def sessions(self, supplier):
            row = PeerSession("http://peer", header.session_id, header.encode(), "9-9", "x", 10)
            return True, [row]

        async def relays(self, session, supplier, end, take):
            await asyncio.Event().wait()

    await alice.miner.tail()
    alice.miner.merge_seconds = 0.01
    ask(alice, SlowPeer())
    async with asyncio.timeout(60):
        while alice.chain.height < 21:
            alice.localnet.step()
            await alice.miner.on_block(await alice.comet.block(), await alice.client.proof_params())
    assert unharmed(alice, header)


async def test_what_is_sealed_is_proven_while_a_peer_hangs(alice):
    """A peer that hangs is waited for longer than a block takes, also by a miner that starts in the window."""
    header = await alice.recorded(3)
    await alice.to(15)
    alice.skip(18)
    assert alice.claim(header).proof_validation_status != VALIDATED
    asked, goes_on = asyncio.Event(), asyncio.Event()

    class HangingPeer(Peer):
        async def seals(self, supplier):
            asked.set()
            await goes_on.wait()
            return []

    alice.start()
    ask(alice, HangingPeer())
    async with asyncio.TaskGroup() as group:
        group.create_task(alice.miner.on_block(await alice.comet.block(), await alice.client.proof_params()))
        await asyncio.wait_for(asked.wait(), 30)
        alice.localnet.step()
        proofs = [t for t in alice.chain.transactions.values() if PROOF in t.actions]
        goes_on.set()
    assert len(proofs) == 1
    await alice.to(21)
    assert unharmed(alice, header)
    assert len([t for t in alice.chain.transactions.values() if PROOF in t.actions]) == 1, "it is paid for once"
