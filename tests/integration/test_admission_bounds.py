"""Strangers cannot flood the chain's nodes: what has to be looked up before a relay is proven is bounded."""

import asyncio
from dataclasses import replace

import pytest

from direct import DirectChain
from localnet.chain import Chain
from localnet.hydration import hydrate
from relayer.admission import Admission
from relayer.rejection import Reason, Rejected
from world import World, address


class Node:
    """Counts the questions that a chain is being asked at once; answers when it is let."""

    def __init__(self):
        self.open, self.asked, self.most, self.now = asyncio.Event(), 0, 0, 0
        self.open.set()
        self._arrivals = asyncio.Semaphore(0)

    async def gate(self, _):
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        self._arrivals.release()
        try:
            await self.open.wait()
        finally:
            self.now -= 1

    def shut(self):
        """From now on questions wait."""
        self.open.clear()
        self._arrivals = asyncio.Semaphore(0)

    async def arrived(self, number):
        """Once so many questions were asked since it was shut."""
        async with asyncio.timeout(10):
            for _ in range(number):
                await self._arrivals.acquire()


async def outcome(admission, request):
    try:
        await admission.validate(request, request.header)
    except Rejected as rejected:
        return rejected.reason
    return None


@pytest.fixture
def set_up():
    world, node = World(), Node()
    chain = Chain(world.genesis())
    admission = Admission(DirectChain(chain, node.gate), lambda: 1, lambda: 0.0)
    header = hydrate(chain.state, chain.block_hash, world.application("eth"), "eth", 1).header
    return admission, node, world.request(header, address("alice"), b"{}")


async def test_at_most_thirty_two_sessions_are_looked_up_at_once_and_known_ones_pass_by(set_up):
    admission, node, honest = set_up
    assert await outcome(admission, honest) is None
    node.shut()
    strangers = [
        replace(honest, header=replace(honest.header, application_address=address(f"stranger {n}")))
        for n in range(1100)
    ]
    asked = [asyncio.create_task(outcome(admission, request)) for request in strangers]
    await node.arrived(32)
    assert await outcome(admission, honest) is None, "its session and ring are known"
    refused = [task for task in asked if task.done()]
    assert len(refused) == 1100 - 1024
    assert {task.result() for task in refused} == {Reason.OVERLOADED}
    assert node.most == 32
    node.open.set()
    rest = await asyncio.gather(*asked)
    assert set(rest) == {Reason.OVERLOADED, Reason.SESSION_MISMATCH}
    assert node.most == 32
    assert await outcome(admission, replace(honest, header=strangers[0].header)) is Reason.SESSION_MISMATCH


async def test_any_number_of_relays_of_one_new_session_are_one_question_and_none_is_refused(set_up):
    admission, node, honest = set_up
    node.shut()
    tasks = [asyncio.create_task(outcome(admission, honest)) for _ in range(1000)]
    await node.arrived(1)
    for task in tasks[::2]:
        task.cancel()  # whoever leaves takes nobody with him
    node.open.set()
    found = await asyncio.gather(*tasks[1::2])
    assert set(found) == {None}
    assert node.asked < 20
    assert len(admission._asking) == 0
