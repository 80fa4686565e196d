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
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamReset
from h2.settings import SettingCodes

from callers import METHOD
from hostile_clients import MIB, SHORT_TIMEOUTS, dial, post, served, until
from pocket.api.relayminer import ConnectionLimits
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from relays import relaying
from transports import all_transports, connected, frame

pytestmark = pytest.mark.redis

LARGE = {"maxBodyBytes": 10 * MIB}


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
                    await until(lambda: relayer.memory.used >= 3 * MIB)
                    for writer in writers:
                        writer.transport.abort()
                await until(lambda: relayer.memory.used == 0)
            await until(lambda: relayer.connections.open == 0)
            assert tracemalloc.get_traced_memory()[0] - before < 4 * MIB
        finally:
            tracemalloc.stop()
            gc.enable()


async def test_unfinished_bodies_make_room_for_a_relay_of_the_same_address(redis, tmp_path):
    async with relaying(redis, tmp_path, service=LARGE, memory_bytes=32 * MIB) as relayer:
        async with unfinished(relayer, 12, 4 * MIB):
            await until(lambda: relayer.memory.used > 8 * MIB)
            for number in range(5):
                assert await served(relayer, body=b"%d" % number * 900_000)
            assert relayer.memory.used <= 32 * MIB
        await until(lambda: relayer.memory.used == 0)


async def test_a_body_that_stands_still_is_refused_in_time(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=SHORT_TIMEOUTS) as relayer:
        reader, writer = await dial(relayer)
        writer.write(post(5000) + bytes(100))
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()
        await until(lambda: relayer.memory.used == 0)


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
        await until(lambda: relayer.memory.used == 0)
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
        await until(lambda: relayer.memory.used == 0)


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
        await until(lambda: relayer.memory.used == 0)
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
        await until(lambda: relayer.memory.used == 100)
        writer.write_eof()
        assert not (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200")
        writer.close()
        await until(lambda: relayer.memory.used == 0)


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


class Http2Client:
    """An HTTP/2 client by hand."""

    def __init__(self, reader, writer, place):
        self.reader, self.writer, self.events = reader, writer, []
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.head = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", place)]

    @classmethod
    async def dial(cls, relayer):
        return cls(*await dial(relayer), urlsplit(relayer.url).netloc)

    def send(self):
        self.writer.write(self.h2.data_to_send())

    async def read(self, wanted):
        """Read events until one is wanted.

        Raises EOFError at the end of the connection.
        """
        async with asyncio.timeout(10):
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                self.events = []
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self.events = self.h2.receive_data(data)
                self.send()

    def begin(self, *, headers=(), end=False):
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, [*self.head, *headers], end_stream=end)
        self.send()
        return number


def is_ended(event):
    return isinstance(event, ConnectionTerminated)


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
        number = client.begin(headers=[("x", "y" * 200_000)], end=True)
        reset = await client.read(lambda event: isinstance(event, StreamReset))
        assert reset.stream_id == number
        second = client.begin(headers=[("rpc-type", "3")])
        client.h2.send_data(second, relayer.request().encode(), end_stream=True)
        client.send()
        answer = await client.read(lambda event: isinstance(event, ResponseReceived))
        assert dict(answer.headers)[":status"] == "200"
        client.writer.close()


async def test_calls_of_a_grpc_client_go_on_beside_one_with_oversized_metadata(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer, grpc.aio.insecure_channel(urlsplit(relayer.url).netloc) as channel:
        call = channel.unary_unary(METHOD)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(relayer.request().encode(), metadata=[("x", "y" * 100_000)], timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(relayer.request().encode(), timeout=10)


async def test_an_http2_client_that_takes_no_answers_is_not_read_on_and_dropped(redis, tmp_path):
    async with relaying(redis, tmp_path, timeouts=SHORT_TIMEOUTS) as relayer:
        client = await Http2Client.dial(relayer)
        client.send()
        with contextlib.suppress(ConnectionError):
            while True:  # each is answered, and none is read
                client.writer.write(FLOODS["PING"] * 100)
                await asyncio.wait_for(client.writer.drain(), 5)
                await asyncio.sleep(0.01)
        client.writer.close()
        await until(lambda: relayer.connections.open == 0)


async def test_websocket_messages_without_an_end_make_room_for_relays(redis, tmp_path):
    async with all_transports(redis, tmp_path, service=LARGE, memory_bytes=32 * MIB) as (relayer, _):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                socket = await stack.enter_async_context(connected(relayer))
                part = bytes([0xFE, 0xFF, 0xFF]) + b"mask" + bytes(65_535)
                socket._response.connection.transport.write(b"\x02" + part + (b"\0" + part) * 100)
            await until(lambda: relayer.memory.used > 16 * MIB)
            paying = await stack.enter_async_context(connected(relayer))
            await paying.send_bytes(frame(relayer, b"hello").encode())
            assert (await paying.receive(10)).type is aiohttp.WSMsgType.BINARY
            assert relayer.memory.used <= 32 * MIB
        await until(lambda: relayer.memory.used == 0)


async def test_a_websocket_message_that_does_not_come_in_time_ends_its_connection(redis, tmp_path):
    async with all_transports(redis, tmp_path, timeouts=SHORT_TIMEOUTS) as (relayer, _):
        async with connected(relayer) as socket:
            socket._response.connection.transport.write(bytes([0x02, 0xFE, 0xFF, 0xFF]) + b"mask" + bytes(100))
            assert (await socket.receive(10)).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 1008
        await until(lambda: relayer.memory.used == 0)


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
