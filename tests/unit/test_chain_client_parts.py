import asyncio
import random

import pytest

from pocket.chain import convert
from pocket.chain.block_feed import BlockFeed
from pocket.chain.failover import Failover, NodeAddress
from pocket.chain.model import Account, Application, Block, ServiceConfig, StakedSupplier
from pocket.chain.ring_queries import query_ring
from pocket.errors import (
    ChainQueryRejected,
    ChainUnavailable,
    ConfigurationError,
    DecodingError,
    FailureClass,
    NotFound,
)
from pocket.protocol.pb import cosmos_base_v1beta1_pb2 as base_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.transactions.build import GasPrice, Timestamp
from pocket.protocol.transactions.timeouts import UnorderedNonceAllocator, timeout_duration_seconds


@pytest.mark.parametrize(
    ("grpc_text", "rpc", "target", "secure", "socket"),
    [
        ("node:9090", "tcp://node:26657/", "node:9090", False, "ws://node:26657/websocket"),
        ("grpcs://node", "https://node", "node:443", True, "wss://node/websocket"),
        ("grpc://10.0.0.1:1", "http://10.0.0.1:2", "10.0.0.1:1", False, "ws://10.0.0.1:2/websocket"),
        ("grpc://[fd00::1]", "http://[fd00::1]:2", "[fd00::1]:9090", False, "ws://[fd00::1]:2/websocket"),
    ],
)
def test_node_addresses_are_normalised(grpc_text, rpc, target, secure, socket):
    node = NodeAddress.parse(grpc_text, rpc)
    assert node.grpc_target == (target, secure)
    assert node.websocket_url == socket


async def test_each_query_of_a_node_is_observed_with_its_result_and_seconds():
    clock, seen = [10.0], []
    nodes = Failover(
        ["bad", "good"], clock=lambda: clock[0], on_query=lambda result, seconds: seen.append((result, seconds))
    )

    async def ask(node):
        clock[0] += 0.5 if node == "bad" else 0.25
        if node == "bad":
            raise ChainUnavailable("down", failure=FailureClass.PRUNED_NODE)
        return node

    assert await nodes.call("q", ask, 5) == "good"
    assert seen == [("pruned_node", 0.5), ("answered", 0.25)]
    seen.clear()
    await nodes.ask_all(ask, 5)
    assert sorted(result for result, _ in seen) == ["answered", "pruned_node"]


@pytest.mark.parametrize(
    ("grpc_text", "rpc"),
    [("ftp://x", "http://x"), ("grpc://", "http://x"), ("grpc://x", "x:1"), ("x:70000", "http://x"), ("x", "http://x:a"),
     ("grpc://[fd00", "http://x")],
)  # fmt: skip
def test_addresses_that_are_none_say_what_to_write(grpc_text, rpc):
    with pytest.raises(ConfigurationError, match="write"):
        NodeAddress.parse(grpc_text, rpc)


async def test_failover_asks_the_next_node_and_rests_the_failed_one():
    asked = []

    async def ask(node):
        asked.append(node)
        if node == "bad":
            raise ChainUnavailable("bad: down")
        return node

    nodes = Failover(["bad", "good"], clock=lambda: 0.0)
    assert await nodes.call("q", ask, 5) == "good"
    assert await nodes.call("q", ask, 5) == "good"
    assert asked == ["bad", "good", "good"]


@pytest.mark.parametrize("lagging", [1, 3])
async def test_an_address_whose_node_lags_is_asked_again_at_once_as_another_may_stand_behind_it(lagging):
    answers = [FailureClass.LAGGING_NODE] * lagging + [None]

    async def ask(node):
        failure = answers.pop(0)
        if failure is None:
            return "good"
        raise ChainUnavailable("behind", failure=failure)

    assert await Failover(["balancer"]).call("q", ask, 5) == "good"
    assert answers == []


@pytest.mark.parametrize(("failure", "calls"), [(FailureClass.LAGGING_NODE, 4), (FailureClass.TRANSIENT, 1)])
async def test_only_nodes_that_lag_are_asked_again_and_not_for_ever(failure, calls):
    asked = []

    async def ask(node):
        asked.append(node)
        raise ChainUnavailable("away", failure=failure)

    with pytest.raises(ChainUnavailable, match="away"):
        await Failover(["a"]).call("q", ask, 5)
    assert len(asked) == calls
    with pytest.raises(ChainUnavailable, match="away"):
        await Failover(["a"]).call("q", ask, 0.04)
    assert len(asked) == calls + 1, "there is no time for a pause"


async def test_failover_names_every_cause_and_a_refusal_is_final():
    async def down(node):
        raise ChainUnavailable(f"{node}: down")

    async def refuse(node):
        raise ChainQueryRejected(node)

    async def hang(_):
        await asyncio.Event().wait()

    with pytest.raises(ChainUnavailable, match="node 1: a: down; node 2: b: down"):
        await Failover(["a", "b"]).call("q", down, 5)
    with pytest.raises(ChainQueryRejected, match="a"):
        await Failover(["a", "b"]).call("q", refuse, 5)
    with pytest.raises(ChainUnavailable, match="no answer within"):
        await Failover(["a"]).call("q", hang, 0.01)
    with pytest.raises(ChainUnavailable, match="deadline"):
        await Failover(["a"]).call("q", hang, 0)


class Source:
    """A source of heights as the test sets them.

    The latest block is always `latest`.
    """

    def __init__(self, announcements, latest):
        self.announcements = announcements
        self.latest = latest
        self.rounds = 0

    async def block(self, height=None):
        if isinstance(self.latest[0], Exception):
            raise self.latest.pop(0)
        value = self.latest[0] if len(self.latest) == 1 else self.latest.pop(0)
        return Block(value, bytes(32), Timestamp(0))

    async def heights(self):
        self.rounds += 1
        for height in self.announcements.pop(0) if self.announcements else []:
            yield height
        raise ChainUnavailable("closed")


