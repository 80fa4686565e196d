"""Clients that would use up a worker: what they send, leave unfinished, or do not read. Paying relays go on."""

import asyncio
import contextlib
import gc
import gzip
import io
import tracemalloc
import zlib
from urllib.parse import urlsplit

import aiohttp
import grpc
import pytest

from callers import METHOD
from hostile_clients import LARGE, MIB, SHORT_TIMEOUTS, dial, held, post, served, until
from http2_client import CONTINUATION, DATA, END_HEADERS, HEADERS, POST, SETTINGS, raw_frame
from pocket.api.relayminer import ConnectionLimits
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from relays import relaying
from transports import all_transports, connected, frame

pytestmark = pytest.mark.redis


@contextlib.asynccontextmanager
async def unfinished(relayer, number, size):
    """Open connections that sent `size` bytes of a body and keep the rest."""
    writers = []
    try:
        for _ in range(number):
            _, writer = await dial(relayer)
            writers.append(writer)
            writer.write(post(size + 1000) + bytes(size))
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        yield writers
    finally:
        for writer in writers:
            writer.close()


async def test_aborted_uploads_leave_nothing_behind_though_no_garbage_is_collected(redis, tmp_path):
    async with relaying(redis, tmp_path, service=LARGE) as relayer:
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(5):
                async with unfinished(relayer, 4, MIB) as writers:
                    await until(lambda: held(relayer) >= 3 * MIB)
                    for writer in writers:
                        writer.transport.abort()
                await until(lambda: held(relayer) == 0)
            await until(lambda: relayer.connections.open == 0)
            assert tracemalloc.get_traced_memory()[0] - before < 4 * MIB
        finally:
            tracemalloc.stop()
            gc.enable()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + raw_frame(SETTINGS, 0, b"")
UNFINISHED = {
    "an HTTP/2 connection": PREFACE,
    "an HTTP/2 header block": PREFACE + raw_frame(HEADERS, 1, POST) + raw_frame(CONTINUATION, 1, bytes(16_000)) * 15,
    "an HTTP/2 frame": PREFACE + raw_frame(HEADERS, 1, POST, END_HEADERS) + raw_frame(DATA, 1, bytes(16_000))[:-1],
    "an HTTP/2 stream": PREFACE + raw_frame(HEADERS, 1, POST, END_HEADERS) + raw_frame(DATA, 1, bytes(16_000)) * 3,
    "an HTTP/1.1 head": b"GET /health HTTP/1.1\r\nHost: relayer\r\nX: " + b"y" * 8000,
    "an HTTP/1.1 body": post(300_000) + bytes(250_000),
}


@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=UNFINISHED)
async def test_what_a_connection_holds_is_counted_and_goes_with_it_though_no_garbage_is_collected(
    redis, tmp_path, sent
):
    async with relaying(redis, tmp_path, service=LARGE) as relayer:

        async def connections(number):
            writers = [(await dial(relayer))[1] for _ in range(number)]
            for writer in writers:
                writer.write(sent)
                await writer.drain()
            await until(lambda: held(relayer) >= number * (len(sent) - 8000))
            for writer in writers:
                writer.transport.abort()
            await until(lambda: relayer.connections.open == 0 == held(relayer))

        await connections(4)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            await connections(20)
            most = 20 * 12 * 1024  # each connection of the test itself leaves 6 KiB
            await until(lambda: tracemalloc.get_traced_memory()[0] < most)
        finally:
            tracemalloc.stop()
            gc.enable()


@pytest.mark.parametrize("number", [1, 20])
async def test_header_blocks_without_an_end_make_room_for_relays(redis, tmp_path, number):
    async with relaying(redis, tmp_path, memory_bytes=2 * MIB) as relayer:
        block = PREFACE + raw_frame(HEADERS, 1, POST) + raw_frame(CONTINUATION, 1, bytes(16_000)) * 60
        writers = [(await dial(relayer))[1] for _ in range(number)]
        for writer in writers:
            writer.write(block)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        assert await served(relayer)
        for writer in writers:
            await until(writer.transport.is_closing)


async def test_unfinished_bodies_make_room_for_a_relay_of_the_same_address(redis, tmp_path):
    async with relaying(redis, tmp_path, service=LARGE, memory_bytes=32 * MIB) as relayer:
        async with unfinished(relayer, 12, 4 * MIB):
            await until(lambda: held(relayer) > 8 * MIB)
            for number in range(5):
                assert await served(relayer, body=b"%d" % number * 900_000)
            assert held(relayer) <= 32 * MIB
        await until(lambda: held(relayer) == 0)


