"""Streamed answers: signed pieces as they come, one relay."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from callers import grpc_call
from relays import listening, relaying
from shannon.crypto.ecdsa import signature_holds
from shannon.relays.envelope import decode_http_response
from shannon.relays.messages import decode_mined_relay, decode_relay_response
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
                assert signature_holds(
                    key("alice").public_key, response.signable_hash(), response.supplier_operator_signature
                )
            whole = b"".join(decode_http_response(response.payload).body for response in responses)
            assert whole == b"data: 1\n\ndata: 2\ndata: 3\nrest"
            (leaf,) = await relayer.leaves()
            assert decode_mined_relay(leaf)[1] == request
            assert await consumed(relayer) == 100


async def test_a_slow_stream_is_passed_on_while_its_next_line_does_not_come(redis, tmp_path):
    """A line is sent on after a tenth of a second, once another one follows: long before there are a hundred."""
    lines, sent = asyncio.Queue(), []

    async def slow(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while (line := await lines.get()) is not None:
            await response.write(line)
        return response

    def write_one():
        sent.append(b"data: %d\n" % len(sent))
        lines.put_nowait(sent[-1])

    async with listening(slow) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 30}}}
        async with relaying(redis, tmp_path, service=service) as relayer:
            write_one()
            async with relayer.http.post(relayer.url, data=relayer.request().encode()) as answer:
                first = asyncio.ensure_future(answer.content.readuntil(b"||POKT_STREAM||"))
                while not first.done() and len(sent) < 30:
                    write_one()
                    await asyncio.wait({first}, timeout=0.3)
                assert first.done(), f"nothing was passed on of {len(sent)} lines"
                assert await relayer.leaves() == [], "mined only when it is whole"
                lines.put_nowait(None)
                rest = (await answer.read()).split(b"||POKT_STREAM||")
            assert rest.pop() == b""
            pieces = [decode_relay_response(part) for part in (first.result().removesuffix(b"||POKT_STREAM||"), *rest)]
            assert b"".join(decode_http_response(piece.payload).body for piece in pieces) == b"".join(sent)
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
