"""Clients that write a whole upload before they read: each gets the response that refused it."""

import asyncio
import socket
from urllib.parse import urlsplit

import pytest

from hostile_clients import LARGE, MIB, SHORT_TIMEOUTS, dial, held, post, until
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.lingering_close import LINGER_BYTES
from relays import relaying

pytestmark = pytest.mark.redis

SIZE = 5 * MIB
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: relayer\r\nTarget-Service-Id: none\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def _upload(url: str, data: bytes) -> bytes:
    """Write everything, then read to the end: what a blocking client does."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as sock:
        sock.sendall(data)
        answer = b""
        while part := sock.recv(65_536):
            answer += part
    return answer


async def upload(relayer, data):
    return await asyncio.to_thread(_upload, relayer.url, data)


def chunked(size, headers=b""):
    part = b"10000\r\n" + bytes(65_536) + b"\r\n"
    return b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%s\r\n" % headers + part * (size // 65_536)


REFUSED = {
    "a length beyond the limit": (post(SIZE) + bytes(SIZE), 413),
    "chunks beyond the limit": (chunked(SIZE) + b"0\r\n\r\n", 413),
    "chunks without an end": (chunked(SIZE), 413),
    "an unknown method": (post(SIZE).replace(b"POST", b"TRACE") + bytes(SIZE), 405),
    "garbage": (b"\0" * SIZE, 400),
    "an endless head": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: %s\r\n" % bytes(7000).replace(b"\0", b"x") * 700, 431),
    "an invalid chunk": (chunked(65_536) + b"no length\r\n" + bytes(SIZE), 400),
    "frames after a refused upgrade": (UPGRADE + bytes(SIZE), 404),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
async def test_a_client_that_writes_first_reads_why_its_upload_was_refused(redis, tmp_path, data, status):
    async with relaying(redis, tmp_path) as relayer:
        answer = await upload(relayer, data)
        assert answer.startswith((b"HTTP/1.1 %d" % status, b"HTTP/1.0 %d" % status)), answer[:80]
        assert answer.count(b"HTTP/1.") == 1
        await until(lambda: relayer.connections.open == 0)
        assert held(relayer) == 0


@pytest.mark.parametrize(
    ("memory", "headers", "status"),
    [(4 * MIB, b"", 503), (64 * MIB, b"Content-Encoding: br\r\n", 415)],
    ids=["no memory", "an unknown encoding"],
)
async def test_an_upload_within_its_limit_that_is_refused_is_answered(redis, tmp_path, memory, headers, status):
    async with relaying(redis, tmp_path, service=LARGE, memory_bytes=memory) as relayer:
        assert (await upload(relayer, post(SIZE, headers) + bytes(SIZE))).startswith(b"HTTP/1.1 %d" % status)
        await until(lambda: relayer.connections.open == 0)
        assert held(relayer) == 0


async def test_a_client_that_goes_on_after_it_was_too_late_reads_so(redis, tmp_path):
    async with relaying(redis, tmp_path, service=LARGE, timeouts=SHORT_TIMEOUTS) as relayer:
        reader, writer = await dial(relayer)
        writer.write(post(SIZE) + bytes(100))
        await until(lambda: held(relayer))
        await until(lambda: not held(relayer))
        writer.write(bytes(SIZE - 100))
        await writer.drain()
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408")
        writer.close()
        await until(lambda: relayer.connections.open == 0)


async def test_what_follows_a_last_request_does_not_destroy_its_response(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.answer = (200, {}, bytes(90_000))
        body = relayer.request().encode()
        answer = await upload(relayer, post(len(body), b"Connection: close\r\n") + body + bytes(SIZE))
        assert answer.startswith(b"HTTP/1.1 200")
        assert len(answer) > 90_000
        assert answer.count(b"HTTP/1.") == 1
        await until(lambda: relayer.connections.open == 0)


@pytest.mark.parametrize("begin", [b"\0" * 1000, post(MIB)], ids=["garbage", "a body beyond the limit"])
async def test_a_client_that_never_ends_its_upload_is_cut(redis, tmp_path, begin):
    async with relaying(redis, tmp_path) as relayer:
        with pytest.raises(ConnectionError):
            await upload(relayer, begin + bytes(4 * LINGER_BYTES))
        await until(lambda: relayer.connections.open == 0)


async def test_a_refused_client_that_sends_nothing_more_is_closed_in_time(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=ClientTimeouts(linger_seconds=0.1)) as relayer:
        reader, writer = await dial(relayer)
        writer.write(b"garbage\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.0 400")
        await until(lambda: relayer.connections.open == 0)
        writer.close()


@pytest.mark.parametrize("first", [300, 65_536, 65_599, 65_600], ids=str)
async def test_a_body_that_becomes_unreadable_is_refused_at_once_in_any_pieces(redis, tmp_path, first):
    data = chunked(65_536) + b"no length\r\n" + bytes(SIZE)
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        writer.write(data[:first])
        await until(lambda: held(relayer))
        writer.write(data[first:])
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b'"body_unreadable"' in answer
        assert answer.count(b"HTTP/1.") == 1
        writer.close()


EXPECT = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: %s\r\nContent-Length: %d\r\n\r\n"
UNWANTED = {
    "a length beyond the limit": (EXPECT % (b"100-continue", SIZE), 413),
    "an unknown method": (EXPECT.replace(b"POST", b"TRACE") % (b"100-continue", 10), 405),
    "another expectation": (EXPECT % (b"tea", 10), 417),
    "an unknown encoding": (EXPECT.replace(b"Host", b"Content-Encoding: br\r\nHost") % (b"100-continue", 10), 415),
}


@pytest.mark.parametrize(("head", "status"), UNWANTED.values(), ids=UNWANTED)
async def test_a_client_that_asks_before_it_sends_is_not_asked_to_send_what_is_refused(redis, tmp_path, head, status):
    async with relaying(redis, tmp_path) as relayer:
        answer = await upload(relayer, head)
        assert answer.startswith(b"HTTP/1.1 %d" % status)
        assert answer.count(b"HTTP/1.") == 1
        assert b'"request_id"' in answer


async def test_a_client_that_asks_before_it_sends_is_told_to_send(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        body = relayer.request().encode()
        reader, writer = await dial(relayer)
        writer.write(EXPECT % (b"100-continue", len(body)))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200")
        writer.write(EXPECT % (b"100-continue", 3) + b"xyz")
        answer = b""
        while b"HTTP/1.1 400" not in answer:
            answer += await asyncio.wait_for(reader.read(65_536), 10)
        assert b"100 Continue" not in answer, "its body is here already"
        writer.close()


async def test_a_body_that_becomes_unreadable_before_its_turn_is_refused(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.gate = asyncio.Event()
        body = relayer.request().encode()
        reader, writer = await dial(relayer)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        await relayer.backend.asked.wait()
        for part in (head + b"1\r\nx\r\n", b"no length\r\n"):
            used = held(relayer)
            writer.write(part)
            await until(lambda used=used: held(relayer) > used)
        relayer.backend.gate.set()
        answer = await asyncio.wait_for(reader.read(), 10)
        assert b"HTTP/1.1 400" in answer
        assert b'"body_unreadable"' in answer
        writer.close()
