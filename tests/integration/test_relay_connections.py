"""Connections of ordinary relays, which stay with the lean protocol, and what hands them over to aiohttp."""

import asyncio
import re

import pytest

from hostile_clients import dial, held, post, until
from pocket.protocol.relays.envelope import STREAM_DELIMITER
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http1_connection import Http1Connection
from pocket_relayer.transports.http1_messages import parse_head
from pocket_relayer.transports.http1_relays import RelayConnection, RelayServer
from relays import relaying

pytestmark = pytest.mark.redis
CHUNKED = b"POST / HTTP/1.1\r\nHost: relayer\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"


@pytest.fixture
def served_by(monkeypatch):
    """List the protocol that took each connection's bytes."""
    seen = []
    for kind in (RelayConnection, Http1Connection):
        received = kind.data_received

        def watched(self, data, received=received, kind=kind):
            seen.append(kind)
            received(self, data)

        monkeypatch.setattr(kind, "data_received", watched)
    return seen


async def answer_of(reader):
    """Return status, head and body of the next response with a length."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return int(head.split()[1]), head, await reader.readexactly(int(length[1]))


def relay(relayer, number=0, headers=b""):
    body = relayer.request(body=b"%d" % number).encode()
    return post(len(body), headers) + body


async def test_relays_one_after_the_other_stay_with_the_lean_protocol(redis, tmp_path, served_by):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        for number in range(3):
            writer.write(relay(relayer, number, b"Rpc-Type: 3\r\nAccept: */*\r\nConnection: keep-alive\r\n"))
            status, head, _ = await answer_of(reader)
            assert status == 200
            assert {b"Content-Type: application/json", b"Server: relayer"} <= set(head.split(b"\r\n"))
        assert set(served_by) == {RelayConnection}
        assert len(await relayer.leaves()) == 3
        writer.close()


UNUSUAL = {
    "a health check": b"GET /health HTTP/1.1\r\nHost: relayer\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: relayer\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"\0\0\r\n\r\n",
    "a head in two parts": b"POST / HTTP/1.1\r\nHost: re",
    "two hosts": b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
    "no host": b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "a body that is too large": post(200_000) + bytes(200_000),
    "a full URL": b"POST http://relayer/ HTTP/1.1\r\nHost: relayer\r\nContent-Length: 0\r\n\r\n",
    "gRPC": post(0, b"Content-Type: application/grpc\r\n"),
    "an expectation": post(1, b"Expect: 100-continue\r\n"),
    "a packed body": post(1, b"Content-Encoding: gzip\r\n"),
    "an upgrade": post(0, b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    "a long head": post(0, b"X: " + b"x" * 9000 + b"\r\n"),
    "a folded field": post(0, b"X: a\r\n b\r\n"),
    "chunks": CHUNKED % (1, b"x"),
    "two lengths": post(0, b"Content-Length: 0\r\n"),
    "lines that end with LF": post(0).replace(b"\r\n", b"\n"),
    "a blank line first": b"\r\n" + post(0),
}


@pytest.mark.parametrize("raw", UNUSUAL.values(), ids=UNUSUAL)
async def test_any_other_request_is_aiohttps_whatever_came_before(redis, tmp_path, served_by, raw):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        writer.write(relay(relayer))
        assert (await answer_of(reader))[0] == 200
        writer.write(raw)
        await until(lambda: served_by[-1] is Http1Connection)
        writer.close()
        await until(lambda: relayer.connections.open == 0)
        assert held(relayer) == 0


async def test_relays_go_on_after_a_health_check_and_chunks_on_the_same_connection(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        chunked = relayer.request(body=b"chunked").encode()
        pipelined = [relay(relayer, 1), UNUSUAL["a health check"], CHUNKED % (len(chunked), chunked), relay(relayer, 2)]
        writer.write(b"".join(pipelined))
        assert [(await answer_of(reader))[0] for _ in pipelined] == [200] * 4
        assert len(await relayer.leaves()) == 3
        writer.close()


async def test_many_pipelined_requests_are_aiohttps_and_all_answered(redis, tmp_path, served_by):
    async with relaying(redis, tmp_path, memory_bytes=200_000_000) as relayer:
        relayer.backend.gate = asyncio.Event()
        reader, writer = await dial(relayer)
        writer.write(relay(relayer))
        await relayer.backend.asked.wait()
        refused = post(500) + b"x" * 500  # few enough that their address is not slowed down
        number = 70_000 // len(refused)
        writer.write(refused * number)
        await until(lambda: held(relayer) > number * len(refused))
        relayer.backend.gate.set()
        assert [(await answer_of(reader))[0] for _ in range(1 + number)] == [200] + [400] * number
        writer.write(relay(relayer, 1))
        assert (await answer_of(reader))[0] == 200
        assert served_by[-1] is Http1Connection
        writer.close()


@pytest.mark.parametrize("number", range(30, 35))  # aiohttp parses 32 requests ahead
async def test_requests_behind_a_body_that_comes_after_its_head_are_all_answered(redis, tmp_path, number):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        body = relayer.request(body=b"1").encode()
        writer.write(post(len(body), b"Expect: 100-continue\r\n"))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * number)
        assert [(await answer_of(reader))[0] for _ in range(1 + number)] == [200] + [400] * number
        writer.close()


async def test_a_body_that_arrives_in_pieces_is_served(redis, tmp_path, served_by):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        for number in range(2):
            body = relayer.request(body=b"%d" % number * 30_000).encode()
            head = post(len(body))
            writer.write(head)
            for at in range(0, len(body), 10_000):
                read = len(head) + at
                await until(lambda read=read: held(relayer) == read)
                writer.write(body[at : at + 10_000])
            assert (await answer_of(reader))[0] == 200
            await until(lambda: held(relayer) == 0)
        assert set(served_by) == {RelayConnection}
        writer.close()


async def test_a_client_that_asks_for_it_gets_a_closed_connection(redis, tmp_path, served_by):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        writer.write(relay(relayer, 1, b"Connection: close\r\n"))
        status, head, _ = await answer_of(reader)
        assert (status, b"\r\nConnection: close\r\n" in head) == (200, True)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        assert set(served_by) == {RelayConnection}
        writer.close()


async def test_a_relay_goes_on_though_its_client_is_gone(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.gate = asyncio.Event()
        _, writer = await dial(relayer)
        writer.write(relay(relayer))
        await relayer.backend.asked.wait()
        writer.transport.abort()
        relayer.backend.gate.set()
        await until(lambda: relayer.connections.open == 0)
        await until(lambda: held(relayer) == 0)
        assert len(await relayer.leaves()) == 1


@pytest.fixture
def servers(monkeypatch):
    """List the servers that are made."""
    seen = []
    made = RelayServer.__init__

    def watched(self, *options):
        seen.append(self)
        made(self, *options)

    monkeypatch.setattr(RelayServer, "__init__", watched)
    return seen


async def test_draining_answers_what_runs_and_closes_what_waits(redis, tmp_path, servers):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.gate = asyncio.Event()
        relayer.backend.gate.set()
        idle, running = await dial(relayer), await dial(relayer)
        idle[1].write(relay(relayer, 1))
        await answer_of(idle[0])
        relayer.backend.gate.clear()
        relayer.backend.asked.clear()
        running[1].write(relay(relayer, 2))
        await relayer.backend.asked.wait()
        draining = asyncio.create_task(servers[0].drain(10))
        assert await asyncio.wait_for(idle[0].read(), 10) == b""
        assert not draining.done()
        relayer.backend.gate.set()
        status, head, _ = await answer_of(running[0])
        assert (status, b"Connection: close" in head) == (200, True)
        await draining
        assert await asyncio.wait_for(running[0].read(), 10) == b""
        for _, writer in (idle, running):
            writer.close()


async def test_an_idle_connection_is_closed_and_one_with_a_request_is_not(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=ClientTimeouts(idle_seconds=0.2)) as relayer:
        relayer.backend.gate = asyncio.Event()
        busy = await dial(relayer)
        busy[1].write(relay(relayer, 1))
        await relayer.backend.asked.wait()
        idle = await dial(relayer)
        idle[1].write(post(0))  # no relay: answered at once
        assert (await answer_of(idle[0]))[0] == 400
        assert await asyncio.wait_for(idle[0].read(), 10) == b""
        relayer.backend.gate.set()
        assert (await answer_of(busy[0]))[0] == 200
        for _, writer in (busy, idle):
            writer.close()


async def test_a_stream_is_chunked_and_its_connection_closed(redis, tmp_path, served_by):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.answer = (200, {"Content-Type": "text/event-stream"}, b"data: 1\n\n")
        reader, writer = await dial(relayer)
        writer.write(relay(relayer))
        whole = await asyncio.wait_for(reader.read(), 10)
        assert b"Transfer-Encoding: chunked" in whole
        assert whole.endswith(STREAM_DELIMITER + b"\r\n0\r\n\r\n")
        assert set(served_by) == {RelayConnection}
        writer.close()


@pytest.mark.parametrize("at", range(len(post(5))))
def test_a_head_that_is_cut_off_is_never_parsed(at):
    assert parse_head(post(5)[:at]) is None
    assert parse_head(post(5))[0].body_bytes == 5


async def test_bytes_behind_a_request_wait_at_the_client(redis, tmp_path, servers):
    """A relay may take seconds. What its client sends meanwhile is not kept here beyond a little."""
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.gate = asyncio.Event()
        reader, writer = await dial(relayer)
        writer.write(relay(relayer))
        await relayer.backend.asked.wait()
        writer.write((post(20_000) + bytes(20_000)) * 1000)
        (connection,) = servers[0].connections
        await until(lambda: connection._reading_paused)
        assert len(connection._behind) < 1_000_000
        relayer.backend.gate.set()
        assert (await answer_of(reader))[0] == 200
        writer.transport.abort()


async def test_a_body_that_is_arriving_is_served_before_a_server_ends(redis, tmp_path, servers):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        request = relay(relayer)
        writer.write(request[:-10])
        await until(lambda: any(connection.busy for connection in servers[0].connections))
        draining = asyncio.create_task(servers[0].drain(10.0))
        await asyncio.sleep(0)
        writer.write(request[-10:])
        assert (await answer_of(reader))[0] == 200
        await draining
        writer.close()
