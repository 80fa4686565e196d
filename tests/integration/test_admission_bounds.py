"""Strangers cannot flood the chain's nodes: what has to be looked up before a relay is proven is bounded."""

import asyncio
from dataclasses import replace

import pytest

from background import running
from direct import DirectChain
from pocket_localnet.hydration import hydrate
from pocket_localnet.local_chain import LocalChain
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.admission import Admission
from pocket_relayer.pipeline.cold_queries import NegativeCache
from world import World, address


class Node:
    """A node that counts concurrent queries and answers when the test allows it."""

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


async def outcome(admission, request, source=""):
    try:
        await admission.validate(request, request.header, source)
    except Rejected as rejected:
        return rejected.reason
    return None


@pytest.fixture
def set_up():
    world, node = World(), Node()
    chain = LocalChain(world.genesis())
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
    assert {task.result() for task in refused} == {RejectionReason.OVERLOADED}
    assert node.most == 32
    node.open.set()
    rest = await asyncio.gather(*asked)
    assert set(rest) == {RejectionReason.OVERLOADED, RejectionReason.CHAIN_UNAVAILABLE}, "one node denies them"
    assert node.most == 32
    assert await outcome(admission, replace(honest, header=strangers[0].header)) is RejectionReason.CHAIN_UNAVAILABLE


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
    assert len(admission._contexts._single_flight) == 0


def changed(request, **fields):
    return replace(request, header=replace(request.header, **fields))


async def test_heights_that_are_no_session_cost_no_question_once_the_grid_is_known(set_up):
    admission, node, honest = set_up
    inventions = [
        *(changed(honest, session_start_block_height=start) for start in range(2, 10)),
        *(changed(honest, session_end_block_height=end) for end in (9, 11, 20)),
        *(changed(honest, session_start_block_height=n, session_end_block_height=n + 9) for n in range(21, 100, 10)),
    ]
    await outcome(admission, inventions[0])
    assert node.asked == 3, "the params of now, all nodes for them, and the params that they agree on"
    found = {await outcome(admission, request) for request in inventions}
    assert found == {RejectionReason.SESSION_MISMATCH, RejectionReason.CHAIN_UNAVAILABLE}
    assert node.asked == 3
    assert await outcome(admission, honest) is None


async def test_what_the_chain_denied_is_asked_again_at_the_next_block_only():
    world, node, height = World(), Node(), [1]
    chain = LocalChain(world.genesis())
    admission = Admission(DirectChain(chain, node.gate), lambda: height[0], lambda: 0.0)
    header = hydrate(chain.state, chain.block_hash, world.application("eth"), "eth", 1).header
    stranger = changed(world.request(header, address("alice"), b"{}"), application_address=address("stranger"))
    asked = []
    for height[0] in (1, 1, 1, 2, 2):
        # A single answer may be wrong: it is confirmed at the next block.
        expected = RejectionReason.CHAIN_UNAVAILABLE if height[0] == 1 else RejectionReason.SESSION_MISMATCH
        assert await outcome(admission, stranger) is expected
        assert await outcome(admission, changed(stranger, session_id="0" * 64)) is expected
        asked.append(node.asked)
    assert asked == [2, 2, 2, 3, 3], "params and session, then the session alone"


async def test_a_first_application_behind_a_flooding_address_is_served_once_the_chain_has_listed_it():
    world, node, now = World(), Node(), [0.0]
    chain = LocalChain(world.genesis())
    admission = Admission(DirectChain(chain, node.gate), lambda: 1, lambda: now[0])
    header = hydrate(chain.state, chain.block_hash, world.application("eth"), "eth", 1).header
    honest = world.request(header, address("alice"), b"{}")
    strangers = [changed(honest, application_address=address(f"stranger {n}")) for n in range(200)]
    for request in strangers:
        await outcome(admission, request, "10.0.0.1")
    asked = node.asked
    async with running(admission.background) as ended:
        assert await outcome(admission, honest, "10.0.0.1") is RejectionReason.OVERLOADED
        await outcome(admission, strangers[-1], "10.0.0.1")
        await ended()
        found = await outcome(admission, honest, "10.0.0.1")
    assert found is None
    assert node.asked - asked < 10
    assert await outcome(admission, strangers[-1], "10.0.0.1") is RejectionReason.OVERLOADED
    now[0] = 20.0
    for request in strangers:
        await outcome(admission, request, "10.0.0.1")
    assert node.asked - asked < 10 + 41, "two queries a second, and no second list within 30 seconds"


