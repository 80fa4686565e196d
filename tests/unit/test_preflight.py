"""What is wrong between a machine and the chain's nodes though they answer."""

import pytest

from pocket.chain.model import Block
from pocket.chain.node_health import NodeAssessment, NodeHealth
from pocket.chain.preflight import clock_problem, gas_price_problem
from pocket.errors import ChainUnavailable
from pocket.protocol.transactions.build import GasPrice, Timestamp
from pocket_miner.status.chain_diagnostics import ChainDiagnostics

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
OURS = GasPrice.parse("0.001upokt")


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
    def __init__(self, answer):
        self.answer = answer

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
    await notes.refresh(Node("1upokt"))
    await notes.refresh(Node(ChainUnavailable("down")))
    rows = notes.rows()
    assert [row["reason"] for row in rows] == ["GasPriceTooLow", "ClockSkewed", "ChainNodesDisagree"]
    assert rows[2]["text"] == "Chain node b:1 is lagging: see spec.chain.nodes."
    assert notes.nodes()["b:1"] == {"health": "lagging", "lag_blocks": 7, "reason": "it is 7 blocks behind"}
    notes.block(block(1))
    notes.on_node_health("b:1", NodeAssessment())
    await notes.refresh(Node(""))
    assert notes.rows() == []
