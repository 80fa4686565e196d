"""What is wrong between a machine and the chain's nodes though they answer."""

from dataclasses import replace

import pytest

from pocket.chain.model import Block
from pocket.chain.node_health import NodeAssessment, NodeHealth
from pocket.chain.preflight import capacity_advice, clock_problem, gas_price_problem, params_advice
from pocket.errors import ChainUnavailable
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import GasPrice, Timestamp
from pocket_miner.status.chain_diagnostics import ChainDiagnostics

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
OURS = GasPrice.parse("0.001upokt")
SAFE = SharedParams()


@pytest.mark.parametrize(("age", "block_seconds", "said"), [
    (0, 30, ""), (30, 30, ""), (89, 30, ""), (91, 30, "catching up"), (59, 1, ""), (61, 1, "catching up"),
    (-4, 30, ""), (-6, 30, "from the future"),
])  # fmt: skip
def test_a_clock_is_judged_by_the_age_of_a_new_block(age, block_seconds, said):
    found = clock_problem(NOW - age * SECOND, NOW, block_seconds)
    assert (said in found) if said else not found


@pytest.mark.parametrize(("minimum", "wrong"), [
    ("", False), ("0.001upokt", False), ("0.0011upokt", True), ("5uatom", False), ("5uatom,1upokt", True),
    ("0.0001upokt, 5uatom", False), ("manyupokt", False),
])  # fmt: skip
def test_a_gas_price_below_the_nodes_is_said_with_both_figures(minimum, wrong):
    found = gas_price_problem(minimum, OURS)
    assert ("0.001upokt" in found and "Raise spec.chain.gasPrice" in found) if wrong else not found


class Node:
    def __init__(self, answer, params=SAFE):
        self.answer, self.params = answer, params

    async def shared_params(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.params

    async def minimum_gas_price(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def block(age):
    return Block(1, b"", Timestamp.of_nanoseconds(NOW - age * SECOND))


async def test_the_notes_of_a_miner_name_everything_and_forget_what_is_mended():
    notes = ChainDiagnostics(OURS, 1.0, lambda: NOW)
    notes.block(block(9999))
    assert notes.rows() == []
    notes.block(block(9999))
    notes.on_node_health("b:1", NodeAssessment(NodeHealth.LAGGING, 7, "it is 7 blocks behind"))
    notes.on_node_health("a:1", NodeAssessment())
    await notes.refresh(Node("1upokt"), 1, 1)
    await notes.refresh(Node(ChainUnavailable("down")), 1, 1)
    rows = notes.rows()
    assert [row["reason"] for row in rows] == ["GasPriceTooLow", "ClockSkewed", "ChainNodesDisagree"]
    assert rows[2]["text"] == "Chain node b:1 is lagging: see spec.chain.nodes."
    assert notes.nodes()["b:1"] == {"health": "lagging", "lag_blocks": 7, "reason": "it is 7 blocks behind"}
    notes.block(block(1))
    notes.on_node_health("b:1", NodeAssessment())
    await notes.refresh(Node(""), 1, 1)
    assert notes.rows() == []


@pytest.mark.parametrize(("change", "texts"), [
    ({}, []),
    ({"application_unbonding_period_sessions": 0}, ["lets applications leave 0 blocks"]),
    ({"supplier_unbonding_period_sessions": 1, "proof_window_close_offset_blocks": 7}, [
        "lets applications leave 10 blocks", "lets suppliers leave 10 blocks"]),
    ({"grace_period_end_offset_blocks": 2}, ["takes relays until 2 blocks after a session, and claims from block 2"]),
])  # fmt: skip
def test_parameters_of_the_chain_that_contradict_one_another_are_told(change, texts):
    found = params_advice(replace(SAFE, **change))
    assert len(found) == len(texts)
    assert all(text in one for text, one in zip(texts, found, strict=True))


@pytest.mark.parametrize(
    ("suppliers", "processors", "told"), [(50, 1, False), (51, 1, True), (300, 4, True), (0, 1, 0)]
)
def test_more_suppliers_than_processors_can_seal_at_once_are_told(suppliers, processors, told):
    assert bool(capacity_advice(suppliers, processors)) == told


async def test_advice_is_logged_once_and_again_when_it_comes_back(captured_logs):
    notes, bad = ChainDiagnostics(OURS, 1.0, lambda: NOW), replace(SAFE, grace_period_end_offset_blocks=2)
    for params in (bad, bad, SAFE, bad):
        await notes.refresh(Node("", params), 1, 1)
    assert str(captured_logs).count("takes relays until 2 blocks") == 2
