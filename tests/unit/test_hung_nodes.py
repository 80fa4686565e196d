"""A node that hangs costs seconds at most while another one answers."""

import asyncio

import pytest

from pocket.chain.comet import CometClient
from pocket.chain.failover import GRACE_SECONDS, Failover, NodeAddress
from pocket.chain.first_answers import first_in_time
from pocket.errors import ChainError, ChainUnavailable

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


async def test_a_query_of_all_nodes_leaves_a_hung_one_a_second_after_the_first_answer():
    nodes = Failover(["hung", "good", "refusing"], names=["hung", "good", "refusing"])
    found, seconds = await timed(nodes.ask_all(answer_of, 30.0))
    assert found["good"] == "good"
    assert isinstance(found["hung"], ChainError)
    assert isinstance(found["refusing"], ChainError)
    assert seconds < GRACE_SECONDS + 1.0
    assert nodes.order()[-1] in (0, 2), "the hung node is asked last for some seconds"


async def test_without_any_answer_nodes_have_their_whole_time():
    nodes = Failover(["hung", "refusing"], names=["hung", "refusing"])
    _, seconds = await timed(nodes.ask_all(answer_of, 1.5))
    assert seconds >= 1.4


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

    def post(self, url, json):
        http, self.hung = self, "hung" in url
        self.asked.append(url)

        class Response:
            async def __aenter__(self):
                if http.hung:
                    await asyncio.Event().wait()
                return self

            async def __aexit__(self, *_):
                return

            @property
            def content(self):
                return self

            async def iter_chunked(self, _):
                for piece in (b'{"jsonrpc":"2.0","id":1,"result":{"height":"7",', b'"finalize_block_', b'events":[]}}'):
                    await asyncio.sleep(http.pause)
                    yield piece

        return Response()


async def test_block_results_of_a_hung_node_are_given_up_after_a_block_and_slow_ones_are_read_to_their_end():
    http = Http(pause=0.15)
    comet = CometClient(ADDRESSES, http, 0.2)
    comet.block_seconds = lambda: 0.3
    events, seconds = await timed(comet.end_events(7, lambda event: True))
    assert events == ()
    assert len(http.asked) == 2
    assert 0.7 < seconds < 3.0


async def test_block_results_of_a_node_that_is_slower_than_another_are_waited_for():
    """Large answers may take up to a block, longer than the second that other queries have after the first answer."""

    class Paced(Http):
        def post(self, url, json):
            pause = (GRACE_SECONDS + 0.5) / 3 if "hung" in url else 0.0
            return Http(pause).post(url.replace("hung", "slow"), json)

    comet = CometClient(ADDRESSES, Paced(0.0), 0.2)
    comet.block_seconds = lambda: 5.0
    found = await comet.end_events_by_node(7, lambda event: True)
    assert list(found.values()) == [(), ()]
