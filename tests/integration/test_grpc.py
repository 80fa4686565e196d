"""gRPC, gRPC-Web and cleartext HTTP/2, with grpcio on both sides."""

import asyncio
import contextlib
import gzip
from dataclasses import replace

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from callers import grpc_call, grpc_web, http1, http2_raw
from hostile_clients import held, until
from pocket.protocol.relays.envelope import HttpRequest, decode_http_response
from pocket.protocol.relays.messages import decode_relay_request, decode_relay_response
from transports import all_transports
from world import address

pytestmark = pytest.mark.redis


async def test_another_method_is_unimplemented_and_health_is_answered_over_http2(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        async with grpc.aio.insecure_channel(relayer.url.removeprefix("http://")) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/pocket.service.RelayService/Other")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        status, _ = await http2_raw(relayer.url, "/", b"x" * 300_000, {})
        assert status == 413


async def test_a_grpc_message_may_be_compressed_and_larger_than_a_window(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        relayer.backend.answer = (200, {}, b"y" * 90_000)
        request = relayer.request(body=b"z" * 80_000)
        async with grpc.aio.insecure_channel(
            relayer.url.removeprefix("http://"), compression=grpc.Compression.Gzip
        ) as channel:
            call = channel.unary_unary("/pocket.service.RelayService/SendRelay")
            answer = await call(request.encode(), timeout=10)
        assert decode_http_response(decode_relay_response(answer).payload).body == b"y" * 90_000


@pytest.mark.parametrize("size", [60_000, 70_000, 99_000])
async def test_a_grpc_message_may_be_larger_than_the_window_that_a_connection_begins_with(redis, tmp_path, size):
    async with all_transports(redis, tmp_path) as (relayer, _):
        relayer.backend.answer = (200, {}, b"y" * 99_000)
        outcome = await grpc_call(relayer.url, relayer.request(body=b"z" * size).encode())
        assert decode_http_response(decode_relay_response(outcome.body).payload).body == b"y" * 99_000
        assert len(relayer.backend.requests[0][3]) == size


async def test_many_grpc_calls_share_a_connection(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        async with grpc.aio.insecure_channel(relayer.url.removeprefix("http://")) as channel:
            call = channel.unary_unary("/pocket.service.RelayService/SendRelay")
            bodies = [relayer.request(body=b"%d" % n).encode() for n in range(100)]
            answers = await asyncio.gather(*(call(body, timeout=20) for body in bodies))
        assert len(answers) == len(await relayer.leaves()) == 100


BOMB = gzip.compress(bytes(60_000))


async def test_grpc_web_text_and_preflight_are_answered_for_any_origin(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        assert (await grpc_web(relayer.url, relayer.request().encode(), text=True)).body
        wanted = {"Origin": "http://page", "Access-Control-Request-Headers": "x-grpc-web,content-type"}
        async with relayer.http.options(relayer.url + "/pocket.service.RelayService/SendRelay", headers=wanted) as got:
            assert (got.status, got.headers["Access-Control-Allow-Origin"]) == (204, "*")


class Echo(grpc.GenericRpcHandler):
    """A gRPC backend that answers each message twice, with metadata and trailers.

    The method /fail returns an error.
    """

    def __init__(self):
        self.seen = []

    def service(self, details):
        async def echo(messages, context):
            self.seen.append(dict(details.invocation_metadata))
            await context.send_initial_metadata((("x-first", "1"), ("x-raw-bin", b"\x00\xff")))
            if details.method.endswith("fail"):
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü")
            async for message in messages:
                yield message
                yield message + b"!"
            context.set_trailing_metadata((("x-last", "2"),))

        return grpc.stream_stream_rpc_method_handler(echo)


@contextlib.asynccontextmanager
async def grpc_backend():
    server, echo = grpc.aio.server(), Echo()
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}", echo
    finally:
        await server.stop(0)


def grpc_request(relayer, path, *messages):
    body = b"".join(b"\0" + len(m).to_bytes(4, "big") + m for m in messages)
    headers = {"Content-Type": ("application/grpc",), "X-Mine": ("v",), "Te": ("trailers",)}
    envelope = HttpRequest("POST", f"http://gw{path}", headers, body)
    return relayer.world.signed(replace(relayer.request(), payload=envelope.encode()))


@pytest.mark.parametrize("caller", [grpc_call, lambda url, body: http1(url, body, {"Rpc-Type": "1"})])
async def test_grpc_backends_get_messages_and_metadata_and_their_trailers_come_back(redis, tmp_path, caller):
    async with (
        grpc_backend() as (url, echo),
        all_transports(redis, tmp_path, backends={"grpc": {"urls": [url]}}) as (relayer, _),
    ):
        outcome = await caller(relayer.url, grpc_request(relayer, "/a.B/Echo", b"one", b"two").encode())
        envelope = decode_http_response(decode_relay_response(outcome.body).payload)
        texts = [envelope.body[5:8], envelope.body[13:17]]
        assert texts == [b"one", b"one!"]
        assert envelope.headers["X-First"] == ("1",)
        assert envelope.headers["X-Last"] == ("2",)
        assert envelope.headers["X-Raw-Bin"] == ("AP8",)
        assert envelope.headers["Grpc-Status"] == ("0",)
        assert echo.seen[0]["x-mine"] == "v"
        assert echo.seen[0]["pocket-supplier"] == address("alice")
        assert len(await relayer.leaves()) == 1
        failed = await caller(relayer.url, grpc_request(relayer, "/a.B/fail", b"x").encode())
        envelope = decode_http_response(decode_relay_response(failed.body).payload)
        assert (envelope.headers["Grpc-Status"], envelope.headers["Grpc-Message"]) == (
            ("5",),
            ("no such thing: %C3%BC",),
        )


@pytest.mark.parametrize("caller", [grpc_call, grpc_web])
async def test_relays_over_grpc_are_authenticated_before_the_backend_is_called_in_any_mode(redis, tmp_path, caller):
    async with all_transports(redis, tmp_path, service={"validation": "optimistic"}) as (relayer, _):
        validate, asked, order = relayer.pipeline.admission.validate, relayer.backend.asked, []

        async def validate_after_the_backend_was_called(*given):
            with contextlib.suppress(TimeoutError):  # which is expected, since it waits for this
                await asyncio.wait_for(asked.wait(), 0.3)
            order.append(asked.is_set())
            return await validate(*given)

        relayer.pipeline.admission.validate = validate_after_the_backend_was_called
        assert (await caller(relayer.url, relayer.request().encode())).body
        assert (order, asked.is_set()) == ([False], True)


def grpc_envelope(relayer, body, **headers):
    fields = {"Content-Type": ("application/grpc",), **{name: (value,) for name, value in headers.items()}}
    envelope = HttpRequest("POST", "http://gw/a.B/Echo", fields, body)
    return relayer.world.signed(replace(relayer.request(), payload=envelope.encode())).encode()


ONE = b"\0\0\0\0\1x"
REFUSED_ENVELOPES = {
    "a name that is no metadata, without a message": (b"", {"X!": "v"}),
    "a value that is no metadata, without a message": (b"", {"X-A": "é"}),
    "a value that is no metadata": (ONE, {"X-A": "é"}),
    "a binary value that is no ASCII": (ONE, {"X-A-Bin": "é"}),
    "messages that are too large in all": (
        b"".join(b"\1" + len(BOMB).to_bytes(4, "big") + BOMB for _ in range(3)), {"Grpc-Encoding": "gzip"},
    ),
    "a message that is cut off": (
        b"\1" + (len(BOMB) - 20).to_bytes(4, "big") + BOMB[:-20], {"Grpc-Encoding": "gzip"},
    ),
    "too many messages": (bytes(5) * 5000, {}),
}  # fmt: skip


@pytest.mark.parametrize(("body", "headers"), REFUSED_ENVELOPES.values(), ids=REFUSED_ENVELOPES)
async def test_an_envelope_that_grpc_cannot_send_is_refused_and_not_charged(redis, tmp_path, body, headers):
    async with (
        grpc_backend() as (url, echo),
        all_transports(redis, tmp_path, backends={"grpc": {"urls": [url]}}) as (relayer, _),
    ):
        outcome = await http1(relayer.url, grpc_envelope(relayer, body, **headers), {"Rpc-Type": "1"})
        assert outcome.code == 400
        assert not echo.seen
        await until(lambda: not held(relayer))
        assert not await relayer.leaves()


async def test_a_grpc_backend_does_not_get_what_only_a_proxy_or_the_configuration_may_set(redis, tmp_path):
    fields = {"X-Forwarded-For": "1.2.3.4", "Pocket_Supplier": "me", "X-Kept": "k"}
    async with (
        grpc_backend() as (url, echo),
        all_transports(redis, tmp_path, backends={"grpc": {"urls": [url]}}) as (relayer, _),
    ):
        assert (await http1(relayer.url, grpc_envelope(relayer, ONE, **fields), {"Rpc-Type": "1"})).code == 200
        assert echo.seen[0]["x-kept"] == "k"
        assert not {"x-forwarded-for", "pocket_supplier"} & set(echo.seen[0])


async def test_a_grpc_relay_is_authenticated_before_its_backend_is_called_in_any_mode(redis, tmp_path):
    async with (
        grpc_backend() as (url, echo),
        all_transports(redis, tmp_path, backends={"grpc": {"urls": [url]}}, service={"validation": "optimistic"}) as (
            relayer,
            _,
        ),
    ):
        forged = replace(decode_relay_request(grpc_envelope(relayer, ONE)), signature=relayer.request().signature)
        assert (await http1(relayer.url, forged.encode(), {"Rpc-Type": "1"})).code == 403
        assert not echo.seen


class RefusesAtOnce(asyncio.Protocol):
    """A gRPC backend that ends every call when it has seen its headers, as proxies do that ask for a password."""

    def connection_made(self, transport):
        self.transport = transport
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                headers = {":status": "200", "content-type": "application/grpc", "grpc-status": "16"}
                self.h2.send_headers(event.stream_id, [*headers.items(), ("grpc-message", "who?")], end_stream=True)
        self.transport.write(self.h2.data_to_send())


async def test_a_backend_that_refuses_before_it_has_read_the_message_is_answered_with_its_own_status(redis, tmp_path):
    server = await asyncio.get_running_loop().create_server(RefusesAtOnce, "127.0.0.1", 0)
    url = f"grpc://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, all_transports(redis, tmp_path, backends={"grpc": {"urls": [url]}}) as (relayer, _):
        # Small ones, and more than the window that a stream begins with: they cannot all be written before the answer.
        requests = [grpc_request(relayer, "/a.B/Echo", bytes(size)).encode() for size in [3] * 40 + [80_000] * 40]
        for outcome in await asyncio.gather(*(grpc_call(relayer.url, request) for request in requests)):
            assert (outcome.code, outcome.text) == (0, "")
            envelope = decode_http_response(decode_relay_response(outcome.body).payload)
            assert (envelope.headers["Grpc-Status"], envelope.headers["Grpc-Message"]) == (("16",), ("who?",))


class BeginsLate(RefusesAtOnce):
    """A backend that is far away: its side of the connection is there after half a second."""

    def connection_made(self, transport):
        self.transport = transport
        self.early = []
        asyncio.get_running_loop().call_later(0.5, self.begin)

    def begin(self):
        RefusesAtOnce.connection_made(self, self.transport)
        early, self.early = b"".join(self.early), None
        self.data_received(early)

    def data_received(self, data):
        if self.early is None:
            super().data_received(data)
        else:
            self.early.append(data)


async def test_a_grpc_backend_may_take_the_time_to_dial_until_it_is_connected(redis, tmp_path):
    server = await asyncio.get_running_loop().create_server(BeginsLate, "127.0.0.1", 0)
    backends = {"grpc": {"urls": [f"grpc://127.0.0.1:{server.sockets[0].getsockname()[1]}"], "dialTimeoutSeconds": 20}}
    async with server, all_transports(redis, tmp_path, backends=backends) as (relayer, _):
        outcome = await grpc_call(relayer.url, grpc_request(relayer, "/a.B/Echo", b"one").encode())
        assert (outcome.code, outcome.text) == (0, "")
        assert decode_http_response(decode_relay_response(outcome.body).payload).headers["Grpc-Status"] == ("16",)


async def test_a_grpc_backend_that_is_away_is_no_relay(redis, tmp_path):
    backends = {"grpc": {"urls": ["grpc://127.0.0.1:1"], "dialTimeoutSeconds": 1}}
    async with all_transports(redis, tmp_path, backends=backends) as (relayer, _):
        outcome = await grpc_call(relayer.url, grpc_request(relayer, "/a.B/Echo", b"one").encode())
        assert outcome.code == 14
        bare = relayer.world.signed(replace(relayer.request(), payload=HttpRequest("POST", "/a", {}, b"bare").encode()))
        assert (await http1(relayer.url, bare.encode(), {"Rpc-Type": "1"})).code == 400
        assert await relayer.leaves() == []


async def test_a_call_that_runs_when_its_relayer_drains_is_answered(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        relayer.backend.gate = asyncio.Event()
        running = asyncio.create_task(grpc_call(relayer.url, relayer.request().encode(), {"Rpc-Type": "3"}))
        await relayer.backend.asked.wait()
        draining = asyncio.create_task(relayer.http2.drain(5.0))
        await asyncio.sleep(0)
        relayer.backend.gate.set()
        assert (await running).body
        await draining
        await until(lambda: not relayer.http2.connections)


async def test_a_relay_that_is_being_admitted_finishes_with_the_configuration_it_began_with(redis, tmp_path):
    async with (
        grpc_backend() as (url, _),
        all_transports(redis, tmp_path, backends={"grpc": {"urls": [url]}}) as (relayer, _),
    ):
        first = await http1(relayer.url, grpc_envelope(relayer, ONE), {"Rpc-Type": "1"})
        assert first.code == 200
        backends = relayer.registry.get("eth")
        charged, gate = asyncio.Event(), asyncio.Event()
        charge = relayer.pipeline._meter.charge

        async def charge_later(*args):
            charged.set()
            await gate.wait()
            return await charge(*args)

        relayer.pipeline._meter.charge = charge_later
        running = asyncio.create_task(http1(relayer.url, grpc_envelope(relayer, ONE + ONE), {"Rpc-Type": "1"}))
        await charged.wait()
        assert backends.in_flight == 1
        relayer.registry.update([backends.service.model_copy(update={"max_body_bytes": 99_999})])
        gate.set()
        assert (await running).code == 200
        assert backends.in_flight == 0
