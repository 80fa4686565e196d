"""A node that hangs costs seconds at most while another one answers."""

import asyncio

import pytest

from chunked_response import ChunkedResponse
from pocket.chain.comet import CometClient
from pocket.chain.failover import GRACE_SECONDS, Failover, NodeAddress
from pocket.chain.first_answers import first_in_time, staggered
from pocket.errors import ChainError, ChainUnavailable, NotFound
from virtual_time import in_virtual_time

ADDRESSES = [NodeAddress.parse(f"grpc://{name}:1", f"http://{name}:2") for name in ("hung", "good")]


async def answer_of(name):
    if name == "hung":
        await asyncio.Event().wait()
    if name == "refusing":
        raise ChainUnavailable("no")
    return name


async def later(name, seconds):
    await asyncio.sleep(seconds)
    return name


async def timed(work):
    loop = asyncio.get_running_loop()
    began = loop.time()
    return await work, loop.time() - began


@in_virtual_time
async def test_a_query_of_all_nodes_leaves_a_hung_one_a_second_after_the_first_answer():
    nodes = Failover(["hung", "good", "refusing"], names=["hung", "good", "refusing"])
    found, seconds = await timed(nodes.ask_all(answer_of, 30.0))
    assert found["good"] == "good"
    assert isinstance(found["hung"], ChainError)
    assert isinstance(found["refusing"], ChainError)
    assert seconds < GRACE_SECONDS + 1.0
    assert nodes.order()[-1] in (0, 2), "the hung node is asked last for some seconds"


@in_virtual_time
async def test_without_any_answer_nodes_have_their_whole_time():
    nodes = Failover(["hung", "refusing"], names=["hung", "refusing"])
    _, seconds = await timed(nodes.ask_all(answer_of, 1.5))
    assert seconds >= 1.4


class Balancer:
    """One address with several nodes behind it, of which each query reaches the next one."""

    def __init__(self, *nodes):
        self.nodes = nodes
        self.asked = 0

    async def __call__(self, _):
        node = self.nodes[self.asked % len(self.nodes)]
        self.asked += 1
        return await answer_of(node)


@pytest.mark.parametrize("of_all", [False, True])
@in_virtual_time
async def test_a_silent_address_is_queried_again_as_another_node_may_stand_behind_it(of_all):
    async def asked(nodes, deadline, patience):
        balancer, failover = Balancer(*nodes), Failover(["address"], names=["address"])
        if of_all:
            answer = (await failover.ask_all(balancer, deadline, patience_share=patience))["address"]
        else:
            answer = await failover.call("query", balancer, deadline, patience)
        return answer, balancer.asked

    (answer, queries), seconds = await timed(asked(["hung", "good"], 100.0, 0.001))
    assert (answer, queries) == ("good", 2)
    assert seconds < 3.0
    assert await asked(["good", "hung"], 100.0, 0.5) == ("good", 1), "an address that answers is queried once"
    assert await asked(["hung", "refusing", "good"], 0.5, 0.1) == ("good", 3)


@in_virtual_time
async def test_a_silent_node_goes_on_while_the_next_is_queried():
    slow_may_answer = asyncio.Event()

    async def ask(node):
        if node == "slow":
            await slow_may_answer.wait()
            return node
        slow_may_answer.set()
        return await answer_of("hung")

    assert await Failover(["slow", "hung"]).call("query", ask, 100.0, 0.001) == "slow"


@in_virtual_time
async def test_a_hung_node_that_another_overtook_is_queried_last_for_some_seconds():
    nodes = Failover(["hung", "good"], clock=asyncio.get_running_loop().time)
    assert await nodes.call("query", answer_of, 100.0, 0.001) == "good"
    assert nodes.order() == [1, 0]


@in_virtual_time
async def test_an_address_that_is_slow_but_well_is_not_queried_twice():
    clock = [0.0]
    nodes, asked = Failover(["slow"], clock=lambda: clock[0]), []

    async def ask(node):
        asked.append(node)
        await asyncio.sleep(0.05)
        clock[0] += 10.0
        return node

    for _ in range(3):
        await nodes.call("query", ask, 1000.0, 0.00001)
    assert len(asked) > 3, "nothing is known of an address's speed at first"
    asked.clear()
    await nodes.call("query", ask, 1000.0, 0.00001)
    assert len(asked) == 1


@in_virtual_time
async def test_a_statement_of_the_only_address_does_not_wait_for_its_silent_node():
    balancer = Balancer("hung", "stating")

    async def ask(node):
        if balancer.asked:
            raise NotFound("nothing")
        return await balancer(node)

    async def asked():
        with pytest.raises(NotFound):
            await Failover(["address"]).call("query", ask, 100.0, 0.001)

    _, seconds = await timed(asked())
    assert seconds < 3.0


@in_virtual_time
async def test_staggered_work_starts_after_what_ended_or_was_silent_and_all_of_it_is_cancelled():
    started, cancelled = [], []

    async def part(name):
        started.append(name)
        try:
            return await answer_of(name)
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    names = ["good", "hung", "better", "hung", "never"]
    results = staggered([part(name) for name in names], 0.01)
    assert [await anext(results), await anext(results)] == ["good", "better"]
    await results.aclose()
    assert (started, cancelled) == (["good", "hung", "better"], ["hung"])


@in_virtual_time
async def test_results_are_returned_without_the_slowest_and_errors_are_raised():
    found, seconds = await timed(first_in_time([answer_of("hung"), answer_of("good")], 0.1))
    assert found == [None, "good"]
    assert seconds < 3.0
    assert await first_in_time([], 0.1) == []
    assert await first_in_time([answer_of(""), later("slow", 0.3)], 0.1) == ["", "slow"], "nothing is no result"
    with pytest.raises(ChainUnavailable):
        await first_in_time([answer_of("refusing"), answer_of("hung")], 0.1)


class Http:
    """A node that sends nothing and one that sends an empty list of events in pieces."""

    def __init__(self, pause):
        self.pause = pause
        self.asked = []

    def post(self, url, json, headers=None):
        self.asked.append(url)

        async def pieces():
            if "hung" in url:
                await asyncio.Event().wait()
            for piece in (b'{"jsonrpc":"2.0","id":1,"result":{"height":"7",', b'"finalize_block_', b'events":[]}}'):
                await asyncio.sleep(self.pause)
                yield piece

        return ChunkedResponse(pieces())


@in_virtual_time
async def test_block_results_of_a_hung_node_are_given_up_after_a_block_and_slow_ones_are_read_to_their_end():
    http = Http(pause=0.15)
    comet = CometClient(ADDRESSES, http, 0.2)
    comet.block_seconds = lambda: 0.3
    events, seconds = await timed(comet.end_events(7, lambda event: True))
    assert events == ()
    assert len(http.asked) == 2
    assert 0.7 < seconds < 3.0


@in_virtual_time
async def test_block_results_of_a_node_that_is_slower_than_another_are_waited_for():
    """Large answers may take up to a block, longer than the second that other queries have after the first answer."""

    class Paced(Http):
        def post(self, url, json, headers=None):
            pause = (GRACE_SECONDS + 0.5) / 3 if "hung" in url else 0.0
            return Http(pause).post(url.replace("hung", "slow"), json)

    comet = CometClient(ADDRESSES, Paced(0.0), 0.2)
    comet.block_seconds = lambda: 5.0
    found = await comet.end_events_by_node(7, lambda event: True)
    assert list(found.values()) == [(), ()]
