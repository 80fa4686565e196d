"""One wrong, empty or late answer costs no session and no stake.

Nor does an outage of Redis or of the Lease.
"""

import contextlib
import shutil
from dataclasses import replace
from types import SimpleNamespace

import grpc
import pytest

import pocket_localnet.local_chain
from mine import PREFIX, ended, mine, unharmed
from pocket.chain.model import Block
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket_localnet import grpc_server
from pocket_localnet.grpc_service import Abort
from pocket_localnet.tx_rejected import handler_error
from pocket_miner.suppliers.error_scope import TRANSIENT_ERRORS
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.proof_params import ProofParamsByHeight
from pocket_miner.suppliers.sealed_work import SealedWork
from servers import running_redis
from world import World

pytestmark = pytest.mark.redis


RESTARTED = "codespace sdk code 26: invalid height: context did not contain latest block height in either check state"
WRONG = {
    "restarted": lambda: Abort(grpc.StatusCode.UNKNOWN, RESTARTED),
    "internal": lambda: Abort(grpc.StatusCode.INTERNAL, "stream terminated by RST_STREAM"),
    "denied": lambda: Abort(grpc.StatusCode.PERMISSION_DENIED, "Forbidden"),
    "not found": lambda: Abort(grpc.StatusCode.NOT_FOUND, "404 page not found"),
    "empty": lambda: b"",
}
METHODS = (
    "GetSession", "ParamsAtHeight", "ComputeUnitsPerRelayAtHeight", "RelayMiningDifficultyAtHeight", "AllClaims",
    "Query/Params", "Account", "Simulate", "BroadcastTx",
)  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("method", METHODS)
async def test_one_wrong_answer_to_any_question_costs_nothing(alice, monkeypatch, method, kind):
    """Each question is answered wrongly once at every height at which it is asked, and the miner restarts in between.

    One wrong answer alone, with and without a restart, is the sweep's (tests/sweep).
    """
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    real, hit = grpc_server.answer, set()

    def answer(chain, asked, request, height_text="0"):
        if asked.endswith(method) and chain.height not in hit:
            hit.add(chain.height)
            wrong = WRONG[kind]()
            if isinstance(wrong, Abort):
                raise wrong
            return wrong, chain.height
        return real(chain, asked, request, height_text)

    monkeypatch.setattr(grpc_server, "answer", answer)
    while alice.chain.height < 22:
        alice.localnet.step()
        if alice.chain.height == 15:
            alice.start()
        await alice.miner.tail()
        for _ in range(2):  # as Running: what failed is decided again before long
            await alice.miner.on_block(await alice.comet.block(), await params(alice))
    assert hit
    assert unharmed(alice, header)


async def params(alice):
    return await ProofParamsByHeight(alice.client).at(alice.chain.height) if alice.chain.height else None


@pytest.mark.parametrize("at", [9, 13, 15, 18])
async def test_a_block_of_another_network_ends_nothing(alice, at):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(at)
    latest = await alice.comet.block()
    await alice.miner.on_block(Block(latest.height + 500, b"x" * 32, latest.time), await alice.client.proof_params())
    await alice.to(22)
    assert unharmed(alice, header)


async def test_a_wrong_seed_hash_is_asked_for_again_and_the_proof_repaired(alice, monkeypatch):
    header = alice.header()
    await alice.record(alice.relays(header, 9))
    await alice.to(14)
    real = alice.comet.hashes_by_node

    async def rolled_back(height):
        return dict.fromkeys(await real(height), b"w" * 32)

    monkeypatch.setattr(alice.comet, "hashes_by_node", rolled_back)
    await alice.to(16)
    monkeypatch.setattr(alice.comet, "hashes_by_node", real)
    await alice.to(22)
    assert unharmed(alice, header)


async def test_a_repaired_proof_is_not_taken_for_the_invalid_one_before_it(alice, monkeypatch):
    """One of two nodes repeats a wrong hash, and blocks are decided twice while none comes."""
    header = alice.header()
    await alice.record(alice.relays(header, 9))
    await alice.to(14)
    real = alice.comet.hashes_by_node

    async def one_lies(height):
        (right,) = (await real(height)).values()
        return {"honest": right, "lying": b"w" * 32}

    monkeypatch.setattr(alice.comet, "hashes_by_node", one_lies)
    while alice.chain.height < 22:
        await alice.block()
        await alice.decide()
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    included = [kind for t in alice.chain.transactions.values() for kind in t.actions]
    assert included.count("/pocket.proof.MsgSubmitProof") == 2, "the wrong one and the right one"


