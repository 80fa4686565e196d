"""The client of plain HTTP backends: which connections it keeps, and what it never takes for a response."""

import asyncio
import contextlib

import pytest

from pocket_relayer.backends.backend_connection import BrokenResponse, ConnectionEnded, HeaderTooLong
from pocket_relayer.backends.http1_client import Http1Client, _Pool, encode_head, plain_origin
from raw import answer, raw_server, read_request

ORIGIN = plain_origin("http://b:8545/path")


@contextlib.asynccontextmanager
async def client_of(serve, limit=4, idle_seconds=90.0):
    """Return a function that sends a request and returns status and body, and the list of the server's connections."""
    connections = []

    async def counted(reader, writer):
        connections.append(writer)
        await serve(reader, writer)

    async with raw_server(counted) as place:
        origin = plain_origin(f"http://{place}")
        client = Http1Client(limit, idle_seconds)

        async def send(method="POST", body=b"{}"):
            head = encode_head(method, "/", origin, [], len(body))
            response = await client.request(origin, head, body, 5.0, head_only=method == "HEAD")
            read = b""
            try:
                while chunk := await response.read():
                    read += chunk
            finally:
                response.close()
            return response.status, read

        send.client = client
        try:
            yield send, connections
        finally:
            await client.close()


def replies(*raw):
    """Serve one connection with these replies in turn, then end it."""

    async def serve(reader, writer):
        for reply in raw:
            if await read_request(reader) is None:
                return
            writer.write(reply)
            await writer.drain()

    return serve


def many(reply):
    return replies(*[reply] * 20)


async def test_one_connection_carries_one_request_after_the_other():
    async with client_of(many(answer(b"hello"))) as (send, connections):
        for _ in range(5):
            assert await send() == (200, b"hello")
        assert len(connections) == 1


@pytest.mark.parametrize(
    "surplus",
    [answer(b"smuggled"), b"HTTP/1.1 100 Continue\r\n\r\n", b"x", b"\r\n\r\n" + answer(b"smuggled")],
    ids=["a response", "a provisional one", "a byte", "a response after blank lines"],
)
async def test_what_follows_a_response_is_never_the_answer_to_the_next_request(surplus):
    async with client_of(many(answer(b"first") + surplus)) as (send, connections):
        for _ in range(3):
            assert await send() == (200, b"first")
        assert len(connections) == 3


async def test_bytes_that_come_while_a_connection_is_idle_end_it():
    written = asyncio.Event()

    async def serve(reader, writer):
        await read_request(reader)
        writer.write(answer(b"first"))
        await reader.read(0)
        writer.write(answer(b"smuggled"))
        await writer.drain()
        written.set()
        await reader.read()

    async with client_of(serve) as (send, connections):
        assert await send() == (200, b"first")
        await written.wait()
        assert await send() == (200, b"first")
        assert len(connections) == 2


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", (200, b"until the end")),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", (200, b"ab")),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab", (200, b"ab")),
    ],
    ids=["no length", "HTTP/1.0", "close"],
)
async def test_a_connection_is_not_kept_after_such_a_response(reply, expected):
    async with client_of(replies(reply)) as (send, connections):
        for _ in range(2):
            assert await send() == expected
        assert len(connections) == 2


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"no HTTP at all\r\n\r\n",
    ],
    ids=["a length", "chunks", "no chunks", "half a head", "no HTTP"],
)
async def test_an_incomplete_response_is_broken(reply):
    async with client_of(replies(reply)) as (send, _):
        with pytest.raises(BrokenResponse):
            await send()


