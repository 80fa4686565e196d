"""No single answer of a chain node decides over a session: not about its windows, price, target, events or proof."""

from dataclasses import replace

import pytest

from mine import ended, mine, unharmed
from pocket.protocol.claims.proof_requirement import VALIDATED
from pocket.protocol.smst.digest import Root
from pocket_miner.ingest import relay_consumer

pytestmark = pytest.mark.redis


WRONG_PARAMS = {
    "shorter windows": {"claim_window_close_offset_blocks": 1, "proof_window_close_offset_blocks": 1},
    "a later claim window": {"claim_window_open_offset_blocks": 9},
    "a longer claim window": {"claim_window_close_offset_blocks": 9},
    "another price": {"compute_units_to_tokens_multiplier": 1},
}


@pytest.mark.parametrize("restart", [None, 13, 16], ids=["", "restart at 13", "restart at 16"])
@pytest.mark.parametrize("kind", WRONG_PARAMS)
async def test_windows_and_price_rest_on_no_single_answer(redis, tmp_path, kind, restart):
    """The cached params are wrong all the time, in every process. Only queries of every node return the right ones."""
    proof = {"proof_request_probability": 1.0, "proof_missing_penalty": 10**6}
    async with mine(redis, tmp_path, proof_params=proof) as alice:
        header, real = alice.header(), alice.client.shared_params

        async def wrong(height=0):
            return replace(await real(height), **WRONG_PARAMS[kind]) if height else await real(height)

        alice.client.shared_params = wrong
        await alice.record(alice.relays(header, 5))
        if restart is not None:
            await alice.to(restart)
            alice.start()
        await alice.to(24)
        assert unharmed(alice, header)


async def test_one_answer_that_no_second_one_confirms_concludes_no_session(redis, tmp_path):
    async with mine(redis, tmp_path) as alice:
        header, real = alice.header(), alice.client.shared_params

        async def wrong(height=0):
            return replace(await real(height), claim_window_close_offset_blocks=1, proof_window_close_offset_blocks=0)

        async def silent(*_):
            return {}

        alice.client.shared_params, every = wrong, alice.client.ask_every_node
        await alice.record(alice.relays(header, 5))
        await alice.to(13)
        alice.client.ask_every_node = silent
        alice.start()
        await alice.to(15)
        assert ended(alice, header) is None
        alice.client.ask_every_node = every
        await alice.to(24)
        assert ended(alice, header) == "settled"


@pytest.mark.parametrize("restart", [None, 20], ids=["", "restart"])
async def test_a_node_without_events_concludes_no_session_whose_claim_was_on_chain(alice, restart):
    header = alice.header()
    await alice.record(alice.relays(header, 5))

    async def lost(height, wanted):
        return ()

    async def lost_by_node(height, wanted):
        return {"node": ()}

    real = alice.comet.end_events, alice.comet.end_events_by_node
    alice.comet.end_events, alice.comet.end_events_by_node = lost, lost_by_node
    if restart:
        await alice.to(restart)
        alice.start()
    await alice.to(40)
    assert ended(alice, header) is None
    alice.comet.end_events, alice.comet.end_events_by_node = real
    alice.settlements._pages.clear()
    await alice.to(42)
    assert unharmed(alice, header)


async def test_of_two_targets_that_contradict_each_other_the_one_is_sealed_that_both_accept(alice, monkeypatch):
    """A claim with relays that meet the lower target is valid under either."""
    header = alice.header()
    hard, easy = b"\x7f" + b"\xff" * 31, b"\xff" * 32
    alice.chain._state.difficulties["eth"] = (replace(alice.chain._state.difficulty_at("eth", 1), target_hash=hard),)
    real, every = alice.client.difficulty, relay_consumer.ask_terms_of_every_node

    async def wrong(service, height):
        return replace(await real(service, height), target_hash=easy)

    async def contradicting(*asked):
        ((height, right),) = (await every(*asked)).values()
        return {
            "wrong": (height, replace(right, terms=replace(right.terms, target_hash=easy))), "right": (height, right),
        }  # fmt: skip

    monkeypatch.setattr(alice.client, "difficulty", wrong)
    monkeypatch.setattr(relay_consumer, "ask_terms_of_every_node", contradicting)
    await alice.record(alice.relays(header, 12))
    await alice.to(13)
    assert alice.claim(header) is None
    await alice.to(22)
    assert unharmed(alice, header)
    assert 0 < alice.outcomes()[header.session_id]["details"]["relays"] < 12


@pytest.mark.usefixtures("no_recorded_terms")
@pytest.mark.parametrize("silent", [False, True], ids=["", "no node confirms it"])
async def test_after_a_restart_a_wrong_target_of_one_node_leaves_no_proof_out(redis, tmp_path, monkeypatch, silent):
    """The claim is worth more than the threshold by the real target, and less by the easier one of the caches."""
    proof = {"proof_request_probability": 0.0, "proof_missing_penalty": 10**6}
    async with mine(redis, tmp_path, proof_params=proof) as alice:
        header, real, state = alice.header(), alice.client.difficulty, alice.chain._state
        hard = replace(state.difficulty_at("eth", 1), target_hash=b"\x7f" + b"\xff" * 31)
        state.difficulties["eth"] = (hard,)

        async def wrong(service, height):
            return replace(await real(service, height), target_hash=b"\xff" * 32)

        await alice.record(alice.relays(header, 12))
        await alice.to(14)
        state = alice.chain._state
        worth = Root(alice.claim(header).root_hash).total * 2
        state.proof_params = replace(state.proof_params, proof_requirement_threshold_upokt=worth * 3 // 4)

        async def nothing(*_):
            return {}

        alice.client.difficulty = wrong
        if silent:
            monkeypatch.setattr(relay_consumer, "ask_terms_of_every_node", nothing)
        alice.start()
        await alice.to(24)
        assert unharmed(alice, header)


async def test_a_proof_that_one_node_shows_and_the_others_do_not_is_sent(redis, tmp_path):
    """The first node asked states in every block that the claim is validated."""
    proof = {"proof_request_probability": 1.0, "proof_missing_penalty": 10**6}
    async with mine(redis, tmp_path, proof_params=proof) as alice:
        header, real = alice.header(), alice.client.claims_of

        async def wrong(supplier, height=0):
            return [replace(claim, proof_validation_status=VALIDATED) for claim in await real(supplier, height)]

        alice.client.claims_of = wrong
        await alice.record(alice.relays(header, 5))
        await alice.to(24)
        assert unharmed(alice, header)
