"""Several volumes: what one miner mirrored or sealed is not lost when Redis and the ownership are.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

import contextlib

import pytest

from mine import slow_root
from other_miners import KEYS, another, ask, follow, served
from pocket.protocol.transactions.decode import decode_tx
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import RedisUnavailable, StaleEpoch
from pocket_miner.ingest import peers
from pocket_miner.suppliers.standby import delete_leftovers

pytestmark = pytest.mark.redis


@pytest.fixture(autouse=True)
def pages_of_one_relay(monkeypatch):
    monkeypatch.setattr(peers, "_PAGE_BYTES", 1)


async def test_relays_that_only_a_former_owners_volume_holds_are_in_the_claim(alice):
    header = alice.header()
    early, late = alice.relays(header, 5), alice.relays(header, 2)
    await alice.record(early)
    await alice.miner.tail()
    await alice.redis.flushall()
    await alice.record(late)
    async with served(alice) as asked:
        with another(alice, asked=asked) as other:
            await other.to(21)
            assert other.chain.state.claims == {}
            assert other.outcomes()[header.session_id]["outcome"] == "settled"
            assert other.outcomes()[header.session_id]["details"]["relays"] == 7


async def test_a_peer_cannot_slip_in_a_relay_that_the_gate_refuses(alice):
    header = alice.header()
    rows = alice.relays(header, 2)
    await alice.record(rows)
    await alice.miner.tail()
    database = alice.relay_store.file(10)._database
    database.execute("UPDATE leaf SET value=CAST('nonsense' AS BLOB) WHERE path=(SELECT min(path) FROM leaf)")
    await alice.redis.flushall()
    await alice.record(alice.relays(header, 1))
    async with served(alice) as asked:
        with another(alice, asked=asked) as other:
            await other.miner.tail()
            assert other.relay_store.file(10).count(other.supplier, header.session_id) == 2


async def test_a_peers_seal_is_the_only_thing_that_is_claimed_after_redis_came_back_empty(alice):
    header = alice.header()
    rows = alice.relays(header, 4)
    await alice.record(rows)
    await alice.to(12)
    alice.chain.faults.refuse.append((20, "sdk", "mempool is full"))
    await alice.block()
    seal = alice.miner.sessions[header.session_id].seal
    assert seal is not None
    assert alice.claim(header) is None
    await alice.redis.flushall()
    # The log of a relayer brings back only a part: a root of these would be another one.
    await alice.record(rows[:2])
    async with served(alice) as asked:
        with another(alice, asked=asked) as other:
            await other.to(16)
            assert other.claim(header).root_hash == seal.root == slow_root(rows)


async def test_a_standby_mirrors_and_takes_over_without_reading_again(alice):
    header = alice.header()
    rows = alice.relays(header, 6)
    await alice.record(rows)
    with another(alice) as other:
        standby = follow(other)
        assert await standby.round() == 6
        assert await other.redis.hgetall(KEYS.replicated(other.supplier)) == {}, "relayers are told by the owner only"
        await other.to(16)
        session = other.miner.sessions[header.session_id]
        assert session.seal.root == slow_root(rows)


@pytest.mark.parametrize("knows_seal", [False, True])
async def test_a_standby_that_copied_relays_recorded_after_the_seal_proves_the_sealed_ones(alice, knows_seal):
    header = await alice.recorded(6)
    await alice.to(14)
    assert alice.claim(header) is not None
    with another(alice) as other:
        standby = follow(other)
        await standby.round()
        await other.redis.flushall()
        await other.record(alice.relays(header, 3))  # by a relayer that was frozen: Redis knows of no closed session
        await standby.round()
        assert other.relay_store.file(10).count(other.supplier, header.session_id) == 9
        if knows_seal:
            await alice.decide()  # puts the seal back into Redis
        other.epoch += 1
        other.start()  # before the proof
        await other.to(22)
        assert other.outcomes()[header.session_id]["outcome"] == "settled"
        assert other.outcomes()[header.session_id]["details"]["relays"] == 6


@pytest.mark.parametrize("sealed", [True, False])
async def test_a_third_owner_gets_from_a_standby_what_only_that_one_still_has(alice, sealed):
    """The standby has read the stream that came after the loss to its end: its position tells nothing of the loss."""
    header = await alice.recorded(60)
    await alice.to(14 if sealed else 5)
    with another(alice, "standby") as second:
        standby = follow(second)
        await standby.round()
        await alice.redis.flushall()
        await alice.record(alice.relays(header, 2))
        await standby.round()
        async with served(second) as asked:
            with another(alice, "third", asked=asked) as third:
                await third.to(22)
                assert third.outcomes()[header.session_id]["outcome"] == "settled"
                assert third.outcomes()[header.session_id]["details"]["relays"] == (60 if sealed else 62)


async def test_a_redis_that_lost_the_seals_gets_them_back_though_every_session_is_sealed(alice):
    header = await alice.recorded(3)
    await alice.to(14)
    await alice.redis.flushall()
    await alice.miner.tail()
    await alice.decide()
    assert (await alice.miner.store.load())[header.session_id] == alice.miner.sessions[header.session_id].seal


async def test_an_owner_on_an_empty_volume_gets_the_sealed_relays_from_its_peers(alice):
    header = await alice.recorded(5)
    await alice.to(14)
    await alice.redis.flushall()
    await alice.record(alice.relays(header, 2))  # after the seal, by a relayer that was frozen
    async with served(alice) as asked:
        with another(alice, asked=asked) as other:
            await other.to(22)
            assert other.outcomes()[header.session_id]["outcome"] == "settled"
            assert other.outcomes()[header.session_id]["details"]["relays"] == 5


async def leftovers_of(made, followed, height=30):
    """Return how many sessions' leftovers a volume had."""
    return await delete_leftovers(made.relay_store, made.audit, made.redis, KEYS, followed, height)


