"""Whose statement an answer of a chain node is: of which height, chain and session, and which nodes made it."""

import json

import grpc
import pytest

from chunked_response import ChunkedResponse
from direct import DirectChain
from pocket.chain.block_feed import BlockFeed
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient, parse_time
from pocket.chain.failover import Failover, NodeAddress
from pocket.chain.model import Block
from pocket.chain.node_answer import HEIGHT_HEADER
from pocket.chain.node_health import NodeHealth, NodeHealthTable
from pocket.chain.node_monitor import NodeMonitor
from pocket.chain.plausible_heights import HeightGuard
from pocket.chain.response_checks import check_answer
from pocket.errors import ChainUnavailable, DecodingError, FailureClass, NotFound
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.transactions.build import Timestamp
from pocket_localnet.local_chain import LocalChain
from world import World

HASH = "AB" * 32
NODE = NodeAddress.parse("grpc://node:1", "http://node:2")
APPLICATION = "/pocket.application.Query/Application"


def failing(code, text, *, leading=(), trailing=()):
    rows = [grpc.aio.Metadata(*((HEIGHT_HEADER, str(height)) for height in side)) for side in (leading, trailing)]
    return grpc.aio.AioRpcError(code, *rows, details=text)


class Reply:
    def __init__(self, answer):
        self._answer = answer

    def __await__(self):
        yield from ()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    async def initial_metadata(self):
        return ((HEIGHT_HEADER, "9"),)


class Channel:
    """A node's gRPC port that answers by method."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def unary_unary(self, method, *_):
        def ask(raw, timeout, metadata):
            self.asked.append(dict(metadata))
            return Reply(self.answers[method.rpartition("/")[2]])

        return ask

    def renew(self):
        return

    async def close(self, grace):
        return


def client(*channels):
    rest = list(channels)
    names = [NodeAddress.parse(f"grpc://n{number}:1", f"http://n{number}:2") for number in range(len(rest))]
    return ChainClient(names, channel=lambda _: rest.pop(0))


@pytest.mark.parametrize(
    ("leading", "trailing", "height"), [((7,), (), 7), ((), (7,), 7), ((7,), (5,), 7), ((), (), 0)]
)
async def test_a_denial_is_as_of_the_height_that_the_node_states_with_it(leading, trailing, height):
    denied = failing(grpc.StatusCode.NOT_FOUND, "not found", leading=leading, trailing=trailing)
    request = application_pb.QueryGetApplicationRequest(address="app")
    answers = await client(Channel(Application=denied)).ask_every_node(APPLICATION, request)
    assert [(type(row.error), row.height) for row in answers.values()] == [(NotFound, height)]


async def test_every_node_is_named_in_what_all_of_them_answer():
    denied, away = (failing(code, "not found") for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE))
    request = application_pb.QueryGetApplicationRequest(address="app")
    channels = [Channel(Application=answer) for answer in (denied, away)]
    answers = await client(*channels).ask_every_node(APPLICATION, request, 5)
    assert {name: row.error.failure for name, row in answers.items()} == {
        "n0:1": FailureClass.ABSENT, "n1:1": FailureClass.TRANSIENT,
    }  # fmt: skip
    assert [channel.asked for channel in channels] == [[{HEIGHT_HEADER: "5"}]] * 2


async def test_units_are_those_of_the_present_where_a_node_has_no_history_of_them():
    service = service_pb.QueryGetServiceResponse(service={"id": "eth", "compute_units_per_relay": 7})
    absent = failing(grpc.StatusCode.UNIMPLEMENTED, "unknown method ComputeUnitsPerRelayAtHeight")
    node = client(Channel(ComputeUnitsPerRelayAtHeight=absent, Service=service.SerializeToString()))
    assert await node.compute_units_per_relay("eth", 5) == 7


@pytest.mark.parametrize(("units", "sound"), [(1, True), (2**32 - 1, True), (2**32, False), (2**40, False)])
def test_units_that_no_service_has_are_no_answer(units, sound):
    method = "/pocket.service.Query/ComputeUnitsPerRelayAtHeight"
    request = service_pb.QueryComputeUnitsPerRelayAtHeightRequest(serviceId="eth", blockHeight=1)
    raw = service_pb.QueryComputeUnitsPerRelayAtHeightResponse(computeUnitsPerRelay=units).SerializeToString()
    if sound:
        check_answer(method, request, raw)
    else:
        with pytest.raises(DecodingError):
            check_answer(method, request, raw)


@pytest.mark.parametrize(("field", "change"), [
    ("session_end_block_height", 1), ("session_end_block_height", -1), ("session_end_block_height", -10),
    ("session_start_block_height", 1), ("session_start_block_height", -1), ("", 1), ("", 0),
])  # fmt: skip
async def test_a_session_has_its_length_and_holds_the_height_that_was_asked_for(field, change):
    world, method = World(), "/pocket.session.Query/GetSession"
    chain = DirectChain(LocalChain(world.genesis()))
    request = session_pb.QueryGetSessionRequest(
        application_address=world.application("eth"), service_id="eth", block_height=1
    )
    answer = session_pb.QueryGetSessionResponse.FromString(await chain._call_raw(method, request))
    if field:
        setattr(answer.session.header, field, getattr(answer.session.header, field) + change)
    else:
        answer.session.num_blocks_per_session += change
    if not change:
        check_answer(method, request, answer.SerializeToString())
        return
    with pytest.raises(DecodingError):
        check_answer(method, request, answer.SerializeToString())


class Rpc:
    """A node's RPC, which answers by method."""

    def __init__(self, **answers):
        self.answers = answers

    def post(self, url, json, headers=None):
        async def pieces():
            yield self.answers[json["method"]]

        return ChunkedResponse(pieces())


