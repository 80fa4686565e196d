"""Streamed answers: signed pieces as they come, one relay."""

import asyncio
import contextlib
import socket
import struct

import aiohttp
import pytest
from aiohttp import web
from h2.events import DataReceived, ResponseReceived

from callers import grpc_call
from hostile_clients import dial, held, post, until
from http2_client import Http2Client
from pocket.protocol.crypto.ecdsa import verify_signature
from pocket.protocol.relays.envelope import decode_http_response
from pocket.protocol.relays.messages import decode_mined_relay, decode_relay_response
from relays import listening, relaying
from transports import Stream, consumed
from world import key

pytestmark = pytest.mark.redis


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
                assert verify_signature(
                    key("alice").public_key, response.signable_hash(), response.supplier_operator_signature
                )
            whole = b"".join(decode_http_response(response.payload).body for response in responses)
            assert whole == b"data: 1\n\ndata: 2\ndata: 3\nrest"
            (leaf,) = await relayer.leaves()
            _, asked, mined, _ = decode_mined_relay(leaf)
            assert asked == request
            assert mined.payload_hash not in {response.payload_hash for response in responses}, "it is of the whole"
            assert verify_signature(key("alice").public_key, mined.signable_hash(), mined.supplier_operator_signature)
            assert await consumed(relayer) == 100


async def test_each_event_is_passed_on_before_the_next_one_and_mined_only_when_all_came(redis, tmp_path):
    gate = asyncio.Event()
    stream = Stream([b"data: 1\n", b"data: 2\n", b"data: 3\n"], gate)
    async with listening(stream.handle) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 10}}}
        async with relaying(redis, tmp_path, service=service) as relayer:
            async with relayer.http.post(relayer.url, data=relayer.request().encode()) as answer:
                assert answer.status == 200
                first = await answer.content.readuntil(b"||POKT_STREAM||")
                response = decode_relay_response(first.removesuffix(b"||POKT_STREAM||"))
                assert decode_http_response(response.payload).body == b"data: 1\n"
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


async def cut_http1(relayer, body, *, events):
    """Read the head of a stream, or its first events, then reset the connection."""
    reader, writer = await dial(relayer)
    writer.write(post(len(body)) + body)
    await reader.readuntil(b"||POKT_STREAM||" if events else b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def cut_http2(relayer, body, *, events):
    """Read the head of a stream, or its first events, then reset it."""
    client = await Http2Client.dial(relayer)
    number = client.begin()
    client.h2.send_data(number, body, end_stream=True)
    client.send()
    await client.read(lambda event: isinstance(event, DataReceived if events else ResponseReceived))
    client.h2.reset_stream(number, 8)
    client.send()
    await client.writer.drain()
    client.writer.close()


@pytest.mark.parametrize("cut", [cut_http1, cut_http2])
@pytest.mark.parametrize("events", [True, False])
async def test_what_a_client_received_before_it_left_is_charged_and_mined(redis, tmp_path, cut, events):
    gate = asyncio.Event()
    async with listening(Stream([b"data: 1\n" if events else b"", b"data: 2\n"], gate).handle) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 10}}}
        async with relaying(redis, tmp_path, service=service) as relayer:
            await cut(relayer, relayer.request().encode(), events=events)
            if cut is cut_http1:
                await until(lambda: not relayer.connections.open)
            gate.set()
            await until(lambda: not held(relayer))
            leaves = await relayer.leaves()
            await relayer.budgets.drain()
            assert len(leaves) == 1
            assert await consumed(relayer) == 100


LINES = [b"data: %4d\n" % number + bytes(190) for number in range(1000)]
LIMITS = {
    "deadline": ({"timeoutSeconds": 0.5}, {}, [b"data: 1\n", b"data: 2\n"]),
    "size of a body": (
        {},
        {"maxBodyBytes": 100_000},
        [b"".join(LINES[at : at + 50]) + b"\n" for at in range(0, 1000, 50)],
    ),
    "size of a line": ({}, {"maxBodyBytes": 1_000_000}, [b"data: 1\n", bytes(400_000)]),
}


@pytest.mark.parametrize(("backend", "service", "lines"), LIMITS.values(), ids=LIMITS)
async def test_what_was_sent_before_a_limit_of_ours_ended_a_stream_is_charged_and_mined(
    redis, tmp_path, backend, service, lines
):
    gate = asyncio.Event()
    if backend.get("timeoutSeconds") is None:
        gate.set()
    async with listening(Stream(lines, gate).handle) as url:
        backends = {"jsonRpc": {"urls": [url], "timeoutSeconds": 10, **backend}}
        async with relaying(redis, tmp_path, service=service | {"backends": backends}) as relayer:
            signed, reader, writer = relayer.request().encode(), *await dial(relayer)
            writer.write(post(len(signed)) + signed)
            with contextlib.suppress(ConnectionError):
                received = await asyncio.wait_for(reader.read(-1), 10)
            writer.close()
            assert not received.endswith(b"0\r\n\r\n"), "it is cut"
            await until(lambda: not held(relayer))
            gate.set()
            assert received.count(b"||POKT_STREAM||") >= 1
            assert len(await relayer.leaves()) == 1
            await relayer.budgets.drain()
            assert await consumed(relayer) == 100
            assert (await relayer.send(signed))[0] == 409, "the same signed request is not served again"


async def test_over_grpc_a_stream_is_one_answer(redis, tmp_path):
    async with listening(Stream([b"data: 1\n", b"data: 2\n"]).handle) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 10}}}
        async with relaying(redis, tmp_path, service=service) as relayer:
            outcome = await grpc_call(relayer.url, relayer.request().encode())
            body = decode_http_response(decode_relay_response(outcome.body).payload).body
            assert body == b"data: 1\ndata: 2\n"


async def test_over_grpc_a_stream_counts_as_memory(redis, tmp_path):
    async with listening(Stream([bytes(999) + b"\n" for _ in range(80)]).handle) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 10}}}
        for memory_bytes, served in ((200_000, False), (2_000_000, True)):
            async with relaying(redis, tmp_path, service=service, memory_bytes=memory_bytes) as relayer:
                outcome = await grpc_call(relayer.url, relayer.request(body=b"%d" % memory_bytes).encode())
                assert bool(outcome.body) is served
                assert held(relayer) == 0
