"""By which target a relay is left unrecorded, and how often every node is queried for it."""

import asyncio

import pytest

from pocket.chain.client import ChainClient
from pocket.chain.node_answer import NodeAnswer
from pocket.errors import ChainUnavailable
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket_relayer.pipeline import target_confirmation
from pocket_relayer.pipeline.target_confirmation import TargetConfirmation

LOW, HIGH = b"\x01" + bytes(31), b"\x7f" + bytes(31)


class Nodes:
    """Nodes that state targets, or fail or hang."""

    decoded_by_node = ChainClient.decoded_by_node

    def __init__(self, *stated):
        self.stated, self.asked, self.dropped = stated, 0, 0

    async def ask_every_node(self, method, request, height=0):
        self.asked += 1
        if "hangs" in self.stated:
            await asyncio.Event().wait()
        return {str(number): self._answer(target) for number, target in enumerate(self.stated)}

    def _answer(self, target):
        if target is None:
            return NodeAnswer(error=ChainUnavailable("away"))
        found = service_pb.QueryGetRelayMiningDifficultyAtHeightResponse()
        found.relayMiningDifficulty.service_id, found.relayMiningDifficulty.target_hash = "eth", target
        return NodeAnswer(found.SerializeToString())

    async def adopt(self, method, request, raw):
        self.dropped += 1


@pytest.mark.parametrize(
    ("stated", "target", "queries"),
    [
        ((LOW,), LOW, 1),  # the only node again
        ((LOW, LOW), LOW, 1),
        ((HIGH, HIGH, HIGH), HIGH, 1),
        ((LOW, HIGH), HIGH, 3),  # they contradict each other
        ((None, HIGH), HIGH, 2),
        ((None,), LOW, 3),
        (("hangs",), LOW, 3),
    ],
)
async def test_every_node_is_queried_once_a_block_until_two_answers_agree(monkeypatch, stated, target, queries):
    monkeypatch.setattr(target_confirmation, "_SECONDS", 0.01)
    nodes, height = Nodes(*stated), [6]
    targets = TargetConfirmation(nodes, lambda: height[0])
    for height[0] in (6, 6, 7, 7, 8):
        found = await asyncio.gather(*(targets.target("eth", 1, LOW) for _ in range(5)))
        assert set(found) == {target}
    assert nodes.asked == queries
    assert bool(nodes.dropped) is (HIGH in stated), "a cached answer that another node contradicts is dropped"
