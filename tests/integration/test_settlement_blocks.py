"""Settlement blocks of a busy chain, and of nodes that do not keep them.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

from dataclasses import replace

import pytest

from answers import node, settled_row
from pocket.chain import convert
from pocket.errors import ChainUnavailable
from pocket_localnet.comet_service import CometService
from pocket_miner.sessions.stages import Stage
from pocket_miner.settlement.event_reader import SettlementReader

pytestmark = pytest.mark.redis


async def test_a_settlement_among_thousands_of_others_is_found(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(19)
    alice.skip(20)
    ours = alice.chain.blocks[20].end_events
    others = convert.events(settled_row("somebody else", number) for number in range(2000))
    alice.chain.blocks[20] = replace(alice.chain.blocks[20], end_events=(*others[:1000], *ours, *others[1000:]))
    await alice.decide()
    outcome = alice.outcomes()[header.session_id]
    assert outcome["outcome"] == "settled"
    assert outcome["details"]["settled_upokt"] == outcome["details"]["claimed_upokt"] > 0


async def test_no_node_is_asked_for_a_whole_block(alice, monkeypatch):
    asked, call = set(), CometService.call

    def listen(self, method, params, *, uri=False):
        asked.add(method)
        return call(self, method, params, uri=uri)

    monkeypatch.setattr(CometService, "call", listen)
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    assert asked == {"status", "commit", "block_results"}


async def test_without_the_small_answer_the_block_that_decides_on_proofs_is_read_whole(alice, monkeypatch):
    header = alice.header()
    await alice.record(alice.relays(header, 3))

    async def away(height=None):
        raise ChainUnavailable("the node's JSON-RPC is away")

    async def nobody(height):
        return {}

    names = {"block": staticmethod(away), "hashes_by_node": staticmethod(nobody)}
    monkeypatch.setattr(alice.miner.proofs, "blocks", type("Away", (), names))
    await alice.to(21)
    outcome = alice.outcomes()[header.session_id]
    assert (outcome["outcome"], outcome["details"]["proof_required"]) == ("settled", True)


async def test_an_empty_answer_of_a_node_once_makes_no_paid_session_a_lost_one(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(19)
    alice.skip(20)
    whole = alice.chain.blocks[20]
    alice.chain.blocks[20] = replace(whole, end_events=())
    await alice.decide()
    assert alice.outcomes() == {}
    alice.chain.blocks[20] = whole
    await alice.block()
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_a_session_without_a_claim_is_missed_only_after_a_second_answer(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(11)
    alice.skip(20)
    await alice.decide()
    assert alice.outcomes() == {}
    await alice.block()
    await alice.decide()
    assert alice.outcomes()[header.session_id]["outcome"] == "claim_missed"


async def test_a_claim_that_was_on_chain_and_has_no_event_is_never_booked_as_missed(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(19)
    alice.skip(20)
    alice.chain.blocks[20] = replace(alice.chain.blocks[20], end_events=())
    for _ in range(4):
        await alice.decide()
        await alice.block()
    assert alice.outcomes() == {}
    alice.skip(122)
    await alice.decide()
    await alice.block()
    assert alice.outcomes()[header.session_id]["outcome"] == "unseen"


async def test_a_settlement_that_no_node_shows_any_more_ends_as_unseen_and_is_no_loss(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(19)
    alice.skip(20)
    del alice.chain.blocks[20]
    alice.skip(118)
    await alice.to(120)
    assert alice.outcomes() == {}, "for a hundred blocks a node may still get it, however often none has it"
    await alice.block()
    outcome = alice.outcomes()[header.session_id]
    assert (outcome["outcome"], outcome["stage"]) == ("unseen", "SETTLED")
    assert "height 20 is not available" in outcome["reason"]
    assert outcome["details"]["claimed_upokt"] > 0
    assert alice.miner.report.row()["lost_recently"] == 0
    assert not alice.miner.sessions


async def test_a_settlement_that_is_being_read_keeps_no_session_from_its_window_and_is_no_error(alice, captured_logs):
    first = alice.header()
    await alice.record(alice.relays(first, 3))
    await alice.to(11)
    second = alice.header()
    assert second.session_end_block_height > first.session_end_block_height
    await alice.record(alice.relays(second, 3))
    # Nobody reads: what is asked for is waited for until a moment that has passed.
    alice.miner.settlements = SettlementReader(alice.comet, list, wait_timeout_seconds=0.0)
    await alice.to(26)
    assert alice.claim(second) is not None
    assert set(alice.miner.sessions) == {first.session_id, second.session_id}
    assert [event for event in captured_logs if event["log_level"] != "debug" and "failed" in event["event"]] == []
    alice.miner.settlements = alice.settlements
    await alice.to(31)
    assert {row["outcome"] for row in alice.outcomes().values()} == {"settled"}


async def test_what_is_over_comes_after_what_has_a_window(alice):
    first = alice.header()
    await alice.record(alice.relays(first, 3))
    await alice.to(11)
    second = alice.header()
    await alice.record(alice.relays(second, 3))
    claimed = []

    class Listening:
        async def events(self, height, supplier):
            claimed.append(alice.miner.sessions[second.session_id].seal is not None)
            raise ChainUnavailable("away")

    alice.miner.settlements = Listening()
    await alice.to(23)
    assert claimed == [False, False, False, True], "at 23 the second session is sealed first"


async def test_a_node_that_answers_nonsense_ends_no_session(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(19)
    async with node(lambda method, params: [b'{"jsonrpc":"2.0","id":1,"result":{}}']) as address:
        working, alice.comet._nodes.nodes = alice.comet._nodes.nodes, [address]
        alice.localnet.step()
        block = await alice.client.block(20)
        stages = await alice.miner.on_block(block, await alice.client.proof_params())
        alice.comet._nodes.nodes = working
    assert stages == {Stage.SETTLED: 1}
    assert alice.outcomes() == {}
    await alice.block()
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
