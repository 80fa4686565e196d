"""WebSocket bridges: relays frame by frame, events, close codes, session end."""

import asyncio
import base64
import contextlib
import functools
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from callers import web_socket
from hostile_clients import until
from pocket.protocol.crypto.ecdsa import verify_signature
from pocket.protocol.relays.messages import decode_relay_response
from pocket_relayer.transports.websocket import _WEB_SOCKET_BYTES
from relays import listening, relaying
from transports import Sockets, all_transports, connected, consumed, frame
from world import address, key

pytestmark = pytest.mark.redis


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


@pytest.mark.parametrize("end", ["client", "garbage", "relayer"])
async def test_unanswered_requests_are_charged_if_their_client_ends_the_connection(redis, tmp_path, end):
    async with all_transports(redis, tmp_path) as (relayer, sockets):
        async with connected(relayer) as socket:
            await socket.send_bytes(frame(relayer, b"\xff\x00").encode())
            message = await socket.receive(5)
            assert decode_relay_response(message.data).payload == b"echo \xff\x00", "binary frames stay binary"
            await socket.send_bytes(frame(relayer, b"subscribe").encode())
            await asyncio.wait_for(sockets.subscribed.wait(), 5)
            if end == "garbage":
                await socket.send_bytes(b"no relay")
            if end == "relayer":
                relayer.sockets.close_all()
            if end != "client":
                assert (await socket.receive(5)).type is aiohttp.WSMsgType.CLOSE
        sockets.push.put_nowait(None)
        await sockets.closed.wait()
        await relayer.budgets.drain()
        assert await consumed(relayer) == (100 if end == "relayer" else 200)


async def test_at_the_end_of_the_session_comes_the_signed_advice_then_4000(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, sockets), connected(relayer) as socket:
        await socket.send_bytes(frame(relayer, b"ping").encode())
        await socket.receive(5)
        relayer.height[0] = relayer.header().session_end_block_height + 2
        advice = decode_relay_response((await socket.receive(5)).data)
        assert advice.relay_miner_error.code == 410
        assert verify_signature(key("alice").public_key, advice.signable_hash(), advice.supplier_operator_signature)
        await socket.receive(5)
        assert socket.close_code == 4000
        await sockets.closed.wait()
        assert sockets.code == 1001, "backends see standard codes only"
        assert len(await relayer.leaves()) == 1, "the advice is no relay"


async def test_a_relayer_that_stops_tells_its_connections_to_move(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, sockets), connected(relayer) as socket:
        await socket.send_bytes(frame(relayer, b"ping").encode())
        await socket.receive(5)
        relayer.sockets.close_all()
        message = await socket.receive(5)
        assert (socket.close_code, message.extra) == (1001, "this relayer is shutting down: connect again")
        await sockets.closed.wait()
        assert len(await relayer.leaves()) == 1


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


def signed_handshake(relayer, *, tampered):
    """Return the headers of a signed handshake, which name another supplier if it is tampered with."""
    signed = relayer.world.signed(replace(relayer.request(), payload=b""))
    header = signed.header
    return {
        "App-Address": header.application_address, "Pocket-Session-Id": header.session_id,
        "Pocket-Session-Start-Height": str(header.session_start_block_height),
        "Pocket-Session-End-Height": str(header.session_end_block_height),
        "Pocket-Supplier-Address": address("bob" if tampered else "alice"),
        "Pocket-Signature": base64.b64encode(signed.signature).decode(),
    }  # fmt: skip


@pytest.mark.parametrize(("tampered", "code"), [(False, 0), (True, 403)])
async def test_a_signed_handshake_is_verified_where_that_is_asked_for(redis, tmp_path, tampered, code):
    async with all_transports(redis, tmp_path, enforce_handshake=True) as (relayer, _):
        headers = signed_handshake(relayer, tampered=tampered)
        assert (await web_socket(relayer.url, frame(relayer, b"x").encode(), headers)).code == code


