"""By which target a relay is recorded, while the nodes have not answered, answer, or disagree."""

import asyncio

import pytest

from pocket.chain.node_answer import NodeAnswer
from pocket.errors import ChainUnavailable, DecodingError
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket_relayer.pipeline.agreed_targets import AgreedTargets
from pocket_relayer.pipeline.background_queries import BackgroundQueries

STATED, AGREED = b"\x01" * 32, b"\x02" * 32


def answer(target):
    difficulty = {"service_id": "eth", "block_height": 1, "target_hash": target}
    message = service_pb.QueryGetRelayMiningDifficultyAtHeightResponse(relayMiningDifficulty=difficulty)
    return NodeAnswer(message.SerializeToString())


class Nodes:
    """Nodes that state what `targets` gives, or raise it."""

    def __init__(self, targets):
        self.targets, self.asked = targets, []

    async def ask_every_node(self, method, request, height=0):
        self.asked.append((request.serviceId, request.blockHeight))
        if isinstance(self.targets, Exception):
            raise self.targets
        return {str(number): answer(target) for number, target in enumerate(self.targets)}

    async def adopt(self, method, request, raw):
        pass


async def heights(nodes, *steps, start=11):
    """Return the target at each height, after the background query of the height before."""
    height, background = [0], BackgroundQueries()
    targets, found = AgreedTargets(nodes, lambda: height[0], background), []
    async with asyncio.timeout(10):
        running = asyncio.create_task(background.run())
        await asyncio.sleep(0)
        for height[0] in steps:
            found.append(targets.of("eth", start, STATED))
            for _ in range(50):
                await asyncio.sleep(0)
        running.cancel()
    return found


async def test_every_relay_is_recorded_until_the_nodes_have_answered_and_then_by_what_most_state():
    nodes = Nodes([AGREED, AGREED, STATED])
    assert await heights(nodes, 5, 5, 6, 7) == [BASE_TARGET, AGREED, AGREED, AGREED]
    assert nodes.asked == [("eth", 11)], "once for a service and start"


@pytest.mark.parametrize("failure", [(), ChainUnavailable("away"), DecodingError("odd"), TimeoutError()])
async def test_while_no_node_answers_the_stated_target_counts_and_they_are_asked_once_a_block(failure):
    nodes = Nodes(failure)
    assert await heights(nodes, 5, 5, 5, 6, 6) == [BASE_TARGET, STATED, STATED, STATED, STATED]
    assert len(nodes.asked) == 2
    nodes.targets = [AGREED]
    assert (await heights(nodes, 7, 8))[1] == AGREED


async def test_a_target_that_records_everything_needs_no_node():
    nodes = Nodes([AGREED])
    targets = AgreedTargets(nodes, lambda: 5, BackgroundQueries())
    assert targets.of("eth", 11, BASE_TARGET) == BASE_TARGET
    assert nodes.asked == []