async def test_the_feed_is_monotonic_collapses_bursts_and_outlives_outages():
    seen, errors = [], []
    source = Source([[5, 6, 7]], [4, 7, 7, 6, ChainUnavailable("down"), 9])

    async def on_block(block):
        seen.append(block.height)
        if block.height == 9:
            raise asyncio.CancelledError

    async def no_sleep(_):
        return None

    feed = BlockFeed(source, on_block, rng=random.Random(1), sleep=no_sleep, on_error=errors.append)
    with pytest.raises(asyncio.CancelledError):
        await feed.run()
    assert seen == [4, 7, 9]
    assert feed.height == 9
    assert errors


class OneOfTwoStandsStill:
    """Two nodes behind one address that answer in turn.

    The subscription is to the one that announces nothing.
    """

    def __init__(self):
        self.asked, self.subscriptions = 0, 0

    async def block(self, height=None):
        self.asked += 1
        # The first answer to each look is the still one's: whoever looks once never sees the other.
        return Block(7 if self.asked % 2 else 7 + self.asked // 2, bytes(32), Timestamp(0))

    async def heights(self):
        self.subscriptions += 1
        await asyncio.Event().wait()
        yield 0


async def test_a_block_that_is_overdue_is_looked_for_at_every_node_of_the_address():
    seen, new = [], asyncio.Event()

    async def on_block(block):
        seen.append(block.height)
        if block.height > 7:
            new.set()

    source = OneOfTwoStandsStill()
    feed = BlockFeed(source, on_block, poll_seconds=0.01, rng=random.Random(1))
    await feed.refresh()
    source.asked = 0
    assert await feed._overdue()
    assert (seen, source.asked) == ([7, 8], 2)
    following = asyncio.create_task(feed.run())
    async with asyncio.timeout(10):
        while source.subscriptions < 2:  # noqa: ASYNC110 - the feed's tasks go on
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_an_address_without_a_new_block_is_looked_at_a_few_times_and_keeps_its_subscription():
    source = Source([], [7])
    asked = []

    async def on_block(block):
        asked.append(block.height)

    feed = BlockFeed(source, on_block, poll_seconds=0.01, rng=random.Random(1))
    await feed.refresh()
    assert not await feed._overdue()
    assert asked == [7]


def test_a_supplier_serves_by_history_unstake_height_and_plain_services():
    history = (ServiceConfig("eth", 11, 31), ServiceConfig("base", 1, 0))
    supplier = StakedSupplier("a", "o", 1, frozenset({"eth"}), 0, history)
    assert [supplier.serves("eth", h, 100) for h in (10, 11, 30, 31)] == [False, True, True, False]
    assert supplier.serves("base", 5, 100)
    assert not supplier.serves("none", 5, 100)
    assert supplier.serves("eth", 0, 100)
    leaving = StakedSupplier("a", "o", 1, frozenset({"eth"}), 20, ())
    assert leaving.serves("eth", 15, 20)
    assert not leaving.serves("eth", 15, 30)


async def test_a_ring_has_the_key_of_each_member_and_none_without_a_key():
    keys = {"app": b"a", "gateway": b"g"}

    class Members:
        async def application(self, _):
            return Application("app", 1, (), ("gateway",), {}, 0)

        async def account(self, member):
            return Account(member, 1, 0, keys[member])

    assert sorted(await query_ring(Members(), "app", 10)) == [b"a", b"g"]
    for member, known in (*keys.items(),):
        keys[member] = None
        with pytest.raises(NotFound, match=f"{member} has no public key"):
            await query_ring(Members(), "app", 10)
        keys[member] = known


def test_answers_that_cannot_be_are_typed_errors():
    with pytest.raises(DecodingError):
        convert.amount(base_pb.Coin(amount="x"))
    with pytest.raises(DecodingError):
        convert.shared_params(shared_pb.Params())
    for value in (b"", b"\xff", b"\x0a\x02\x0a\x00"):
        with pytest.raises(DecodingError):
            convert.account("/x", value)


def test_event_values_lose_their_quotes_and_nothing_else():
    rows = [{"type": "t", "attributes": [{"key": "a", "value": '"1"'}, {"key": "b", "value": '{"x":1}'},
             {"key": "c", "value": None}, {"key": "d", "value": '"broken'}]}]  # fmt: skip
    assert convert.events(rows)[0].attributes == {"a": "1", "b": '{"x":1}', "c": "", "d": '"broken'}
    assert convert.events([{"type": "t"}])[0].attributes == {}


def test_timeouts_follow_block_time_and_stay_within_the_chains_limits():
    assert timeout_duration_seconds(None, 30) == 120
    assert timeout_duration_seconds(4, 60) == 180
    assert timeout_duration_seconds(1, 1) == 120
    assert timeout_duration_seconds(1000, 60) == 590


def test_no_supplier_ever_gets_a_timestamp_twice_and_lanes_never_meet():
    one, two = UnorderedNonceAllocator(offset=1), UnorderedNonceAllocator(offset=2)
    block = Timestamp(1000, 5)
    stamps = [clock.next_timeout("s", block, 120).nanoseconds for clock in (one, two) for _ in range(50)]
    assert len(set(stamps)) == 100
    assert all(1120 * 10**9 <= s < 1121 * 10**9 for s in stamps)


@pytest.mark.parametrize("text", ["", "1", "upokt", "1 pokt", "-1upokt", "1,5upokt"])
def test_gas_prices_that_are_none_say_what_to_write(text):
    with pytest.raises(ConfigurationError, match="write"):
        GasPrice.parse(text)