def commit(height=8, network="pocket"):
    header = {"height": str(height), "chain_id": network, "time": "2026-01-01T00:00:00Z"}
    signed = {"header": header, "commit": {"block_id": {"hash": HASH}}}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"signed_header": signed}}).encode()


def status(network="pocket", height=9):
    sync = {
        "latest_block_height": str(height), "latest_block_hash": HASH, "latest_block_time": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    result = {"node_info": {"network": network}, "sync_info": sync}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


@pytest.mark.parametrize(
    ("answer", "believed"), [(commit(), True), (commit(network="other"), False), (commit(7), False)]
)
async def test_the_hash_of_a_block_is_of_its_height_and_this_chain(answer, believed):
    comet = CometClient([NODE], Rpc(commit=answer), chain_id="pocket")
    (hashed,) = (await comet.hashes_by_node(8)).values()
    assert (hashed == bytes.fromhex(HASH)) is believed
    if believed:
        assert (await comet.block(8)).height == 8
    else:
        with pytest.raises(ChainUnavailable):
            await comet.block(8)


@pytest.mark.parametrize(
    ("fraction", "nanoseconds"),
    [("", 0), (".5", 500_000_000), (".000000001", 1), (".123456789", 123456789), (".1234567891", 123456789)],
)
def test_a_time_has_the_nanoseconds_of_its_fraction(fraction, nanoseconds):
    assert parse_time(f"1970-01-01T00:00:01{fraction}Z") == Timestamp(1, nanoseconds)


@pytest.mark.parametrize("network", ["pocket", "other"])
async def test_a_node_whose_grpc_is_of_another_chain_is_on_the_wrong_chain(network):
    table, rows = NodeHealthTable(2), [NODE, NodeAddress.parse("grpc://m:1", "http://m:2")]
    async with NodeMonitor(rows, Rpc(status=status()), "pocket", table, channel=lambda _: Channel()) as monitor:
        for place, name in enumerate(("pocket", network)):
            monitor._clients[place].chain_id = named(name)
        await monitor.probe_all()
    healthy = NodeHealth.HEALTHY if network == "pocket" else NodeHealth.WRONG_CHAIN
    assert [row.health for row in table.assessments] == [NodeHealth.HEALTHY, healthy]


def named(name):
    async def chain_id():
        return name

    return chain_id


async def test_a_node_that_has_pruned_the_compared_block_is_not_compared():
    class Blocks:
        def __init__(self, height, hashes):
            self.height, self.hashes = height, hashes

        async def latest_of_any_chain(self):
            return Block(self.height, bytes([self.height]) * 32, Timestamp(1)), "pocket"

        async def block(self, height):
            if height not in self.hashes:
                raise ChainUnavailable("pruned", failure=FailureClass.PRUNED_NODE)
            return Block(height, self.hashes[height], Timestamp(1))

    rows = [NodeAddress.parse(f"grpc://n{at}:1", f"http://n{at}:2") for at in range(3)]
    table = NodeHealthTable(3)
    async with NodeMonitor(rows, None, "pocket", table, channel=lambda _: Channel()) as monitor:
        monitor._blocks = [Blocks(8, {}), Blocks(9, {8: bytes([8]) * 32}), Blocks(9, {})]
        for one in monitor._clients:
            one.chain_id = named("pocket")
        await monitor.probe_all()
    assert {row.health for row in table.assessments} == {NodeHealth.HEALTHY}


async def test_a_node_that_answers_again_is_no_longer_asked_last():
    failed = set()

    async def ask(node):
        if node in failed:
            raise ChainUnavailable(f"{node}: away")
        return node

    nodes = Failover(["a", "b"], clock=lambda: 0.0)
    for away, answers in (({"a"}, "b"), ({"a", "b"}, ""), ({"a"}, "b"), ({"b"}, "a")):
        failed.clear()
        failed.update(away)
        if answers:
            assert await nodes.call("query", ask, 5) == answers
            assert nodes.order()[0] == ["a", "b"].index(answers)
        else:
            with pytest.raises(ChainUnavailable):
                await nodes.call("query", ask, 5)


async def test_an_error_names_the_nodes_behind_it():
    async def ask(node):
        raise ChainUnavailable("away", nodes=("one", "two") if node == "balancer" else ())

    nodes = Failover(["balancer", "node"], names=["balancer", "node"], clock=lambda: 0.0)
    answers = await nodes.ask_all(ask, 5)
    assert {name: error.nodes for name, error in answers.items()} == {"balancer": ("one", "two"), "node": ("node",)}


async def test_why_a_subscription_ended_is_told():
    class Source:
        async def block(self, height=None):
            return Block(5, bytes(32), Timestamp(5))

        async def heights(self):
            raise ChainUnavailable("the subscription was refused")
            yield 0

    told = []

    async def delivered(_):
        return

    async def sleep(_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        await BlockFeed(Source(), delivered, sleep=sleep, on_error=told.append).run()
    assert [str(error) for error in told] == ["the subscription was refused"]


@pytest.mark.parametrize("seconds", [-50, 0, 700])
def test_clocks_of_blocks_that_stand_still_or_go_back_measure_no_time_between_blocks(seconds):
    guard = HeightGuard(1.0)
    guard.observe(Block(100, bytes(32), Timestamp(1000)), 0.0)
    for number in range(1, 6):
        guard.observe(Block(100 + number, bytes(32), Timestamp(1000 + seconds * number)), float(number))
    assert (guard.height, guard.block_seconds) == (105, 1.0)