async def test_a_response_is_charged_to_the_budget_it_is_mined_for(redis, tmp_path):
    async def answers_at_the_end(request):
        backend, waiting = web.WebSocketResponse(), 0
        await backend.prepare(request)
        async for message in backend:
            waiting += 1
            for number in range(waiting if message.data == b"go" else 0):
                await backend.send_bytes(b"answer %d" % number)
        return backend

    async with listening(answers_at_the_end) as url:
        backends = {"webSocket": {"urls": [url.replace("http", "ws")]}}
        async with relaying(redis, tmp_path, backends=backends) as relayer:
            relayer.keys[address("bob")] = key("bob")
            async with connected(relayer) as socket:
                for number in range(4):
                    await socket.send_bytes(frame(relayer, b"q%d" % number, supplier=address("alice")).encode())
                await socket.send_bytes(frame(relayer, b"go", supplier=address("bob")).encode())
                for _ in range(5):
                    assert (await socket.receive(10)).type is aiohttp.WSMsgType.BINARY
                leaves = [len(await relayer.leaves(supplier=address(name))) for name in ("alice", "bob")]
                await relayer.budgets.drain()
                charges = [await consumed(relayer, name) // 100 for name in ("alice", "bob")]
            assert charges == leaves == [0, 5]


async def both(sockets, request):
    """Answer requests and WebSockets at one address, as most nodes do."""
    if "Upgrade" in request.headers:
        return await sockets.handle(request)
    return web.json_response({"ok": True})


async def echoed(socket, relayer, payload):
    await socket.send_bytes(frame(relayer, payload).encode())
    message = await socket.receive(10)
    return message.type is aiohttp.WSMsgType.BINARY


@pytest.mark.parametrize("plain", [True, False], ids=["own client", "aiohttp, which serves TLS"])
async def test_open_web_sockets_take_no_connection_from_relays_of_the_same_host(redis, tmp_path, plain):
    sockets = Sockets()
    async with listening(functools.partial(both, sockets)) as url:
        limits = {"maxConnections": 3, "dialTimeoutSeconds": 0.3, "unhealthyThreshold": 1, "maxRetries": 0}
        backends = {name: {"urls": [url], **limits} for name in ("jsonRpc", "rest")}
        backends["webSocket"] = {"urls": [url.replace("http", "ws")]}
        async with relaying(redis, tmp_path, backends=backends) as relayer:
            if not plain:
                clients = relayer.registry.get("eth")
                clients.http = replace(clients.http, plain=None)
            async with contextlib.AsyncExitStack() as stack:
                for number in range(5):
                    socket = await stack.enter_async_context(connected(relayer))
                    assert await echoed(socket, relayer, b"%d" % number)
                assert (await relayer.send(relayer.request()))[0] == 200


async def test_a_web_socket_beyond_the_limit_is_overload_and_no_failure_of_the_endpoint(redis, tmp_path):
    async with listening(Sockets().handle) as url:
        limits = {"maxConnections": 4, "dialTimeoutSeconds": 0.3, "unhealthyThreshold": 1}
        backends = {"webSocket": {"urls": [url.replace("http", "ws")], **limits}}
        await one_too_many(redis, tmp_path, backends)


async def one_too_many(redis, folder, backends):
    async with relaying(redis, folder, backends=backends) as relayer:
        async with contextlib.AsyncExitStack() as stack:
            held = [await stack.enter_async_context(connected(relayer)) for _ in range(3)]
            for number, socket in enumerate(held):
                assert await echoed(socket, relayer, b"%d" % number)
            async with connected(relayer) as socket:
                assert not await echoed(socket, relayer, b"one more of this application")
                assert socket.close_code == 1013
            await relayer.budgets.drain()
            assert await consumed(relayer) == 300, "what was not forwarded is not charged"
            assert relayer.registry.get("eth").state()["healthy"] == relayer.registry.get("eth").state()["total"]
        async with connected(relayer) as socket:
            assert await echoed(socket, relayer, b"after they closed")


async def test_handshakes_with_bad_signatures_cannot_fill_the_log_where_they_are_not_refused(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        headers = signed_handshake(relayer, tampered=True)
        with capture_logs() as logs:
            for _ in range(20):
                async with connected(relayer, **headers):
                    pass
        written = [line for line in logs if line["event"] == "handshake not verified"]
        assert 0 < len(written) <= 12
        assert (await relayer.send(relayer.request()))[0] == 200


async def test_a_web_socket_counts_as_memory_and_is_refused_without_room_for_it(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        async with connected(relayer) as socket:
            await socket.send_bytes(frame(relayer, b"ping").encode())
            await socket.receive(5)
            assert relayer.connections.occupied == _WEB_SOCKET_BYTES
            relayer.memory.limit = 3 * _WEB_SOCKET_BYTES
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await relayer.http.ws_connect(relayer.url, headers={"Target-Service-Id": "eth"})
            assert refused.value.status == 503
            await socket.send_bytes(frame(relayer, b"again").encode())
            assert (await socket.receive(5)).type is aiohttp.WSMsgType.BINARY
        await until(lambda: not relayer.connections.occupied)