def sealed_and_paid(made, header):
    """Put on a volume what a former owner has of a session: its seal, and what its claim cost."""
    seal = SessionSeal(header.session_id, bytes(48), bytes(32), 12, 1)
    made.audit.save_seals(made.supplier, header.session_end_block_height, [seal], "")
    made.audit.spend(made.supplier, "AB" * 32, "claim", {header.session_id: 7})


async def test_a_standby_drops_what_the_owner_has_ended(alice):
    header = await alice.recorded(3)
    with another(alice) as other:
        standby = follow(other)
        await standby.round()
        sealed_and_paid(other, header)
        await alice.to(21)
        await standby.round()
        assert standby.sessions == {}
        assert other.relay_store.ends() == []
        assert other.audit.unfinished() == []


async def test_leftovers_of_suppliers_that_went_elsewhere_are_removed_once_they_are_ended(alice):
    header = await alice.recorded(3)
    with another(alice) as other:
        await follow(other).round()
        sealed_and_paid(other, header)
        assert await leftovers_of(other, {other.supplier}) == 0
        assert await leftovers_of(other, set()) == 0
        await alice.to(21)
        assert await leftovers_of(other, set()) == 1
        assert other.relay_store.ends() == []
        assert other.audit.unfinished() == []


@pytest.mark.parametrize("tombstone", [True, False])
async def test_seals_and_costs_without_relays_are_removed_once_their_session_is_over(alice, tombstone):
    header = await alice.recorded(3)
    with another(alice) as other:
        sealed_and_paid(other, header)
        assert await leftovers_of(other, {other.supplier}) == 0, "its session is open"
        await alice.to(21)
        if not tombstone:
            await alice.miner.store.forget_before(10**6)
            assert await leftovers_of(other, {other.supplier}, 500) == 0
        assert await leftovers_of(other, {other.supplier}, 10_500) == 1
        assert other.audit.unfinished() == []


