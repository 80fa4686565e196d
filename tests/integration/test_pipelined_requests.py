"""Requests that a client sends before it has the response to an earlier one."""

import asyncio
import contextlib

import pytest

from hostile_clients import MIB, SHORT_TIMEOUTS, dial, held, post, served, until
from pocket_relayer.transports.first_requests import BURST, PER_SECOND
from pocket_relayer.transports.http1_connection import Http1Connection
from relays import relaying

pytestmark = pytest.mark.redis


async def test_pipelined_relays_of_a_client_that_reads_nothing_end_its_connection(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=SHORT_TIMEOUTS) as relayer:
        relayer.backend.answer = (200, {"Content-Type": "application/json"}, bytes(60_000))
        _, writer = await dial(relayer, limit=1024)
        for number in range(300):
            body = relayer.request(body=b"%d" % number).encode()
            writer.write(post(len(body)) + body)
        await until(lambda: relayer.connections.open == 1)
        await until(lambda: relayer.connections.open == 0)
        writer.close()
        assert len(relayer.backend.requests) < 300
        assert await served(relayer, body=b"after")


async def test_pipelined_requests_behind_a_slow_one_count_as_memory_until_they_are_served(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.gate = asyncio.Event()
        reader, writer = await dial(relayer)
        bodies = [relayer.request(body=b"%d" % n + bytes(20_000)).encode() for n in range(4)]
        writer.write(post(len(bodies[0])) + bodies[0])
        await relayer.backend.asked.wait()
        first = held(relayer)
        writer.write(b"".join(post(len(body)) + body for body in bodies[1:]))
        await until(lambda: held(relayer) >= first + sum(map(len, bodies[1:])))
        relayer.backend.gate.set()
        answers = b""
        while answers.count(b"HTTP/1.1 200 OK") < 4:
            answers += await asyncio.wait_for(reader.read(65_536), 10)
        await until(lambda: held(relayer) == 0)
        writer.close()


@contextlib.asynccontextmanager
async def pipelining(relayer, number, size):
    """Open connections with a relay at the backend, and `size` bytes of a request behind it."""
    gate = relayer.backend.gate = asyncio.Event()
    writers = []
    try:
        for n in range(number):
            _, writer = await dial(relayer)
            writers.append(writer)
            body = relayer.request(body=b"first of %d" % n).encode()
            writer.write(post(len(body)) + body)
        await until(lambda: len(relayer.backend.requests) == number)
        relayer.backend.gate = None
        for writer in writers:
            writer.write(post(size) + bytes(size))
        yield writers
    finally:
        gate.set()
        for writer in writers:
            writer.close()


async def test_pipelined_requests_behind_a_slow_one_are_not_read_on(redis, tmp_path):
    async with relaying(redis, tmp_path, memory_bytes=2 * MIB) as relayer:
        async with pipelining(relayer, 1, 32 * MIB) as (writer,):
            await until(lambda: held(relayer) > 64 * 1024)
            for number in range(5):
                assert await served(relayer, body=b"%d of another connection" % number)
            assert held(relayer) < relayer.memory.connection_limit
            assert writer.transport.get_write_buffer_size() > 16 * MIB
            assert relayer.connections.open
        await until(lambda: held(relayer) == 0)


async def test_pipelined_requests_of_many_connections_end_some_of_them_and_relays_go_on(redis, tmp_path):
    async with relaying(redis, tmp_path, memory_bytes=2 * MIB) as relayer:
        async with pipelining(relayer, 30, MIB):
            await until(lambda: relayer.connections.open < 30)
            assert held(relayer) <= relayer.memory.address_limit
            for number in range(5):
                assert await served(relayer, body=b"%d of another connection" % number)
        await until(lambda: held(relayer) == 0)
        assert await served(relayer, body=b"after")


REFUSED = {"relays": post(3) + b"abc", "probes": b"GET /ready HTTP/1.1\r\nHost: relayer\r\n\r\n"}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
async def test_requests_of_a_connection_without_a_served_relay_have_a_rate(redis, tmp_path, request_):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        loop = asyncio.get_running_loop()
        began, more = loop.time(), 6
        writer.write(request_ * 200)
        answers = b""
        while answers.count(b"HTTP/1.1 ") < BURST + more:
            answers += await asyncio.wait_for(reader.read(65_536), 10)
        assert loop.time() - began > (more - 1) / PER_SECOND
        assert await served(relayer, body=b"of another connection of the same address")
        writer.close()


async def test_requests_of_a_connection_with_a_served_relay_have_no_rate(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        body = relayer.request().encode()
        writer.write(post(len(body)) + body + REFUSED["relays"] * 300)
        answers = b""
        async with asyncio.timeout(10):
            while answers.count(b"HTTP/1.1 ") < 301:
                answers += await reader.read(65_536)
        assert relayer.connections.open == 1
        writer.close()


async def test_chunks_of_one_byte_are_parsed_in_portions_and_their_relays_are_served(redis, tmp_path, monkeypatch):
    portions, parse = [], Http1Connection._receive
    monkeypatch.setattr(
        Http1Connection, "_receive", lambda self, data: (portions.append(len(data)), parse(self, data))[1]
    )
    head = b"POST / HTTP/1.1\r\nHost: relayer\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    async with relaying(redis, tmp_path) as relayer:

        async def send(number):
            reader, writer = await dial(relayer)
            body = relayer.request(body=b"%d" % number + bytes(20_000)).encode()
            writer.write(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return answer.startswith(b"HTTP/1.1 200 OK")

        assert all(await asyncio.gather(*map(send, range(5))))
        assert sum(portions) > 5 * 20_000 * 6
        assert max(portions) <= 16 * 1024, "a read of 256 KiB holds 43,000 chunks"
        await until(lambda: held(relayer) == 0)


async def test_a_half_closed_client_whose_request_waits_for_its_turn_is_answered(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        first, second = (relayer.request(body=b"%d" % number + bytes(2_000)).encode() for number in range(2))
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in second) + b"0\r\n\r\n"
        writer.write(post(len(first)) + first)
        writer.write(
            b"POST / HTTP/1.1\r\nHost: relayer\r\nX: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % (b"x" * 4_000) + chunks
        )
        writer.write_eof()
        assert (await asyncio.wait_for(reader.read(), 10)).count(b"HTTP/1.1 200 OK") == 2
        writer.close()


async def test_chunks_that_wait_behind_a_slow_relay_are_read_on_after_it(redis, tmp_path, monkeypatch):
    paused, pause = asyncio.Event(), Http1Connection.pause_reading
    monkeypatch.setattr(Http1Connection, "pause_reading", lambda self: (pause(self), paused.set())[0])
    head = b"POST / HTTP/1.1\r\nHost: relayer\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with relaying(redis, tmp_path) as relayer:
        gate = relayer.backend.gate = asyncio.Event()
        reader, writer = await dial(relayer)
        first, second = (relayer.request(body=b"%d" % number + bytes(20_000)).encode() for number in range(2))
        writer.write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(first), first))
        await relayer.backend.asked.wait()
        writer.write(head + b"".join(b"1\r\n%c\r\n" % byte for byte in second) + b"0\r\n\r\n")
        await asyncio.wait_for(paused.wait(), 10)
        gate.set()
        answers = b""
        while answers.count(b"HTTP/1.1 200 OK") < 2:
            answers += await asyncio.wait_for(reader.read(65_536), 10)
        writer.close()