async def test_the_response_to_head_has_no_body_and_ends_its_connection():
    async with client_of(many(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")) as (send, connections):
        for _ in range(2):
            assert await send("HEAD") == (200, b"")
        assert len(connections) == 2


async def test_chunks_and_their_trailers_are_read_to_the_end():
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-After: 1\r\n\r\n"
    async with client_of(many(reply)) as (send, connections):
        for _ in range(3):
            assert await send() == (200, b"abcde")
        assert len(connections) == 1


async def test_an_end_without_a_byte_on_a_new_connection_is_not_repeated():
    async with client_of(replies(b"")) as (send, connections):
        with pytest.raises(ConnectionEnded):
            await send()
        assert len(connections) == 1


async def test_no_more_connections_than_the_limit_are_used_at_once():
    both = asyncio.Barrier(2)

    async def serve(reader, writer):
        while await read_request(reader) is not None:
            await both.wait()
            writer.write(answer(b"x"))

    async with client_of(serve, limit=2) as (send, connections):
        running = [asyncio.create_task(send()) for _ in range(6)]
        assert await asyncio.gather(*running) == [(200, b"x")] * 6
        assert len(connections) == 2


async def test_a_cancelled_request_gives_its_place_back_and_its_connection_up():
    asked = asyncio.Event()

    async def serve(reader, writer):
        while await read_request(reader) is not None:
            if not asked.is_set():
                asked.set()
                await reader.read()
            writer.write(answer(b"mine"))

    async with client_of(serve, limit=1) as (send, connections):
        waiting = asyncio.create_task(send())
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await send() == (200, b"mine")
        assert len(connections) == 2


async def test_an_idle_connection_is_closed():
    ended = asyncio.Event()

    async def serve(reader, writer):
        await read_request(reader)
        writer.write(answer(b"x"))
        await reader.read()
        ended.set()

    async with client_of(serve, idle_seconds=0.01) as (send, _):
        await send()
        async with asyncio.timeout(5):
            await ended.wait()


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nX: b", "a\r", "a\0b"])
def test_a_field_that_would_start_another_is_not_sent(value):
    with pytest.raises(ValueError, match="header field"):
        encode_head("POST", "/", ORIGIN, [("X", value)], 0)


def test_a_head_names_its_origin_and_the_length_of_its_body():
    assert encode_head("POST", "/a?b", ORIGIN, [("X", "é")], 2) == (
        "POST /a?b HTTP/1.1\r\nHost: b:8545\r\nX: é\r\nContent-Length: 2\r\n\r\n".encode()
    )
    assert b"Content-Length: 0" in encode_head("POST", "/", ORIGIN, [], 0)
    assert b"Content-Length" not in encode_head("GET", "/", ORIGIN, [], 0)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://b", "b"), ("http://b:80/x", "b"), ("http://b:8545", "b:8545"), ("http://[::1]:9", "[::1]:9"),
        ("https://b", None), ("http://user:key@b", None), ("http://bücher.example", None),
    ],
)  # fmt: skip
def test_plain_urls_are_served_here_and_all_others_by_aiohttp(url, name):
    origin = plain_origin(url)
    assert (origin.name if origin else None) == name


@contextlib.asynccontextmanager
async def responses_of(serve):
    """Return a function that sends a request and returns the unread response."""
    async with raw_server(serve) as place:
        origin = plain_origin(f"http://{place}")
        client = Http1Client(4, 90.0)
        try:
            yield lambda: client.request(
                origin, encode_head("POST", "/", origin, [], 2), b"{}", 2.0, head_only=False
            )  # fmt: skip
        finally:
            await client.close()


@pytest.mark.parametrize("size", [12, 400_000])
async def test_a_body_that_was_not_read_is_never_part_of_the_next_response(size):
    replied = 0

    async def serve(reader, writer):
        nonlocal replied
        while await read_request(reader) is not None:
            replied += 1
            writer.write(answer(b"s" * size) if replied == 1 else answer(b"real"))
            await writer.drain()

    async with responses_of(serve) as request:
        (await request()).close()
        second = await request()
        assert await second.read() == b"real"
        second.close()


@pytest.mark.parametrize("head", [
    b"HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 40\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
])  # fmt: skip
async def test_a_response_without_a_body_that_declares_one_ends_its_connection(head):
    async with client_of(many(head)) as (send, connections):
        for _ in range(2):
            assert (await send())[1] == b""
        assert len(connections) == 2


async def test_trailers_are_bounded():
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: ")
        writer.write(b"a" * 2_000_000)
        with contextlib.suppress(ConnectionError):
            await reader.read()

    async with responses_of(serve) as request:
        response = await request()
        assert await response.read() == b"hi"
        with pytest.raises(HeaderTooLong):
            await response.read()
        response.close()


async def test_a_switch_of_protocols_that_was_not_asked_for_is_a_status(caplog):
    switch = b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    async with client_of(many(switch)) as (send, connections):
        for _ in range(2):
            assert (await send())[0] == 101
        assert len(connections) == 2
    assert "transport" not in caplog.text


async def test_no_slot_is_lost_to_callers_that_give_up_while_they_wait():
    pool = _Pool(0)
    calls = [asyncio.create_task(pool.acquire(5.0)) for _ in range(4)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.wait(calls[:1])
    pool.release()  # to the second, which gives up before it runs
    calls[1].cancel()
    await asyncio.wait_for(calls[2], 5)
    pool.release()
    await asyncio.wait_for(calls[3], 5)
    pool.release()
    assert (pool.free, len(pool.waiting)) == (1, 0)


async def test_a_wait_for_a_slot_ends_in_time():
    pool = _Pool(0)
    with pytest.raises(TimeoutError):
        await pool.acquire(0.01)
    pool.release()
    assert (pool.free, len(pool.waiting)) == (1, 0)


async def test_idle_connections_are_counted():
    async with client_of(many(answer(b"{}"))) as (send, connections):
        await asyncio.gather(send(), send())
        assert len(connections) == 2
        assert send.client.idle == 2