async def settled_by_another(alice, other, header):
    """Let the first owner claim and another one settle, whose tombstone is deleted hundreds of blocks later."""
    await alice.record(alice.relays(header, 3))
    await alice.to(16)
    other.epoch = alice.epoch
    other.start()
    await other.to(21)
    assert other.outcomes()[header.session_id]["outcome"] == "settled"
    await other.miner.store.forget_before(10**6)
    alice.epoch = other.epoch
    alice.start()


async def test_a_former_owner_books_no_second_outcome_after_the_tombstone_is_deleted(alice):
    header = alice.header()
    with another(alice) as other:
        await settled_by_another(alice, other, header)
        async with served(other) as asked:
            ask(alice, asked)
            await alice.block()
            assert alice.miner.sessions == {}
            await alice.block()
            assert alice.outcomes() == {}
            assert alice.audit.unfinished() == []
            assert alice.relay_store.ends() == []


async def test_a_former_owner_waits_for_a_peer_that_may_have_booked_the_outcome(alice):
    header = alice.header()
    with another(alice) as other:
        await settled_by_another(alice, other, header)
        async with served(other) as asked:
            urls, asked._urls = asked._urls, lambda: ["http://127.0.0.1:9"]
            ask(alice, asked)
            await alice.to(25)
            assert alice.outcomes() == {}
            asked._urls = urls
            await alice.to(28)
            assert alice.outcomes() == {}
            assert alice.miner.sessions == {}


async def test_a_peer_that_never_answers_delays_an_outcome_by_some_blocks(alice):
    header = alice.header()
    with another(alice) as other:
        await settled_by_another(alice, other, header)
        async with served(other) as asked:
            asked._urls = lambda: ["http://127.0.0.1:9"]
            ask(alice, asked)
            await alice.to(28)
            assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_former_owner_that_resumes_at_the_settlement_books_nothing(alice):
    await alice.recorded(3)
    await alice.to(19)
    with another(alice) as other:
        await other.miner.start()
        alice.skip(20)
        block = await alice.comet.block()
        with pytest.raises(StaleEpoch):
            await alice.miner.on_block(block, await alice.client.proof_params())
        assert alice.outcomes() == {}


async def test_a_session_that_another_owner_ended_gets_no_second_outcome(alice):
    header = await alice.recorded(3)
    with another(alice) as other:
        await other.miner.tail()
        assert header.session_id in other.miner.sessions
        alice.epoch = other.epoch
        alice.start()
        await alice.to(21)
        assert header.session_id in alice.outcomes()
        other.epoch = alice.epoch
        other.start()
        await other.decide()
        assert other.miner.sessions == {}
        assert other.outcomes() == {}


async def lost_seal(alice, other):
    """Lose Redis and the sealing volume after the claim, and make `other` the owner."""
    await alice.redis.flushall()
    other.epoch = alice.epoch + 1
    other.start()


async def test_a_claim_whose_seal_is_lost_is_adopted_by_who_has_the_same_leaves_and_proven(alice):
    header = alice.header()
    rows = alice.relays(header, 5)
    await alice.record(rows)
    with another(alice) as other:
        await follow(other).round()
        await alice.to(14)
        root = alice.claim(header).root_hash
        await lost_seal(alice, other)
        await other.to(15)
        seal = other.miner.sessions[header.session_id].seal
        assert seal.root == root
        assert await other.miner.store.load() == {header.session_id: seal}, "the next owner finds it in Redis"
        assert other.audit.seals(other.supplier)[header.session_id] == (10, seal)
        await other.to(21)
        assert other.outcomes()[header.session_id]["outcome"] == "settled"


@contextlib.asynccontextmanager
async def an_owner_without_most_leaves(alice, header):
    """Claim a session, then lose its seal and all but one relay of the new owner, whose peer has them.

    Yields the new owner and a function after which the peer is reached.
    """
    rows = alice.relays(header, 5)
    await alice.record(rows)
    async with served(alice) as asked:
        urls, asked._urls = asked._urls, list

        def reach_the_peer():
            asked._urls = urls

        with another(alice, asked=asked) as other:
            await alice.to(14)
            await lost_seal(alice, other)
            await alice.record(rows[:1])
            ask(other, asked)
            await other.miner.start()
            yield other, reach_the_peer


