"""Idle connections and those with half a head are closed, and a request in progress never is."""

import asyncio
import contextlib
from urllib.parse import urlsplit

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated

from callers import http1, http2
from http2_client import Http2Client, is_ended
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.listener import PREFACE
from relays import relaying

pytestmark = pytest.mark.redis


async def dialled(relayer):
    parts = urlsplit(relayer.url)
    return await asyncio.open_connection(parts.hostname, parts.port)


SENT = {
    "nothing": b"",
    "a byte": b"P",
    "half of HTTP/2's preface": PREFACE[:10],
    "a line of a head": b"POST / HTTP/1.1\r\n",
    "half of a head": b"POST / HTTP/1.1\r\nHost: relayer\r\nContent-Le",
}


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
async def test_a_connection_without_a_whole_head_is_closed(redis, tmp_path, sent):
    async with relaying(redis, tmp_path, timeouts=ClientTimeouts(idle_seconds=0.2)) as relayer:
        reader, writer = await dialled(relayer)
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


BEFORE = {
    "a new connection": b"",
    "a health check": b"GET /health HTTP/1.1\r\nHost: relayer\r\n\r\n",
    "a rejected relay": b"POST / HTTP/1.1\r\nHost: relayer\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
async def test_a_head_that_arrives_byte_by_byte_is_no_request_in_time(redis, tmp_path, before):
    async with relaying(redis, tmp_path, timeouts=ClientTimeouts(idle_seconds=0.5)) as relayer:
        reader, writer = await dialled(relayer)
        writer.write(before + b"GET / HTTP/1.1\r\nX: ")
        ended = asyncio.ensure_future(reader.read())
        async with asyncio.timeout(10):
            while not ended.done():
                writer.write(b"x")
                await asyncio.wait({ended}, timeout=0.05)
        assert ended.exception() is not None or ended.result().count(b"HTTP/1.") == bool(before)
        writer.close()


async def test_a_kept_connection_is_closed_when_no_other_request_comes(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=ClientTimeouts(idle_seconds=1.5)) as relayer:
        reader, writer = await dialled(relayer)
        writer.write(b"GET /health HTTP/1.1\r\nHost: relayer\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_http2_connection_without_streams_is_told_to_go_and_closed(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=ClientTimeouts(idle_seconds=0.2)) as relayer:
        reader, writer = await dialled(relayer)
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        writer.write(h2.data_to_send())
        events = h2.receive_data(await asyncio.wait_for(reader.read(), 10))
        assert any(isinstance(event, ConnectionTerminated) for event in events)
        writer.close()


@pytest.mark.parametrize("send", [http1, http2])
async def test_a_relay_that_takes_longer_than_that_is_served(redis, tmp_path, send):
    async with relaying(redis, tmp_path, timeouts=ClientTimeouts(idle_seconds=1.5)) as relayer:
        relayer.backend.gate = asyncio.Event()
        asked = asyncio.create_task(send(relayer.url, relayer.request().encode()))
        await relayer.backend.asked.wait()
        reader, writer = await dialled(relayer)
        await asyncio.wait({asyncio.ensure_future(reader.read())}, timeout=10)  # another one came and went meanwhile
        writer.close()
        assert not asked.done()
        relayer.backend.gate.set()
        assert (await asked).code == 200


async def test_pings_keep_no_http2_connection_without_a_request(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=ClientTimeouts(idle_seconds=0.3)) as relayer:
        client = await Http2Client.dial(relayer)
        ended = asyncio.ensure_future(client.read(is_ended))
        async with asyncio.timeout(10):
            while not ended.done():
                client.h2.ping(b"12345678")
                client.send()
                await asyncio.wait({ended}, timeout=0.05)
        with contextlib.suppress(EOFError, ConnectionError):
            ended.result()
        client.writer.close()
