"""HTTP/2 clients that would use up a worker. Other streams and other clients go on."""

import asyncio
import contextlib

import pytest
from h2.events import DataReceived, ResponseReceived, StreamReset
from h2.settings import SettingCodes

from hostile_clients import MIB, SHORT_TIMEOUTS, held, served, until
from http2_client import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    POST,
    RST_STREAM,
    Http2Client,
    is_ended,
    raw_frame,
    raw_settings,
)
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http2_streams import StrangersUploads
from relays import relaying

pytestmark = pytest.mark.redis


FLOODS = {
    "PING": bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"12345678",
    "WINDOW_UPDATE": bytes([0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    "PRIORITY": bytes([0, 0, 5, 2, 0, 0, 0, 0, 9, 0, 0, 0, 0, 1]),
    "SETTINGS": bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_an_http2_connection_that_floods_is_ended_and_says_so(redis, tmp_path, flood):
    async with relaying(redis, tmp_path) as relayer:
        client = await Http2Client.dial(relayer)
        client.send()
        client.writer.write(flood * 5000)
        assert (await client.read(is_ended)).error_code == 11
        client.writer.close()
        assert await served(relayer)


async def test_streams_that_are_opened_and_reset_end_a_connection_by_their_rate(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        client = await Http2Client.dial(relayer)
        for _ in range(2000):
            number = client.begin()
            client.h2.reset_stream(number)
        client.send()
        with contextlib.suppress(EOFError, ConnectionError):
            assert (await client.read(is_ended)).error_code == 11
        client.writer.close()
        await until(lambda: relayer.connections.open == 0)
        assert await served(relayer)


async def test_streams_that_are_reset_in_the_read_that_opens_them_leave_nothing_behind(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        client = await Http2Client.dial(relayer)
        client.send()
        await until(lambda: relayer.http2.connections)
        client.writer.write(
            raw_frame(HEADERS, 1, POST, END_HEADERS) + raw_frame(RST_STREAM, 1, b"\0\0\0\x08") + FLOODS["PING"]
        )
        answer = b""
        while b"12345678" not in answer:
            answer += await asyncio.wait_for(client.reader.read(65_536), 10)
        await until(lambda: held(relayer) == 0)
        client.writer.close()


async def test_streams_beyond_what_is_served_at_once_are_refused_and_the_others_go_on(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        client = await Http2Client.dial(relayer)
        client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
        client.h2.remote_settings.acknowledge()
        first = client.begin(headers=[("rpc-type", "3")])
        for _ in range(260):
            client.begin()
        refused = await client.read(lambda event: isinstance(event, StreamReset))
        assert refused.error_code == 7
        client.h2.send_data(first, relayer.request().encode(), end_stream=True)
        client.send()
        answer = await client.read(lambda event: isinstance(event, ResponseReceived) and event.stream_id == first)
        assert dict(answer.headers)[":status"] == "200"
        client.writer.close()


async def test_oversized_metadata_ends_its_stream_and_not_the_connection(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        client = await Http2Client.dial(relayer)
        number = client.begin(headers=[(f"x-{number}", "y" * 4_000) for number in range(50)], end=True)
        reset = await client.read(lambda event: isinstance(event, StreamReset))
        assert reset.stream_id == number
        second = client.begin(headers=[("rpc-type", "3")])
        client.h2.send_data(second, relayer.request().encode(), end_stream=True)
        client.send()
        answer = await client.read(lambda event: isinstance(event, ResponseReceived))
        assert dict(answer.headers)[":status"] == "200"
        client.writer.close()


async def test_an_http2_client_that_takes_no_answers_is_not_read_on_and_dropped(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=SHORT_TIMEOUTS) as relayer:
        client = await Http2Client.dial(relayer)
        client.send()
        async with asyncio.timeout(20):  # sooner than an idle one
            with contextlib.suppress(ConnectionError):
                while True:  # each is answered, and none is read
                    client.writer.write(FLOODS["PING"] * 5000)  # megabytes fit into the sockets
                    await asyncio.wait_for(client.writer.drain(), 5)
            client.writer.close()
            await until(lambda: relayer.connections.open == 0)


async def test_headers_of_open_streams_count_as_memory_and_the_oldest_make_room(redis, tmp_path):
    async with relaying(redis, tmp_path, memory_bytes=8 * MIB) as relayer:
        client = await Http2Client.dial(relayer)
        client.send()
        # One field of 4 KB enters the table of the connection, then each stream names it fifteen times in a byte each.
        field = b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000
        blocks = [POST + field] + [POST + b"\xbe" * 15] * 200
        client.writer.write(
            b"".join(raw_frame(HEADERS, 2 * n + 1, block, END_HEADERS) for n, block in enumerate(blocks))
        )
        await until(lambda: held(relayer) > MIB)
        answers = Answers()
        while not answers.rejected:
            answers.feed(await asyncio.wait_for(client.reader.read(65_536), 10))
        assert held(relayer) <= relayer.memory.connection_limit
        assert await served(relayer)
        client.writer.close()
        await until(lambda: held(relayer) == 0)


class Answers:
    """Counts the frames by which a relayer rejects streams: RST_STREAM, or HEADERS of an error."""

    def __init__(self):
        self.rejected, self._rest = 0, b""

    def feed(self, data):
        data, self._rest = self._rest + data, b""
        while len(data) >= 9 + (size := int.from_bytes(data[:3], "big")):
            self.rejected += data[3] in (HEADERS, RST_STREAM)
            data = data[9 + size :]
        self._rest = data


def oversized(stream):
    block = POST + b"\x40\x01x\x7f\x81\xff\x03" + b"y" * 65_536
    parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    frames = [raw_frame(CONTINUATION, stream, part) for part in parts[1:-1]]
    return (
        raw_frame(HEADERS, stream, parts[0])
        + b"".join(frames)
        + raw_frame(CONTINUATION, stream, parts[-1], END_HEADERS)
    )


def head_blocks(block, number=200):
    return b"".join(raw_frame(HEADERS, 2 * n + 1, block, END_HEADERS | END_STREAM) for n in range(number))


ENDLESS = {
    "header blocks of a byte for each field": head_blocks(POST + b"\x90" * 1700),
    "header blocks of many short fields": head_blocks(POST + b"\x00\x01x\x01y" * 700, 40),
    "header blocks that are long to unpack": head_blocks(POST + b"\x00\x01x\xff\x81\x74" + b"\x29\x4a" * 7500, 40),
    "padding without data": raw_frame(HEADERS, 1, POST, END_HEADERS)
    + raw_frame(DATA, 1, b"\xff" + bytes(255), 8) * 2000,
    "data of a stream that is closed": raw_frame(HEADERS, 1, POST, END_HEADERS)
    + raw_frame(RST_STREAM, 1, b"\0\0\0\x08")
    + raw_frame(DATA, 1, bytes(1024)) * 3000,
    "oversized headers, again and again": b"".join(oversized(stream) for stream in range(1, 11, 2)),
    "header blocks in many parts": raw_frame(HEADERS, 1, POST) + raw_frame(CONTINUATION, 1, b"") * 5000,
    "a header block without an end": raw_frame(HEADERS, 1, POST) + raw_frame(CONTINUATION, 1, bytes(16_000)) * 200,
    "settings of many entries": raw_settings(range(100, 2700)) * 200,
    "streams of numbers that were used": raw_frame(HEADERS, 1, POST, END_HEADERS) * 5000,
    "data of a stream that was never opened": raw_frame(DATA, 9, bytes(1000)) * 100,
    "frames beyond their size": raw_frame(DATA, 1, bytes(100_000)),
    "a window beyond its limit": raw_frame(8, 0, b"\x7f\xff\xff\xff") * 2,
    "padding longer than its frame": raw_frame(HEADERS, 1, b"\xff" + POST, END_HEADERS | 8),
    "a stream that depends on itself": raw_frame(HEADERS, 1, b"\0\0\0\1\0" + POST, END_HEADERS | 0x20),
    "a push by the client": raw_frame(5, 1, b"\0\0\0\2" + POST, END_HEADERS),
}


@pytest.mark.parametrize("frames", ENDLESS.values(), ids=ENDLESS)
async def test_frames_that_no_client_needs_end_their_connection_and_relays_go_on(redis, tmp_path, frames):
    async with relaying(redis, tmp_path) as relayer:
        client = await Http2Client.dial(relayer)
        client.send()
        client.writer.write(frames)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(client.reader.read(), 10)
        client.writer.close()
        await until(lambda: relayer.connections.open == 0)
        await until(lambda: held(relayer) == 0)
        assert await served(relayer)


async def test_an_answer_for_which_no_window_is_opened_is_dropped_in_time(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=SHORT_TIMEOUTS) as relayer:
        client = await Http2Client.dial(relayer)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        number = client.begin(headers=[("rpc-type", "3")])
        client.h2.send_data(number, relayer.request().encode(), end_stream=True)
        client.send()
        reset = await client.read(lambda event: isinstance(event, StreamReset | DataReceived))
        assert isinstance(reset, StreamReset)
        await until(lambda: held(relayer) == 0)
        assert await served(relayer, body=b"after")
        client.writer.close()


async def test_unfinished_streams_of_strangers_replace_each_other_and_relays_go_on(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        relayer.http2.uploads = StrangersUploads(20)
        clients = [await Http2Client.dial(relayer) for _ in range(2)]
        for client in clients:
            client.send()
            client.writer.write(b"".join(raw_frame(HEADERS, 2 * n + 1, POST, END_HEADERS) for n in range(20)))
            await until(lambda: relayer.http2.uploads.unfinished == 20)
        answers = Answers()
        while answers.rejected < 20:
            answers.feed(await asyncio.wait_for(clients[0].reader.read(65_536), 10))
        assert relayer.http2.uploads.unfinished == 20
        assert await served(relayer)
        for client in clients:
            client.writer.close()
        await until(lambda: held(relayer) == 0)


async def test_a_flooding_client_that_reads_nothing_is_cut(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=ClientTimeouts(linger_seconds=0.2)) as relayer:
        client = await Http2Client.dial(relayer)
        client.writer.transport.pause_reading()
        client.send()
        for _ in range(900):
            client.writer.write(FLOODS["PING"])
        client.writer.write(FLOODS["PING"] * 5000)
        await until(lambda: relayer.connections.open == 0)
        client.writer.transport.abort()
