"""Every transport through real sockets and real clients: the same admission, metering, signing and ledger."""

import asyncio
import base64
import contextlib
from dataclasses import replace

import aiohttp
import grpc
import pytest
from aiohttp import web
from redis.asyncio import Redis

from callers import TRANSPORTS, grpc_call, grpc_web, http1, http2_raw, web_socket
from relayer import metrics
from relays import KEYS, listening, relaying
from shannon.crypto.ecdsa import signature_holds
from shannon.relays.envelope import HttpRequest, decode_http_response
from shannon.relays.messages import decode_mined_relay, decode_relay_response
from world import address, key

pytestmark = pytest.mark.redis
LABEL = {"http1": "http", "http2": "http", "grpc": "grpc", "grpc_web": "grpc_web", "websocket": "websocket"}


class Sockets:
    """A WebSocket backend: answers each frame, or pushes events when asked to `subscribe`."""

    def __init__(self):
        self.frames, self.headers, self.closed, self.push = [], [], asyncio.Event(), asyncio.Queue()
        self.code, self.subscribed = None, asyncio.Event()

    async def handle(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.headers.append(dict(request.headers))
        async for message in socket:
            self.frames.append((message.type, message.data))
            if message.data in ("subscribe", b"subscribe"):
                self.subscribed.set()
                while (event := await self.push.get()) is not None:
                    await socket.send_str(event)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str("echo " + message.data)
            else:
                await socket.send_bytes(b"echo " + message.data)
        self.code = socket.close_code
        self.closed.set()
        return socket


@contextlib.asynccontextmanager
async def all_transports(redis, folder, **options):
    sockets = Sockets()
    async with listening(sockets.handle) as url:
        backends = {"webSocket": {"urls": [url.replace("http", "ws")]}} | options.pop("backends", {})
        async with relaying(redis, folder, backends=backends, **options) as relayer:
            yield relayer, sockets


def count(transport, reason, service="eth"):
    return metrics.REJECTED.labels(service, LABEL[transport], reason)._value.get()


async def consumed(relayer, supplier="alice"):
    found = await relayer.redis.get(KEYS.consumed(address(supplier), relayer.header().session_id))
    return int(found or 0)


def framed(relayer, transport, **changes):
    """A signed relay: over WebSocket the payload is the frame itself."""
    request = relayer.request(**changes)
    if transport != "websocket":
        return request
    return resigned(relayer, replace(request, payload=b"ping"))


def resigned(relayer, request):
    return relayer.world.signed(request)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_relay_of_every_transport_is_served_signed_charged_and_mined_once(redis, tmp_path, transport):
    async with all_transports(redis, tmp_path) as (relayer, _):
        request = framed(relayer, transport)
        outcome = await TRANSPORTS[transport](relayer.url, request.encode())
        assert outcome.body, outcome
        response = decode_relay_response(outcome.body)
        assert signature_holds(key("alice").public_key, response.signable_hash(), response.supplier_operator_signature)
        (leaf,) = await relayer.leaves()
        _, mined_request, mined_response, _ = decode_mined_relay(leaf)
        assert mined_request == request
        assert mined_response == response.without_payload()
        assert await consumed(relayer) == 100


def forged(relayer, transport):
    return replace(framed(relayer, transport), signature=resigned(relayer, relayer.request(body=b"other")).signature)


def of_a_stranger(relayer, transport):
    return replace(framed(relayer, transport), supplier_operator_address=address("nobody"))


def without_supplier(relayer, transport):
    return replace(framed(relayer, transport), supplier_operator_address="")


def with_absurd_heights(relayer, transport):
    request = framed(relayer, transport)
    return replace(request, header=replace(request.header, session_end_block_height=10**9))


def with_a_forged_start(relayer, transport):
    request = framed(relayer, transport)
    header = replace(request.header, session_id="0" * 64)
    return resigned(relayer, replace(request, header=header))


def after_the_grace_period(relayer, transport):
    request = framed(relayer, transport)
    relayer.height[0] = 1000
    return request


def unsigned(relayer, transport):
    return replace(framed(relayer, transport), signature=b"")


def of_an_unstaked_supplier(relayer, transport):
    relayer.keys[address("carol")] = key("carol")
    return resigned(relayer, replace(framed(relayer, transport), supplier_operator_address=address("carol")))


REFUSALS = {
    "invalid_signature": (forged, 403, 7, 4001),
    "supplier_not_found": (of_a_stranger, 503, 9, 4001),
    "supplier_missing": (without_supplier, 400, 3, 4001),
    "implausible_heights": (with_absurd_heights, 400, 3, 4001),
    "session_mismatch": (with_a_forged_start, 403, 7, 4001),
    "session_expired": (after_the_grace_period, 403, 7, 4000),
    "invalid_request": (unsigned, 400, 3, 4001),
    "supplier_inactive": (of_an_unstaked_supplier, 503, 9, 4001),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("reason", REFUSALS)
async def test_every_transport_refuses_alike_and_nothing_is_asked_charged_or_mined(redis, tmp_path, transport, reason):
    make, http_status, grpc_status, close_code = REFUSALS[reason]
    async with all_transports(redis, tmp_path) as (relayer, sockets):
        request = make(relayer, transport)
        before = count(transport, reason)
        outcome = await TRANSPORTS[transport](relayer.url, request.encode())
        wanted = {"http": http_status, "grpc": grpc_status, "grpc_web": grpc_status, "websocket": close_code}
        assert outcome.code == wanted[LABEL[transport]], outcome
        assert count(transport, reason) == before + 1
        assert (relayer.backend.requests, sockets.frames) == ([], [])
        assert await consumed(relayer) == 0
        assert await relayer.leaves() == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_no_relay_request_is_refused_by_every_transport(redis, tmp_path, transport):
    async with all_transports(redis, tmp_path) as (relayer, sockets):
        outcome = await TRANSPORTS[transport](relayer.url, b'{"x":1}')
        assert outcome.code == {"http": 400, "grpc": 3, "grpc_web": 3, "websocket": 4001}[LABEL[transport]]
        assert (relayer.backend.requests, sockets.frames) == ([], [])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_replayed_request_is_refused_by_every_transport(redis, tmp_path, transport):
    async with all_transports(redis, tmp_path) as (relayer, _):
        request = framed(relayer, transport)
        assert (await TRANSPORTS[transport](relayer.url, request.encode())).body
        relayer.backend.answer = (200, {}, b"another answer, so another leaf")
        again = await TRANSPORTS[transport](relayer.url, request.encode())
        assert again.code == {"http": 409, "grpc": 6, "grpc_web": 6, "websocket": 4001}[LABEL[transport]]
        assert len(await relayer.leaves()) == 1
        assert await consumed(relayer) == 100


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_beyond_the_budget_of_the_session_every_transport_refuses(redis, tmp_path, transport):
    # 10^12 upokt of stake * 25 / 10^10: two relays of 100 upokt fit, the third does not.
    async with all_transports(redis, tmp_path, service={"serviceFactor": 0.00000000025}) as (relayer, _):
        outcomes = [
            await TRANSPORTS[transport](relayer.url, framed(relayer, transport, body=b"%d" % n).encode())
            for n in range(3)
        ]
        assert outcomes[1].body
        assert outcomes[2].code == {"http": 429, "grpc": 8, "grpc_web": 8, "websocket": 4002}[LABEL[transport]]
        assert "session relay limit reached" in outcomes[2].text
        assert len(await relayer.leaves()) == 2
        assert await consumed(relayer) == 200


async def test_what_the_backend_did_not_serve_is_not_charged_and_may_come_again(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        request = relayer.request()
        relayer.backend.answer = (503, {}, b"")
        assert (await http1(relayer.url, request.encode())).code == 503
        await relayer.budgets.drain()
        assert await consumed(relayer) == 0
        relayer.backend.answer = (200, {}, b"{}")
        assert (await http1(relayer.url, request.encode())).code == 200
        assert await consumed(relayer) == 100


async def test_a_session_is_charged_exactly_to_its_budget_by_many_at_once(redis, tmp_path):
    async with all_transports(redis, tmp_path, service={"serviceFactor": 0.000000001}) as (relayer, _):
        sent = [http1(relayer.url, relayer.request(body=b"%d" % n).encode()) for n in range(30)]
        codes = sorted(outcome.code for outcome in await asyncio.gather(*sent))
        assert codes == [200] * 10 + [429] * 20
        assert await consumed(relayer) == 1000
        assert len(await relayer.leaves()) == 10


@pytest.mark.parametrize(
    ("policy", "code", "leaves"), [("refuse", 409, 1), ("serve-unpaid", 200, 1), ("serve", 200, 2)]
)
async def test_replays_follow_the_policy_of_the_service(redis, tmp_path, policy, code, leaves):
    async with all_transports(redis, tmp_path, service={"replays": policy}) as (relayer, _):
        body = relayer.request().encode()
        await http1(relayer.url, body)
        relayer.backend.answer = (200, {}, b"varied")
        assert (await http1(relayer.url, body)).code == code
        assert len(await relayer.leaves()) == leaves


@pytest.mark.parametrize(("limits", "reason", "code"), [
    ({"applications": {"deny": [address("app eth")]}}, "application_refused", 403),
    ({"applications": {"allow": [address("somebody")]}}, "application_refused", 403),
    ({"rateLimit": {"relaysPerSecond": 1}}, "rate_limited", 429),
])  # fmt: skip
async def test_applications_can_be_denied_and_slowed_down(redis, tmp_path, limits, reason, code):
    async with all_transports(redis, tmp_path, service=limits) as (relayer, _):
        before = count("http1", reason)
        outcomes = [await http1(relayer.url, relayer.request(body=b"%d" % n).encode()) for n in range(2)]
        assert outcomes[1].code == code
        assert count("http1", reason) > before


@pytest.mark.parametrize(("behaviour", "code"), [(True, 503), (False, 503)])
async def test_without_redis_nothing_is_answered_that_could_not_be_recorded(redis, tmp_path, behaviour, code):
    async with all_transports(redis, tmp_path, open_when_unavailable=behaviour) as (relayer, _):
        assert (await http1(relayer.url, relayer.request(body=b"warm").encode())).code == 200
        await redis.execute_command("CLIENT", "PAUSE", "3000", "ALL")
        assert (await http1(relayer.url, relayer.request(body=b"x").encode())).code == code
        assert len(relayer.backend.requests) == (2 if behaviour else 1), "closed: not even the backend is asked"
        place = redis.connection_pool.connection_kwargs
        async with Redis(host=place["host"], port=place["port"], socket_timeout=10) as patient:
            await patient.ping()  # once the pause is over


# --- HTTP/2, gRPC, gRPC-Web ----------------------------------------------------------------------------------------


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


async def test_many_grpc_calls_share_a_connection(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        async with grpc.aio.insecure_channel(relayer.url.removeprefix("http://")) as channel:
            call = channel.unary_unary("/pocket.service.RelayService/SendRelay")
            bodies = [relayer.request(body=b"%d" % n).encode() for n in range(100)]
            answers = await asyncio.gather(*(call(body, timeout=20) for body in bodies))
        assert len(answers) == len(await relayer.leaves()) == 100


async def test_grpc_web_text_and_preflight_are_answered_for_any_origin(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        assert (await grpc_web(relayer.url, relayer.request().encode(), text=True)).body
        wanted = {"Origin": "http://page", "Access-Control-Request-Headers": "x-grpc-web,content-type"}
        async with relayer.http.options(relayer.url + "/pocket.service.RelayService/SendRelay", headers=wanted) as got:
            assert (got.status, got.headers["Access-Control-Allow-Origin"]) == (204, "*")


class Echo(grpc.GenericRpcHandler):
    """A gRPC backend: answers each message twice, with metadata and trailers; /fail refuses."""

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
    return resigned(relayer, replace(relayer.request(), payload=envelope.encode()))


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


async def test_a_grpc_backend_that_is_away_is_no_relay(redis, tmp_path):
    backends = {"grpc": {"urls": ["grpc://127.0.0.1:1"], "dialTimeoutSeconds": 1}}
    async with all_transports(redis, tmp_path, backends=backends) as (relayer, _):
        outcome = await grpc_call(relayer.url, grpc_request(relayer, "/a.B/Echo", b"one").encode())
        assert outcome.code == 14
        bare = resigned(relayer, replace(relayer.request(), payload=HttpRequest("POST", "/a", {}, b"bare").encode()))
        assert (await http1(relayer.url, bare.encode(), {"Rpc-Type": "1"})).code == 400
        assert await relayer.leaves() == []


# --- WebSocket -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def connected(relayer, **headers):
    async with relayer.http.ws_connect(
        relayer.url, headers={"Target-Service-Id": "eth", **headers}, decode_text=False
    ) as socket:
        yield socket


def frame(relayer, payload, **changes):
    return resigned(relayer, replace(relayer.request(**changes), payload=payload))


async def test_events_of_a_subscription_are_relays_of_its_request_and_keep_their_frame_type(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, sockets), connected(relayer) as socket:
        request = frame(relayer, b"subscribe")
        await socket.send_frame(request.encode(), aiohttp.WSMsgType.TEXT)
        for n in range(5):
            sockets.push.put_nowait(f"event {n}")
            message = await socket.receive(5)
            assert message.type is aiohttp.WSMsgType.TEXT
            assert decode_relay_response(message.data).payload == b"event %d" % n
        assert sockets.frames == [(aiohttp.WSMsgType.TEXT, "subscribe")]
        assert sockets.headers[0]["Pocket-Supplier"] == address("alice")
        assert len(await relayer.leaves()) == 5
        assert await consumed(relayer) == 500, "charged per mined relay"
        sockets.push.put_nowait(None)


async def test_binary_frames_stay_binary_and_unanswered_requests_are_not_charged(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, sockets):
        async with connected(relayer) as socket:
            await socket.send_bytes(frame(relayer, b"\xff\x00").encode())
            message = await socket.receive(5)
            assert decode_relay_response(message.data).payload == b"echo \xff\x00"
            await socket.send_bytes(frame(relayer, b"subscribe").encode())
            await asyncio.wait_for(sockets.subscribed.wait(), 5)
        sockets.push.put_nowait(None)
        await sockets.closed.wait()
        await relayer.budgets.drain()
        assert await consumed(relayer) == 100


async def test_at_the_end_of_the_session_comes_the_signed_advice_then_4000(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, sockets), connected(relayer) as socket:
        await socket.send_bytes(frame(relayer, b"ping").encode())
        await socket.receive(5)
        relayer.height[0] = relayer.header().session_end_block_height + 2
        advice = decode_relay_response((await socket.receive(5)).data)
        assert advice.relay_miner_error.code == 410
        assert signature_holds(key("alice").public_key, advice.signable_hash(), advice.supplier_operator_signature)
        await socket.receive(5)
        assert socket.close_code == 4000
        await sockets.closed.wait()
        assert sockets.code == 1001, "backends see standard codes only"
        assert len(await relayer.leaves()) == 1, "the advice is no relay"


async def test_a_frame_that_is_no_relay_closes_with_4001_and_never_reaches_the_backend(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, sockets), connected(relayer) as socket:
        await socket.send_str("hello")
        await socket.receive(5)
        assert socket.close_code == 4001
        assert (sockets.frames, sockets.headers) == ([], [])


async def test_a_close_of_the_backend_reaches_the_gateway_with_code_and_text(redis, tmp_path):
    async def bye(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        await socket.close(code=3456, message=b"enough")
        return socket

    async with listening(bye) as url:
        backends = {"webSocket": {"urls": [url.replace("http", "ws")]}}
        async with relaying(redis, tmp_path, backends=backends) as relayer, connected(relayer) as socket:
            await socket.send_bytes(frame(relayer, b"x").encode())
            message = await socket.receive(5)
            assert (socket.close_code, message.extra) == (3456, "enough")


async def test_a_backend_that_cannot_be_reached_closes_with_4003(redis, tmp_path):
    backends = {"webSocket": {"urls": ["ws://127.0.0.1:1"]}}
    async with relaying(redis, tmp_path, backends=backends) as relayer:
        assert (await web_socket(relayer.url, frame(relayer, b"x").encode())).code == 4003
        await relayer.budgets.drain()
        assert await consumed(relayer) == 0


@pytest.mark.parametrize(("service", "backends", "code"), [
    ("", True, 404), ("base", True, 404), ("eth", False, 503),
])  # fmt: skip
async def test_an_upgrade_that_cannot_be_served_is_refused_before_it(redis, tmp_path, service, backends, code):
    made = all_transports(redis, tmp_path) if backends else relaying(redis, tmp_path)
    async with made as entered:
        relayer = entered[0] if backends else entered
        url = relayer.url + ("/nothing" if not service else "")
        assert (await web_socket(url, b"", {"Target-Service-Id": service})).code == code


@pytest.mark.parametrize(("tampered", "code"), [(False, 0), (True, 403)])
async def test_a_signed_handshake_is_verified_where_that_is_asked_for(redis, tmp_path, tampered, code):
    async with all_transports(redis, tmp_path, enforce_handshake=True) as (relayer, _):
        signed = resigned(relayer, replace(relayer.request(), payload=b""))
        header = signed.header
        headers = {
            "App-Address": header.application_address, "Pocket-Session-Id": header.session_id,
            "Pocket-Session-Start-Height": str(header.session_start_block_height),
            "Pocket-Session-End-Height": str(header.session_end_block_height),
            "Pocket-Supplier-Address": address("bob" if tampered else "alice"),
            "Pocket-Signature": base64.b64encode(signed.signature).decode(),
        }  # fmt: skip
        assert (await web_socket(relayer.url, frame(relayer, b"x").encode(), headers)).code == code


# --- streams -------------------------------------------------------------------------------------------------------


class Stream:
    def __init__(self, lines, gate=None, kind="text/event-stream"):
        self.lines, self.gate, self.kind = lines, gate, kind

    async def handle(self, request):
        response = web.StreamResponse(headers={"Content-Type": self.kind})
        await response.prepare(request)
        for number, line in enumerate(self.lines):
            if self.gate is not None and number:
                await self.gate.wait()
            await response.write(line)
        return response


@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", "application/x-ndjson"])
async def test_a_stream_comes_in_signed_pieces_as_it_is_made_and_is_one_relay(redis, tmp_path, kind):
    gate = asyncio.Event()
    stream = Stream([b"data: 1\n\ndata: 2\n", b"data: 3\n", b"rest"], gate, kind)
    async with listening(stream.handle) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 10}}}
        async with relaying(redis, tmp_path, service=service) as relayer:
            request = relayer.request()
            async with relayer.http.post(relayer.url, data=request.encode()) as answer:
                assert answer.headers["Content-Type"] == kind
                gate.set()
                parts = (await answer.read()).split(b"||POKT_STREAM||")
            assert parts.pop() == b""
            responses = [decode_relay_response(part) for part in parts]
            for response in responses:
                assert signature_holds(
                    key("alice").public_key, response.signable_hash(), response.supplier_operator_signature
                )
            whole = b"".join(decode_http_response(response.payload).body for response in responses)
            assert whole == b"data: 1\n\ndata: 2\ndata: 3\nrest"
            (leaf,) = await relayer.leaves()
            assert decode_mined_relay(leaf)[1] == request
            assert await consumed(relayer) == 100


async def test_a_slow_stream_is_flushed_in_time_though_its_next_line_does_not_come(redis, tmp_path):
    gate = asyncio.Event()
    stream = Stream([b"data: 1\n", b"data: 2\n", b"data: 3\n"], gate)
    async with listening(stream.handle) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 10}}}
        async with relaying(redis, tmp_path, service=service) as relayer:
            async with relayer.http.post(relayer.url, data=relayer.request().encode()) as answer:
                assert answer.status == 200
                assert await relayer.leaves() == [], "mined only when it is whole"
                gate.set()
                await answer.read()
            assert len(await relayer.leaves()) == 1


async def test_a_stream_that_breaks_is_cut_and_neither_mined_nor_charged(redis, tmp_path):
    async def broken(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"data: 1\n")
        request.transport.abort()
        return response

    async with listening(broken) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 10}}}
        async with relaying(redis, tmp_path, service=service) as relayer:
            with pytest.raises(aiohttp.ClientError):
                async with relayer.http.post(relayer.url, data=relayer.request().encode()) as answer:
                    await answer.read()
            await relayer.budgets.drain()
            assert await consumed(relayer) == 0
            assert await relayer.leaves() == []


async def test_over_grpc_a_stream_is_one_answer(redis, tmp_path):
    async with listening(Stream([b"data: 1\n", b"data: 2\n"]).handle) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 10}}}
        async with relaying(redis, tmp_path, service=service) as relayer:
            outcome = await grpc_call(relayer.url, relayer.request().encode())
            body = decode_http_response(decode_relay_response(outcome.body).payload).body
            assert body == b"data: 1\ndata: 2\n"