async def test_a_body_that_stands_still_is_refused_in_time(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=SHORT_TIMEOUTS) as relayer:
        reader, writer = await dial(relayer)
        writer.write(post(5000) + bytes(100))
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()
        await until(lambda: held(relayer) == 0)


def bomb(size):
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "packed", "status"),
    [
        ("gzip", gzip.compress, 200),
        ("gzip", lambda relay: b"no gzip at all", 400),
        ("gzip", lambda relay: gzip.compress(relay)[:-9], 400),
        ("gzip", lambda relay: gzip.compress(relay) + b"more", 400),
        ("gzip", lambda relay: bomb(64 * MIB), 413),
        ("gzip", lambda relay: bytes(200_000), 413),
        ("br", lambda relay: relay, 415),
        ("deflate", zlib.compress, 415),
    ],
)
async def test_a_packed_request_is_unpacked_within_its_limit_or_refused(redis, tmp_path, encoding, packed, status):
    async with relaying(redis, tmp_path) as relayer:
        body = packed(relayer.request().encode())
        answer = await relayer.send(body, {"Content-Encoding": encoding})
        assert answer[0] == status
        await until(lambda: held(relayer) == 0)
        assert await served(relayer, body=b"after")


@pytest.mark.parametrize(
    ("packed", "code"), [(gzip.compress, 0), (lambda relay: b"no gzip", 3), (lambda relay: bomb(64 * MIB), 8)]
)
async def test_a_packed_grpc_message_is_unpacked_within_its_limit_or_refused(redis, tmp_path, packed, code):
    async with relaying(redis, tmp_path) as relayer:
        message = packed(relayer.request().encode())
        framed = b"\1" + len(message).to_bytes(4, "big") + message
        sent = {"Content-Type": "application/grpc-web", "grpc-encoding": "gzip"}
        async with relayer.http.post(relayer.url + METHOD, data=framed, headers=sent) as answer:
            assert b"grpc-status: %d\r\n" % code in await answer.read()
        await until(lambda: held(relayer) == 0)


