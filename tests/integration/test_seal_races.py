"""Two owners, crashes between seal and broadcast, and altered volumes: never another root than the sealed one."""

import contextlib
from dataclasses import replace

import pytest

from mine import HereTriePool, mine
from pocket.errors import ChainUnavailable
from pocket.protocol.claims.proof_requirement import ProofRequirement
from pocket.protocol.smst.digest import Root
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.seals import SealStore, SessionSeal, SignedGroup
from pocket.redis_store.store_errors import RedisStoreError
from pocket_miner.submission.claims import SealSource
from pocket_miner.submission.sender import SendError

pytestmark = pytest.mark.redis


class InterruptedPool(HereTriePool):
    """Runs something once, right after a root was computed and before it is sealed."""

    def __init__(self, action):
        self.action = action

    async def root(self, path, supplier, session_id, sealed_root=b""):
        found = await super().root(path, supplier, session_id)
        if self.action is not None:
            action, self.action = self.action, None
            await action()
        return found


async def test_of_two_owners_that_seal_at_once_one_wins_and_the_other_takes_its_seal(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(12)
    twin = alice.owner(alice.epoch)

    async def twin_seals():
        await twin.tail()
        await twin.on_block(await alice.comet.block(), await alice.client.proof_params())

    alice.miner.claims.pool = InterruptedPool(twin_seals)
    await alice.block()
    mine_seal, twin_seal = (m.sessions[header.session_id].seal for m in (alice.miner, twin))
    assert mine_seal == twin_seal
    await alice.to(21)
    claims = [t for t in alice.chain.transactions.values() if "/pocket.proof.MsgCreateClaim" in t.actions]
    assert len(claims) == 1
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_seal_in_redis_is_never_replaced_and_its_group_neither(redis):
    """A second process of the owner, under the same epoch, reads other leaves."""
    store = SealStore(redis, RedisKeys("test"), "supplier", 1)

    async def confirm():
        return

    await store.fence(confirm)
    last_ids = await store.close({"one": 10, "two": 10})
    first, other = (SessionSeal("one", byte * 48, b"d" * 32, 12, 1) for byte in (b"r", b"s"))
    signed = SignedGroup(b"bytes", 1, 12)
    await store.seal([first], last_ids, "10/claim/one", signed)
    both = [SessionSeal("two", b"t" * 48, b"d" * 32, 12, 1), other]
    with pytest.raises(RedisStoreError, match="sealed already"):
        await store.seal(both, last_ids, "10/claim/two", SignedGroup(b"other", 1, 12))
    assert await store.load() == {"one": first}
    assert await store.signed(10) == [signed]


async def test_a_stream_that_grew_behind_the_close_is_read_again_before_sealing(alice, redis):
    header = alice.header()
    rows = alice.relays(header, 3)
    await alice.record(rows[:2])
    await alice.to(12)

    async def append_behind_the_flag():
        await redis.xadd(RedisKeys("test").stream(alice.supplier, header.session_id), {"r": rows[2].relay})

    alice.miner.claims.pool = InterruptedPool(append_behind_the_flag)
    await alice.block()
    assert alice.miner.sessions[header.session_id].seal is None
    await alice.to(15)
    assert Root(alice.claim(header).root_hash).count == 3


async def test_after_a_crash_between_seal_and_broadcast_the_same_bytes_are_sent(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(12)
    sender = alice.miner.claims.sender
    broadcast, taken = sender.broadcast, []

    async def crash(raw):
        taken.append(raw)
        raise SendError(BroadcastFailure.RETRY, "the process died here")

    sender.broadcast = crash
    await alice.block()
    assert alice.claim(header) is None
    sender.broadcast = broadcast
    alice.start()
    await alice.to(15)
    sent = [t.raw for t in alice.chain.transactions.values()]
    assert sent == taken
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_seal_is_on_the_volume_and_in_redis_before_its_claim_is_broadcast(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(12)
    sender, seen = alice.miner.claims.sender, []
    broadcast = sender.broadcast

    async def look(raw):
        seen.append((header.session_id in alice.audit.seals(alice.supplier), await alice.miner.store.load()))
        return await broadcast(raw)

    sender.broadcast = look
    await alice.block()
    ((on_volume, in_redis),) = seen
    assert on_volume
    assert header.session_id in in_redis


async def test_a_refused_timestamp_is_replaced_at_the_next_block(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(12)
    alice.chain.faults.refuse.append((18, "sdk", "unordered tx ttl exceeds 10m0s: invalid request"))
    await alice.to(15)
    assert alice.claim(header) is not None


async def test_leaves_that_changed_after_the_seal_are_never_proven(alice):
    header = alice.header()
    rows = alice.relays(header, 3)
    await alice.record(rows)
    await alice.to(14)
    file = alice.relay_store.file(10)
    file._database.execute("DELETE FROM leaf WHERE path=(SELECT min(path) FROM leaf)")
    await alice.to(21)
    outcome = alice.outcomes()[header.session_id]
    assert outcome["outcome"] == "proof_missed"
    assert "another root" in outcome["details"]["proof_problem"]


async def test_a_proof_that_the_chain_finds_unnecessary_ends_as_not_required(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(15)
    state = alice.chain.state
    state.proof_params = replace(state.proof_params, proof_request_probability=0.0)
    session = alice.miner.sessions[header.session_id]
    assert session.requirement is ProofRequirement.PROBABILISTIC
    await alice.to(17)
    assert session.requirement is ProofRequirement.NOT_REQUIRED
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_proof_refused_as_poison_is_recorded_and_expires(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(15)
    service = alice.chain.state.services["eth"]
    # The session's target becomes impossible to meet: every proof is refused by the handler.
    difficulties = alice.chain.state.difficulties
    entry = alice.chain.state.difficulty_at("eth", 1)
    difficulties[service.id] = (replace(entry, effective_height=1, target_hash=bytes(31) + b"\x01"),)
    await alice.to(19)
    assert "difficulty" in alice.miner.sessions[header.session_id].details.proof_refusal


async def test_an_unfunded_operator_is_told_and_nothing_else_breaks(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(12)
    alice.chain.state.balances[alice.supplier] = 0
    await alice.to(22)
    assert alice.outcomes()[header.session_id]["outcome"] == "claim_missed"


@pytest.mark.parametrize("shown", [True, False], ids=["its claim is on chain", "its claim is on its way"])
@pytest.mark.parametrize("sent", [False, True], ids=["never sent", "sent"])
async def test_a_seal_made_without_redis_disowns_no_claim_of_the_owner_that_sealed_in_redis(
    redis, tmp_path, monkeypatch, shown, sent
):
    """The first owner seals three relays on its volume, the second one all five, and the first one comes back."""
    proof = {"proof_request_probability": 1.0, "proof_missing_penalty": 10**6}
    async with mine(redis, tmp_path / "first", proof_params=proof) as alice:
        header, first = alice.header(), tmp_path / "first"
        await alice.record(alice.relays(header, 3))
        await alice.to(11)
        await alice.record(alice.relays(header, 2))
        alice.skip(14)
        session, block = alice.miner.sessions[header.session_id], await alice.comet.block()
        with monkeypatch.context() as during:
            if not sent:
                during.setattr(alice.client, "broadcast", unreachable)
            with contextlib.suppress(SendError):
                params = await alice.client.proof_params()
                await alice.miner.claims.seal_and_claim([session], block, params, source=SealSource.VOLUME)
        alice.folder = tmp_path / "second"
        alice.start()
        await alice.block()
        if shown:
            await alice.block()
        alice.folder = first
        alice.start()
        await alice.to(24)
        outcome = alice.outcomes()[header.session_id]
        assert (outcome["outcome"], alice.chain.state.suppliers[alice.supplier].stake_upokt) == ("settled", 10**9)


async def unreachable(raw):
    raise ChainUnavailable("no node is reachable")
