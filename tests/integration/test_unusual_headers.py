"""Header fields and methods that few clients send, and that are valid all the same."""

import asyncio

import pytest
from h2.events import StreamEnded

from hostile_clients import dial, post, until
from http2_client import Http2Client
from relays import relaying

pytestmark = pytest.mark.redis


async def test_a_header_that_is_not_utf_8_is_served_and_disturbs_no_other_stream(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.gate = asyncio.Event()
        client = await Http2Client.dial(relayer)
        client.h2.config.validate_outbound_headers = client.h2.config.normalize_outbound_headers = False
        first = client.begin()
        client.h2.send_data(first, relayer.request().encode(), end_stream=True)
        client.send()
        await relayer.backend.asked.wait()
        second = client.h2.get_next_available_stream_id()
        head = [(name.encode(), value.encode()) for name, value in client.head]
        client.h2.send_headers(second, [*head, (b"user-agent", b"Caf\xe9"), (b"accept", b"\xe9")])
        client.h2.send_data(second, relayer.request(body=b"2").encode(), end_stream=True)
        client.send()
        await until(lambda: len(relayer.backend.requests) == 2)
        relayer.backend.gate.set()
        ended = set()
        while ended != {first, second}:
            event = await client.read(lambda event: isinstance(event, StreamEnded) and event.stream_id not in ended)
            ended.add(event.stream_id)
        assert relayer.backend.requests[1][2]["User-Agent"] == "Café"
        assert len(await relayer.leaves()) == 2
        client.writer.close()


async def test_outer_headers_that_are_not_utf_8_are_read_as_latin_1_over_http1(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        body = relayer.request().encode()
        writer.write(post(len(body), b"User-Agent: Caf\xe9\r\nAccept: a\xe9\r\n") + body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert relayer.backend.requests[0][2]["User-Agent"] == "Café"
        writer.close()


@pytest.mark.parametrize("path", ["/health", "/"], ids=["probe", "relay"])
async def test_head_over_http2_has_no_body(redis, tmp_path, path):
    async with relaying(redis, tmp_path) as relayer:
        client = await Http2Client.dial(relayer)
        client.head = [(":method", "HEAD"), (":path", path), (":scheme", "http"), (":authority", "relayer")]
        client.begin(end=True)
        client.send()
        await client.read(lambda event: isinstance(event, StreamEnded))
        client.writer.close()
