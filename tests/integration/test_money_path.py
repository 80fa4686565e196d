"""The whole money path of one supplier against a localnet over real gRPC and a real Redis, block by block.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

import hashlib
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

import slow_curve as slow
from mine import mine, slow_root
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.relays.messages import decode_mined_relay, relay_hash
from pocket.protocol.smst.digest import Root, path_of
from pocket.protocol.transactions.build import Timestamp, TransactionPlan, create_claim_message, sign_transaction
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.seals import SessionSeal, SignedGroup
from pocket.redis_store.store_errors import ConcurrentAppend, StaleEpoch
from world import World, address, key

pytestmark = pytest.mark.redis


async def test_recorded_relays_are_claimed_proven_and_paid(alice):
    header = alice.header()
    rows = alice.relays(header, 20)
    await alice.record(rows)
    await alice.to(14)
    assert alice.claim(header).root_hash == slow_root(rows)
    await alice.to(21)
    outcome = alice.outcomes()[header.session_id]
    assert (outcome["outcome"], outcome["stage"]) == ("settled", "SETTLED")
    assert outcome["details"]["settled_upokt"] == 20 * 100
    assert outcome["details"]["earned_upokt"] == 20 * 70
    assert outcome["details"]["relays"] == 20


async def test_an_independent_judge_agrees_with_miner_and_localnet(alice):
    """Root, closest leaf, ring signature and response signature, all by the slow implementation."""
    header = alice.header()
    rows = alice.relays(header, 25)
    await alice.record(rows)
    await alice.to(17)
    assert alice.claim(header).proof_validation_status == 1
    assert alice.claim(header).root_hash == slow_root(rows)
    (raw,) = [t.raw for t in alice.chain.transactions.values() if "/pocket.proof.MsgSubmitProof" in t.actions]
    body = tx_pb.TxBody.FromString(tx_pb.TxRaw.FromString(raw).body_bytes)
    proof = proof_pb.MsgSubmitProof.FromString(body.messages[0].value).proof
    wanted = hashlib.sha256(alice.chain.block_hash(15) + header.session_id.encode()).digest()
    by_path = {path_of(relay_hash(row.relay)): row.relay for row in rows}
    closest = by_path[slow.closest_leaf(by_path, wanted)]
    assert closest in proof
    assert wanted in proof
    _, request, response, _ = decode_mined_relay(closest)
    assert slow.verify_ring_equation(request.signable_hash(), request.signature)
    signature = response.supplier_operator_signature
    assert slow.ecdsa_holds(key("alice").public_key, response.signable_hash(), signature)
    assert not slow.ecdsa_holds(key("bob").public_key, response.signable_hash(), signature)


async def test_a_relay_recorded_twice_is_one_leaf(alice):
    header = alice.header()
    rows = alice.relays(header, 5)
    await alice.record(rows)
    await alice.record(rows[:3])
    await alice.to(14)
    assert Root(alice.claim(header).root_hash).count == 5


async def test_after_settlement_redis_and_volume_are_back_at_their_baseline(alice, redis):
    await alice.record(alice.relays(alice.header(), 3))
    await alice.to(21)
    kinds = {k.decode().split(":")[1] for k in await redis.keys("test:*")}
    assert kinds <= {"closed", "fence", "cutoff", "incarnation", "transactions"}
    assert list((alice.folder / "mirror").iterdir()) == []


async def test_relays_after_the_seal_are_refused(alice, redis):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(13)
    late = alice.relays(header, 1)
    await alice.record(late)
    assert await redis.xlen(RedisKeys("test").stream(alice.supplier, header.session_id)) == 3
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["details"]["relays"] == 3


async def test_the_first_relay_of_a_session_is_refused_once_there_is_no_time_to_claim_it(alice, redis):
    header = alice.header()
    await alice.to(13)
    await alice.record(alice.relays(header, 1))
    assert await redis.hgetall(RedisKeys("test").sessions(alice.supplier)) == {}
    later = alice.header()
    await alice.record(alice.relays(later, 1))
    await alice.to(32)
    assert set(alice.outcomes()) == {later.session_id}


async def test_a_first_relay_just_before_that_is_claimed_and_paid(alice):
    header = alice.header()
    await alice.to(12)
    await alice.record(alice.relays(header, 1))
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_what_is_too_late_stays_too_late_when_redis_comes_back_empty(alice, redis):
    header = alice.header()
    await alice.to(13)
    await redis.flushdb()
    await alice.record(alice.relays(alice.header(), 1))
    await alice.miner.tail()
    await alice.record(alice.relays(header, 1))
    assert set(await redis.hkeys(RedisKeys("test").sessions(alice.supplier))) == {alice.header().session_id.encode()}


async def test_a_chain_that_was_started_anew_is_told_apart_and_its_relays_are_paid(alice, redis, captured_logs):
    await redis.set(RedisKeys("test").cutoff(alice.supplier), 500)
    header = alice.header()
    await alice.decide()
    assert "chain reset? Sessions up to the known height are rejected" in [row["event"] for row in captured_logs]
    await alice.record(alice.relays(header, 2))
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


@pytest.mark.parametrize(("seen", "told"), [(3, {"relays": 3}), (13, {"relays": 3, "sealed_height": 13})])
async def test_a_missed_claim_tells_what_was_lost_whoever_concludes_it(alice, seen, told):
    lost = REGISTRY.get_sample_value("pocket_miner_lost_upokt_total", {"reason": "claim_missed"}) or 0
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    alice.chain.faults.evict = 9
    await alice.to(seen)
    alice.skip(17)
    alice.start()
    await alice.decide()
    assert alice.outcomes() == {}, "it may be that a node does not show the claim"
    await alice.to(21)
    outcome = alice.outcomes()[header.session_id]
    assert outcome["outcome"] == "claim_missed"
    assert {row["finding"] for row in outcome["details"]["evidence"]} == {"claim_absent", "no_settlement_event"}
    assert outcome["details"]["claimed_upokt"] == 300
    assert {key: outcome["details"].get(key) for key in ("relays", "sealed_height") if key in told} == told
    assert ("root" in outcome["details"]) == (seen == 13)
    now = REGISTRY.get_sample_value("pocket_miner_lost_upokt_total", {"reason": "claim_missed"})
    assert now - lost == 300


async def test_an_outcome_names_root_and_transactions_and_whether_a_proof_was_required(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(17)
    alice.start()
    await alice.to(21)
    details = alice.outcomes()[header.session_id]["details"]
    sent = [name for name, t in alice.chain.transactions.items() if "/pocket.proof.MsgCreateClaim" in t.actions]
    assert details["claim_transactions"] == sent
    assert Root(bytes.fromhex(details["root"])).count == details["relays"] == 3
    assert details["compute_units"] == 300
    assert details["proof_required"] == ("proof_transactions" in details)


async def test_grace_period_relays_count(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 2))
    await alice.to(11)
    await alice.record(alice.relays(header, 2))
    await alice.to(14)
    assert Root(alice.claim(header).root_hash).count == 4


@pytest.mark.parametrize("height", [5, 12, 13, 14, 16, 17, 18, 19])
async def test_a_new_owner_resumes_from_any_height(alice, height):
    header = alice.header()
    await alice.record(alice.relays(header, 7))
    await alice.to(height)
    alice.start()
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    assert alice.outcomes()[header.session_id]["details"]["settled_upokt"] == 700


@pytest.mark.parametrize("height", [5, 12, 13, 14, 17])
async def test_a_new_owner_without_volume_rebuilds_everything_from_redis(alice, height, tmp_path):
    header = alice.header()
    await alice.record(alice.relays(header, 7))
    await alice.to(height)
    alice.folder = tmp_path / "new-volume"
    alice.start()
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


@pytest.mark.parametrize("height", [11, 13, 14, 17])
async def test_an_empty_redis_loses_nothing_that_was_mirrored(alice, redis, height):
    header = alice.header()
    await alice.record(alice.relays(header, 7))
    await alice.to(height)
    await redis.flushall()
    alice.miner.consumer.reread()
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["details"]["settled_upokt"] == 700


async def test_a_missed_claim_window_is_one_outcome_with_its_reason(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(11)
    alice.skip(17)
    await alice.to(21)
    outcome = alice.outcomes()[header.session_id]
    assert (outcome["outcome"], outcome["stage"]) == ("claim_missed", "CLAIMABLE")


async def test_a_claim_that_never_gets_in_is_missed_as_sealed(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(12)
    alice.chain.faults.evict = 50
    await alice.to(21)
    outcome = alice.outcomes()[header.session_id]
    assert (outcome["outcome"], outcome["stage"]) == ("claim_missed", "SEALED")


async def test_a_missing_proof_is_slashed_on_chain_and_told(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(15)
    alice.chain.faults.evict = 50
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "proof_missed"
    assert alice.chain.state.suppliers[alice.supplier].stake_upokt == 10**9 - 1_000_000


async def test_no_proof_is_sent_where_none_is_required(redis, tmp_path):
    proof = {"proof_request_probability": 0.0, "proof_missing_penalty": 5}
    async with mine(redis, tmp_path, proof_params=proof) as alice:
        header = alice.header()
        await alice.record(alice.relays(header, 4))
        await alice.to(21)
        assert alice.outcomes()[header.session_id]["outcome"] == "settled"
        sent = [t.actions for t in alice.chain.transactions.values()]
        assert sent == [("/pocket.proof.MsgCreateClaim",)]


async def test_an_unprofitable_session_is_skipped_with_its_amounts(redis, tmp_path):
    # It claims 400 upokt, of which 280 would reach the supplier: a proof costs 300 on average.
    proof = {"proof_request_probability": 0.5, "proof_submission_fee": 600}
    async with mine(redis, tmp_path, proof_params=proof) as alice:
        header = alice.header()
        await alice.record(alice.relays(header, 4))
        await alice.to(21)
        outcome = alice.outcomes()[header.session_id]
        assert outcome["outcome"] == "unprofitable"
        assert outcome["details"]["claimed_upokt"] == 400
        assert outcome["details"]["expected_earnings_upokt"] == 280
        assert outcome["details"]["proof_cost_upokt"] == 300


@pytest.mark.parametrize("shares", [{"supplier": 0.9, "dao": 0.0, "proposer": 0.0, "source_owner": 0.1}, {"dao": 0.5}])
async def test_a_session_is_claimed_where_the_suppliers_share_covers_the_costs_or_is_not_known(redis, tmp_path, shares):
    proof = {"proof_request_probability": 0.5, "proof_submission_fee": 600}
    async with mine(redis, tmp_path, proof_params=proof, tokenomics={"distribution": shares}) as alice:
        header = alice.header()
        await alice.record(alice.relays(header, 4))
        await alice.to(14)
        assert alice.claim(header) is not None


async def test_a_session_without_leaves_is_empty(alice, redis):
    header = alice.header()
    rows = alice.relays(header, 1)
    await alice.record([replace(rows[0], relay=b"garbage")])
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "empty"


async def test_a_registered_session_that_the_chain_does_not_know_is_forfeited(alice, redis):
    header = alice.header()
    forged = replace(header, session_id="f" * 64)
    await alice.record(alice.relays(forged, 2))
    await alice.to(19)
    assert alice.outcomes() == {}
    await alice.to(21)
    outcome = alice.outcomes()[forged.session_id]
    assert outcome["outcome"] == "forfeited"
    assert outcome["reason"] == f"header_differs: the chain's session is {header.session_id}"


async def test_several_services_share_one_claim_transaction_per_session_end(redis, tmp_path):
    async with mine(redis, tmp_path, World(services=("eth", "base"))) as alice:
        headers = [alice.header(service=s) for s in ("eth", "base")]
        for header in headers:
            await alice.record(alice.relays(header, 3))
        await alice.to(21)
        assert {o["outcome"] for o in alice.outcomes().values()} == {"settled"}
        kinds = sorted(len(t.actions) for t in alice.chain.transactions.values())
        assert kinds == [2, 2]


async def test_a_foreign_claim_is_never_proven_and_never_overwritten(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(13)
    other = Root(b"\x11" * 32 + (300).to_bytes(8, "big") + (3).to_bytes(8, "big"))
    state = alice.chain.state
    plan = TransactionPlan(
        (create_claim_message(alice.supplier, header, other.digest),), "pocket",
        state.accounts[alice.supplier].number, 500_000, 1, Timestamp.of_nanoseconds(state.time_ns + 10**11),
    )  # fmt: skip
    assert alice.chain.broadcast(sign_transaction(plan, key("alice")).raw).code == 0
    await alice.to(15)
    assert alice.claim(header).root_hash == other.digest
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "claim_lost"
    proofs = [t for t in alice.chain.transactions.values() if "/pocket.proof.MsgSubmitProof" in t.actions]
    assert proofs == []


async def test_an_old_owner_is_fenced_and_its_seal_counts(alice):
    header = alice.header()
    rows = alice.relays(header, 4)
    await alice.record(rows)
    await alice.to(12)
    old = alice.miner
    new = alice.owner(alice.epoch + 1)
    await new.start()
    with pytest.raises(StaleEpoch):
        await old.store.close({header.session_id: 10})
    with pytest.raises(StaleEpoch):
        await old.store.finish(header.session_id, 10)
    with pytest.raises(StaleEpoch):
        await old._fence()
    alice.miner = new
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_session_is_sealed_once(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(13)
    store = alice.miner.store
    sealed = (await store.load())[header.session_id]
    last = await store.close({header.session_id: 10})
    other = SessionSeal(header.session_id, b"\x01" * 48, b"\x02" * 32, 14, store.epoch)
    with pytest.raises(Exception, match="sealed already"):
        await store.seal([other], last, "10/claim/x", SignedGroup(b"tx", 1, 14))
    assert (await store.load())[header.session_id] == sealed


async def test_a_seal_over_a_grown_or_open_stream_is_refused(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 2))
    await alice.miner.start()
    store = alice.miner.store
    seal = SessionSeal(header.session_id, b"\x01" * 48, b"\x02" * 32, 14, store.epoch)
    with pytest.raises(ConcurrentAppend, match="open"):
        await store.seal([seal], {header.session_id: "0-0"}, "10/claim/x", SignedGroup(b"tx", 1, 14))
    await store.close({header.session_id: 10})
    with pytest.raises(ConcurrentAppend, match="stale"):
        await store.seal([seal], {header.session_id: "0-0"}, "10/claim/x", SignedGroup(b"tx", 1, 14))


async def test_a_change_of_price_and_grid_leaves_the_running_session_alone(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(4)
    alice.chain.change_compute_units("eth", 7)
    alice.chain.change_shared_params(replace(alice.chain.state.live_shared_params, num_blocks_per_session=5))
    await alice.to(12)
    following = alice.header(12)
    assert (following.session_start_block_height, following.session_end_block_height) == (11, 15)
    await alice.record(alice.relays(following, 2))
    await alice.to(26)
    outcomes = alice.outcomes()
    assert outcomes[header.session_id]["details"]["settled_upokt"] == 300
    assert outcomes[following.session_id]["details"]["settled_upokt"] == 14


async def test_an_unstaked_supplier_still_claims_and_proves_its_last_session(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(4)
    alice.chain.unstake_supplier(alice.supplier)
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    assert address("bob") in alice.chain.state.suppliers


async def test_two_tries_at_the_same_block_send_one_claim(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(13)
    for _ in range(3):
        await alice.decide()
    await alice.to(15)
    claims = [t for t in alice.chain.transactions.values() if "/pocket.proof.MsgCreateClaim" in t.actions]
    assert len(claims) == 1