async def test_proof_params_that_change_in_the_proof_window_are_followed(redis, tmp_path):
    proof = {"proof_request_probability": 0.0, "proof_requirement_threshold": 10**9, "proof_missing_penalty": 10**6}
    async with mine(redis, tmp_path, proof_params=proof) as alice:
        header = alice.header()
        await alice.record(alice.relays(header, 5))
        await alice.to(16)
        state = alice.chain._state
        state.proof_params = replace(state.proof_params, proof_requirement_threshold_upokt=100)
        await alice.to(22)
        assert unharmed(alice, header)


async def test_terms_of_a_node_that_lags_are_corrected_before_anything_is_sealed(alice, monkeypatch):
    header = alice.header()
    hard = b"\x7f" + b"\xff" * 31
    real = alice.client.difficulty
    alice.chain._state.difficulties["eth"] = (replace(alice.chain._state.difficulty_at("eth", 1), target_hash=hard),)

    async def stale(service, height):
        return replace(await real(service, height), target_hash=b"\xff" * 32)

    monkeypatch.setattr(alice.client, "difficulty", stale)
    await alice.record(alice.relays(header, 12))
    await alice.to(10)
    session = alice.miner.sessions[header.session_id]
    assert session.terms.target_hash == b"\xff" * 32
    await alice.to(12)
    assert session.terms.target_hash == hard
    await alice.to(22)
    assert unharmed(alice, header)
    assert alice.outcomes()[header.session_id]["details"]["relays"] < 12