async def test_a_claim_whose_seal_is_lost_is_adopted_with_the_leaves_of_a_peer_that_came_later(alice):
    header = alice.header()
    async with an_owner_without_most_leaves(alice, header) as (other, reach_the_peer):
        reach_the_peer()
        await other.to(21)
        assert other.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_claim_that_looked_like_a_strangers_is_adopted_once_a_peer_has_the_other_leaves(alice):
    header = alice.header()
    async with an_owner_without_most_leaves(alice, header) as (other, reach_the_peer):
        await other.to(15)
        assert other.miner.sessions[header.session_id].conflicting
        reach_the_peer()
        await other.to(21)
        assert not other.miner.sessions
        assert other.outcomes()[header.session_id]["outcome"] == "settled"


async def test_without_redis_relays_of_peers_are_in_the_claim(alice):
    header = alice.header()
    rows = alice.relays(header, 5)
    await alice.record(rows[:3])
    async with served(alice) as asked:
        with another(alice, asked=asked) as other:
            await other.to(11)
            await alice.record(rows[3:])
            await follow(alice).round()
            await alice.redis.flushall()
            other.skip(15)
            session = other.miner.sessions[header.session_id]
            block, params = await other.comet.block(), await other.client.proof_params()
            await other.miner._seal_from_volume([session], block, params)
            assert session.seal.root == slow_root(rows)


async def test_a_claim_with_other_leaves_is_a_strangers_neither_replaced_nor_proven(alice):
    header = alice.header()
    rows = alice.relays(header, 5)
    await alice.record(rows[:3])
    with another(alice) as other:
        await follow(other).round()
        await alice.record(rows[3:])
        await alice.to(14)
        root = alice.claim(header).root_hash
        await lost_seal(alice, other)
        await other.to(17)
        assert other.miner.sessions[header.session_id].conflicting
        assert other.claim(header).root_hash == root
        await other.to(21)
        outcome = other.outcomes()[header.session_id]
        assert (outcome["outcome"], outcome["details"]["foreign_root"]) == ("claim_lost", root.hex())
        proofs = [t for t in other.chain.transactions.values() if "/pocket.proof.MsgSubmitProof" in t.actions]
        assert proofs == []


async def test_without_redis_nothing_is_sealed_that_the_chain_shows_as_claimed(alice, monkeypatch):
    """A former owner that is cut off from Redis and API server wakes up in the last third of the window."""
    header = alice.header()
    rows = alice.relays(header, 5)
    await alice.record(rows[:3])
    with another(alice) as other:
        await other.to(12)
        await alice.record(rows[3:])
        alice.epoch = other.epoch + 1
        alice.start()
        await alice.to(14)
        assert alice.claim(header).root_hash == slow_root(rows)

        async def away(*_, **__):
            raise RedisUnavailable("Redis is away")

        async def none(*_):
            return []

        for name in ("close", "load", "seal", "fence"):
            setattr(other.miner.store, name, away)
        monkeypatch.setattr(other.client, "claims_of", none)  # one node's empty answer is no evidence
        session = other.miner.sessions[header.session_id]
        block = await other.comet.block()
        await other.miner._seal_from_volume([session], block, await other.client.proof_params())
        assert session.seal is None
        await alice.to(16)
        assert alice.claim(header).root_hash == slow_root(rows)


async def test_a_peer_has_the_signed_claims_of_what_it_sealed(alice):
    header = await alice.recorded(3)
    await alice.to(14)
    async with served(alice) as asked:
        (raw,) = await asked.claims(alice.supplier, header.session_end_block_height)
        assert decode_tx(raw).roots == (alice.claim(header).root_hash,)
        assert await alice.miner.claims.sender.has_signed(raw)
        assert not await alice.miner.claims.sender.has_signed(raw[:-1])
        for end in (11, -1, 10**30):
            assert await asked.claims(alice.supplier, end) == set()