async def test_a_packed_body_that_goes_on_after_its_refusal_is_not_unpacked(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        packed = bomb(400 * MIB)
        tracemalloc.start()
        try:
            async with relayer.http.post(
                relayer.url, data=io.BytesIO(packed), headers={"Content-Encoding": "gzip"}
            ) as answer:
                assert answer.status == 413
            assert tracemalloc.get_traced_memory()[1] < 20 * MIB
        finally:
            tracemalloc.stop()


async def test_answers_that_nobody_reads_are_held_once_and_dropped(redis, tmp_path):
    async with relaying(redis, tmp_path, service=LARGE, timeouts=SHORT_TIMEOUTS, memory_bytes=64 * MIB) as relayer:
        relayer.backend.answer = (200, {"Content-Type": "application/json"}, bytes(6 * MIB))
        dropped = []
        for number in range(6):
            body = relayer.request(body=b"%d" % number).encode()
            reader, writer = await dial(relayer, limit=1024)
            writer.write(post(len(body)) + body)
            dropped.append((reader, writer))
        await until(lambda: len(relayer.backend.requests) == 6)
        await until(lambda: relayer.connections.open <= 1)
        await until(lambda: held(relayer) == 0)
        for _, writer in dropped:
            writer.close()


@pytest.mark.parametrize("number", [1, 3])
async def test_a_client_that_closed_its_half_is_answered_all_it_asked(redis, tmp_path, number):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.gate = asyncio.Event()
        reader, writer = await dial(relayer)
        for n in range(number):
            body = relayer.request(body=b"%d" % n).encode()
            writer.write(post(len(body)) + body)
        writer.write_eof()
        await relayer.backend.asked.wait()
        relayer.backend.gate.set()
        answers = await asyncio.wait_for(reader.read(), 10)
        assert answers.count(b"HTTP/1.1 200 OK") == number
        writer.close()


async def test_half_a_body_and_a_closed_half_end_the_connection(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        writer.write(post(5000) + bytes(100))
        await until(lambda: held(relayer) > 100)
        writer.write_eof()
        assert not (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200")
        writer.close()
        await until(lambda: held(relayer) == 0)


async def test_connections_without_a_relay_make_place_for_newcomers(redis, tmp_path):
    limits = ConnectionLimits(total=16, per_address=8)
    async with relaying(redis, tmp_path, limits=limits) as relayer:
        paying = await dial(relayer)
        body = relayer.request(body=b"first").encode()
        paying[1].write(post(len(body)) + body)
        assert (await paying[0].readline()).startswith(b"HTTP/1.1 200")
        strangers = [await dial(relayer) for _ in range(30)]
        assert await served(relayer)
        assert relayer.connections.open <= 8
        body = relayer.request(body=b"second").encode()
        paying[1].write(post(len(body)) + body)
        assert b"HTTP/1.1 200" in await paying[0].readuntil(b"HTTP/1.1 200")
        for _, writer in [paying, *strangers]:
            writer.close()


async def test_calls_of_a_grpc_client_go_on_beside_one_with_oversized_metadata(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer, grpc.aio.insecure_channel(urlsplit(relayer.url).netloc) as channel:
        call = channel.unary_unary(METHOD)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(relayer.request().encode(), metadata=[("x", "y" * 100_000)], timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(relayer.request().encode(), timeout=10)


async def test_websocket_messages_without_an_end_make_room_for_relays(redis, tmp_path):
    async with all_transports(redis, tmp_path, service=LARGE, memory_bytes=32 * MIB) as (relayer, _):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                socket = await stack.enter_async_context(connected(relayer))
                part = bytes([0xFE, 0xFF, 0xFF]) + b"mask" + bytes(65_535)
                socket._response.connection.transport.write(b"\x02" + part + (b"\0" + part) * 100)
            await until(lambda: held(relayer) > 16 * MIB)
            paying = await stack.enter_async_context(connected(relayer))
            await paying.send_bytes(frame(relayer, b"hello").encode())
            assert (await paying.receive(10)).type is aiohttp.WSMsgType.BINARY
            assert held(relayer) <= 32 * MIB
        await until(lambda: held(relayer) == 0)


async def test_a_websocket_message_that_does_not_come_in_time_ends_its_connection(redis, tmp_path):
    async with all_transports(redis, tmp_path, timeouts=SHORT_TIMEOUTS) as (relayer, _):
        async with connected(relayer) as socket:
            socket._response.connection.transport.write(bytes([0x02, 0xFE, 0xFF, 0xFF]) + b"mask" + bytes(100))
            assert (await socket.receive(10)).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 1008
        await until(lambda: held(relayer) == 0)


async def test_a_websocket_without_a_relay_is_closed_when_it_is_idle(redis, tmp_path):
    hurried = all_transports(redis, tmp_path, timeouts=ClientTimeouts(idle_seconds=0.3))
    async with hurried as (relayer, _), connected(relayer) as socket:
        await socket.receive(10)
        assert socket.close_code == 1008


async def test_relays_beyond_a_backends_connections_are_told_to_come_again_and_a_backend_is_not_blamed(redis, tmp_path):
    async with relaying(redis, tmp_path, service={"validation": "eager"}) as relayer:
        backends = relayer.registry.get("eth")
        pool = backends.pool("jsonRpc")
        slots = backends.slots(pool.backend, pool.endpoints[0].url)
        flood = [asyncio.create_task(slots.acquire("flood")) for _ in range(1500)]
        await asyncio.sleep(0)
        assert await served(relayer, body=b"of another application"), "some connections are left to others"
        mine = relayer.header().application_address
        held = [asyncio.create_task(slots.acquire(mine)) for _ in range(1500)]
        await asyncio.sleep(0)
        status, headers, _ = await relayer.send(relayer.request(body=b"one too many"))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert pool.endpoints[0].failures == 0
        for task in flood + held:
            task.cancel()
        await asyncio.gather(*flood, *held, return_exceptions=True)


@pytest.mark.parametrize("headers", [b"", b"Transfer-Encoding: chunked\r\n"], ids=["a length", "chunks"])
async def test_the_head_of_a_request_counts_as_memory_until_it_is_served(redis, tmp_path, headers):
    async with relaying(redis, tmp_path) as relayer:
        _, writer = await dial(relayer)
        length = b"" if headers else b"Content-Length: 1000\r\n"
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n%b%bX: %b\r\n\r\n5\r\nbegin" % (length, headers, b"x" * 5000))
        await until(lambda: held(relayer) > 5000)
        assert held(relayer) < 10_000
        writer.close()
        await until(lambda: held(relayer) == 0)