@pytest.mark.parametrize("raw", [b"\xff\xff", b"", b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\x7f"])
async def test_a_damaged_header_is_set_aside_and_stops_no_other_session(alice, redis, raw):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await redis.hset(RedisKeys(PREFIX).sessions(alice.supplier), b"\xfe\xff broken", raw)
    await alice.to(22)
    assert unharmed(alice, header)


async def test_a_claim_that_fails_only_when_it_is_delivered_takes_no_other_with_it(redis, tmp_path, monkeypatch):
    async with mine(redis, tmp_path, World(services=("eth", "base"))) as alice:
        good, bad = alice.header(service="eth"), alice.header(service="base")
        for header in (good, bad):
            await alice.record(alice.relays(header, 3))
        real, simulate, trying = pocket_localnet.local_chain.handle, alice.chain.simulate, []

        def handle(state, block_hash, message, index):
            if not trying and message.session_header.session_id == bad.session_id:
                raise handler_error(index, "invalid session ID")
            return real(state, block_hash, message, index)

        def simulated(raw):
            trying.append(raw)
            try:
                return simulate(raw)
            finally:
                trying.clear()

        monkeypatch.setattr(pocket_localnet.local_chain, "handle", handle)
        monkeypatch.setattr(alice.chain, "simulate", simulated)
        await alice.to(22)
        assert ended(alice, good) == "settled"
        assert "invalid session ID" in alice.outcomes()[bad.session_id]["reason"]


@pytest.mark.parametrize("factor", [2, 4])
async def test_gas_that_was_too_little_is_raised_until_a_block_takes_it(alice, monkeypatch, factor):
    header = alice.header()
    await alice.record(alice.relays(header, 5))
    real = alice.chain.simulate
    monkeypatch.setattr(alice.chain, "simulate", lambda raw: real(raw) // factor)
    await alice.to(22)
    assert unharmed(alice, header)


@pytest.mark.parametrize("claimed", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
async def test_a_redis_that_comes_back_with_an_older_file_costs_nothing_that_is_on_the_volume(
    tmp_path, claimed, restarts
):
    with running_redis() as server:
        redis = connect(server.url)
        async with mine(redis, tmp_path / "m", World(services=("eth", "base"))) as alice:
            first, header = alice.header(service="base"), alice.header(service="eth")
            await alice.record(alice.relays(first, 1))
            await alice.to(2)
            shutil.copytree(server.folder, tmp_path / "old")
            await alice.record(alice.relays(header, 5))
            await alice.to(15 if claimed else 9)
            server.kill()
            server.wipe()
            shutil.copytree(tmp_path / "old", server.folder, dirs_exist_ok=True)
            server.start()
            if restarts:
                alice.start()
            else:
                alice.miner.on_redis_restarted()
            while alice.chain.height < 22:
                alice.localnet.step()
                with contextlib.suppress(*TRANSIENT_ERRORS):  # connections of the old life fail once each
                    await alice.miner.tail()
                await alice.miner.on_block(await alice.comet.block(), await alice.client.proof_params())
            assert unharmed(alice, header)
        await redis.aclose()


@pytest.mark.parametrize("restart", [13, 15])
async def test_what_is_sealed_is_claimed_and_proven_without_redis_and_without_a_lease(alice, restart):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(restart)
    here, alice.redis = alice.redis, connect("redis://127.0.0.1:1/0")
    alice.start()
    alice.miner.detached = True
    board = LatestBlock()
    suppliers = SimpleNamespace(audit=alice.audit, addresses=[alice.supplier], detached=lambda address: alice.miner)
    known = []
    work = SealedWork(suppliers, board, ProofParamsByHeight(alice.client), 1.0, lambda: bool(known), dict)
    while alice.chain.height < 20:
        alice.localnet.step()
        board.publish(await alice.comet.block())
        await work.at_block()
    assert alice.outcomes() == {}, "whoever owns the supplier records how the session ended"
    patient = SealedWork(suppliers, board, work.params, 1.0, lambda: False, dict, grace_seconds=60.0)
    await patient.at_block()
    assert patient._miners == {}, "at an ordinary start the Leases are read at once"
    known.append(True)
    await work.at_block()
    assert work._miners == {}
    await alice.redis.aclose()
    alice.redis = here
    alice.start()
    await alice.to(22)
    assert unharmed(alice, header)
    included = [kind for t in alice.chain.transactions.values() for kind in t.actions]
    assert sorted(included) == ["/pocket.proof.MsgCreateClaim", "/pocket.proof.MsgSubmitProof"], "no fee twice"


async def test_a_former_owner_that_wakes_up_pays_no_second_fee(alice, tmp_path):
    header = alice.header()
    await alice.record(alice.relays(header, 5))
    await alice.to(15)
    old, folder = alice.miner, alice.folder
    old_mirror, old_audit = alice.relay_store, alice.audit
    alice.relay_store = alice.audit = None
    alice.folder = tmp_path / "second"
    alice.start()
    await alice.block()
    with pytest.raises(Exception, match="another owner"):
        await old.on_block(await alice.comet.block(), await alice.client.proof_params())
    old_mirror.close()
    old_audit.close()
    await alice.to(22)
    assert folder != alice.folder
    assert unharmed(alice, header)
    assert sum("/pocket.proof.MsgSubmitProof" in t.actions for t in alice.chain.transactions.values()) == 1


async def test_owners_that_change_at_every_block_pay_one_fee_for_a_proof(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 5))
    await alice.to(12)
    while alice.chain.height < 22:
        await alice.block()
        alice.start()
        await alice.decide()
    assert unharmed(alice, header)
    included = sorted(kind for t in alice.chain.transactions.values() for kind in t.actions)
    assert included == ["/pocket.proof.MsgCreateClaim", "/pocket.proof.MsgSubmitProof"]


async def test_a_shard_that_is_lost_and_taken_again_pays_one_fee_for_a_proof_though_redis_lost_it(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 5))
    await alice.to(12)
    while alice.chain.height < 22:
        alice.localnet.step()
        for _ in range(2):
            await alice.decide()
            signed = alice.miner.proofs.signed
            alice.start()
            alice.miner.proofs.signed = signed  # the same process
            await alice.redis.flushall()
    assert unharmed(alice, header)
    assert sum("/pocket.proof.MsgSubmitProof" in t.actions for t in alice.chain.transactions.values()) == 1


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("lost_at", [13, 15, 16])
async def test_relays_recorded_after_the_seal_in_a_redis_that_lost_its_data_spoil_no_proof(alice, lost_at, restarts):
    header = alice.header()
    await alice.record(alice.relays(header, 4))
    await alice.to(lost_at)
    await alice.redis.flushall()
    await alice.record(alice.relays(header, 3))  # by a relayer that was frozen: Redis knows of no closed session
    if restarts:
        alice.start()
    await alice.to(22)
    assert unharmed(alice, header)
    assert alice.outcomes()[header.session_id]["details"]["relays"] == 4


async def test_a_full_volume_stops_no_claim_of_what_it_has(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 5))
    await alice.to(5)
    await alice.record(alice.relays(header, 2))
    alice.miner.consumer._volume_full = lambda: True
    while alice.chain.height < 22:
        alice.localnet.step()
        with pytest.raises(Exception, match="volume is full"):
            await alice.miner.tail()
        await alice.miner.on_block(await alice.comet.block(), await alice.client.proof_params())
    assert unharmed(alice, header)
    assert alice.outcomes()[header.session_id]["details"]["relays"] == 5