async def test_an_address_that_asks_in_vain_is_held_back_and_no_other_and_not_for_ever():
    world, node, now = World(), Node(), [0.0]
    chain = LocalChain(world.genesis())
    admission = Admission(DirectChain(chain, node.gate), lambda: 1, lambda: now[0])
    header = hydrate(chain.state, chain.block_hash, world.application("eth"), "eth", 1).header
    honest = world.request(header, address("alice"), b"{}")
    strangers = [changed(honest, application_address=address(f"stranger {n}")) for n in range(100)]
    found = [await outcome(admission, request, "10.0.0.1") for request in strangers]
    assert (found.count(RejectionReason.CHAIN_UNAVAILABLE), found.count(RejectionReason.OVERLOADED)) == (64, 36)
    assert node.asked == 65
    assert await outcome(admission, strangers[90], "10.0.0.2") is RejectionReason.CHAIN_UNAVAILABLE
    assert await outcome(admission, honest, "10.0.0.2") is None
    assert await outcome(admission, honest, "10.0.0.1") is None, "its session is known now"
    now[0] = 10.0
    found = [await outcome(admission, request, "10.0.0.1") for request in strangers[64:]]
    assert found.count(RejectionReason.OVERLOADED) == 15
    assert len(found) - found.count(RejectionReason.OVERLOADED) == 21, "two a second, and one that was denied before"


async def test_neither_ring_nor_signature_is_looked_at_for_a_header_that_is_not_the_chain_s(set_up):
    admission, node, honest = set_up
    assert await outcome(admission, honest) is None
    asked = node.asked
    for fields in ({"session_id": "0" * 64}, {"session_end_block_height": 9}) * 3:
        assert await outcome(admission, changed(honest, **fields)) is RejectionReason.SESSION_MISMATCH
    assert node.asked == asked + 5, "session and params of all nodes, then session, params and difficulty"


@pytest.mark.parametrize("of_one_address", [False, True], ids=["an application", "an address"])
async def test_a_flood_of_one_does_not_delay_the_verification_of_another(of_one_address):
    named = [f"eth{number}" for number in range(25)] if of_one_address else ["eth"]
    world = World(services=(*named, "weather"))
    chain = LocalChain(world.genesis())
    admission = Admission(DirectChain(chain), lambda: 1, lambda: 0.0)

    def request(service, number):
        header = hydrate(chain.state, chain.block_hash, world.application(service), service, 1).header
        return world.request(header, address("alice"), b'{"id":%d}' % number)

    flood = [request(service, n) for n in range(200 // len(named)) for service in named]
    paying = [request("weather", n) for n in range(3)]
    for one in (*flood[: len(named)], paying[0]):  # sessions and rings are known from now on
        assert await outcome(admission, one) is None
    order = []

    async def verified(name, one):
        assert await outcome(admission, one, name if of_one_address else "") is None
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for one in flood:
            group.create_task(verified("flood", one))
        for one in paying:
            group.create_task(verified("paying", one))
    assert [place for place, name in enumerate(order) if name == "paying"][-1] < 20


def test_a_denial_is_confirmed_by_two_nodes_or_by_one_at_two_blocks():
    height = [7]
    cache = NegativeCache(lambda: height[0])
    assert cache.is_confirmed("session", ("a", "b"))
    assert not cache.is_confirmed("session", ("a",))
    cache.remember("session", Rejected(RejectionReason.CHAIN_UNAVAILABLE, "one answer"))
    assert not cache.is_confirmed("session", ("a",)), "the same block again is no second answer"
    height[0] = 8
    cache.check("session")
    assert cache.is_confirmed("session", ("a",))


async def test_over_its_budget_an_address_still_begins_the_next_sessions_of_known_applications():
    world, node, height = World(), Node(), [1]
    chain = LocalChain(world.genesis())
    admission = Admission(DirectChain(chain, node.gate), lambda: height[0], lambda: 0.0)

    def request():
        header = hydrate(chain.state, chain.block_hash, world.application("eth"), "eth", height[0]).header
        return world.request(header, address("alice"), b"{}")

    assert await outcome(admission, request(), "proxy") is None
    for number in range(70):
        invented = changed(request(), application_address=address(f"stranger {number}"))
        await outcome(admission, invented, "proxy")
    assert await outcome(admission, invented, "proxy") is RejectionReason.OVERLOADED
    for _ in range(10):
        chain.step()
    height[0] = 11
    assert await outcome(admission, request(), "proxy") is None
