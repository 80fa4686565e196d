"""Streams of HTTP/2 connections: what an unfinished one takes, and how many a connection may open."""

import asyncio
import contextlib
import random

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RemoteSettingsChanged, ResponseReceived, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from http2_client import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    POST,
    RST_STREAM,
    WINDOW_UPDATE,
    raw_frame,
    raw_settings,
)
from pocket.api.relayminer import ConnectionLimits
from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.client_connections import Connections
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http2 import Http2Server
from pocket_relayer.transports.http2_streams import StrangersUploads
from pocket_relayer.transports.replies import OutgoingResponse

HEAD = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "relayer")]
LIMIT = 40_000_000


class Router:
    """Serves relays, and refuses what has a Content-Type without reading it."""

    async def answer(self, request):
        if "content-type" in request.headers:
            return OutgoingResponse(400, {})
        try:
            body = await request.read()
        except Rejected as rejected:
            return OutgoingResponse(rejected.status, {})
        assert body == b"relay"
        request.on_served()
        return OutgoingResponse(200, {})


class Transport(asyncio.Transport):
    """The server's end of a connection, whose output its client reads at once."""

    def __init__(self, client, address):
        super().__init__({"peername": (address, 1)})
        self._client, self.closed = client, False

    def write(self, data):
        self._client.read(bytes(data))

    def is_closing(self):
        return self.closed

    def abort(self):
        self.closed = True

    def get_write_buffer_size(self):
        return 0

    close = abort

    def pause_reading(self):
        """Read on: input waits within the connection."""

    resume_reading = pause_reading


class Client:
    """A client that ignores the server's limits."""

    def __init__(self, relayer, address="192.0.2.1"):
        self.h2, self.events = H2Connection(H2Configuration(header_encoding="utf-8")), []
        self.transport = Transport(self, address)
        self.protocol = relayer.server(relayer.connections.admit(self.transport))
        self.h2.initiate_connection()
        self.protocol.connection_made(self.transport)
        self.send()

    def read(self, data):
        with contextlib.suppress(ProtocolError):  # of frames that are no client's
            self.events += self.h2.receive_data(data)

    def send(self):
        self.protocol.data_received(self.h2.data_to_send())

    def open(self, number=1, body=b"", *, end=False, headers=()):
        self.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
        self.h2.remote_settings.acknowledge()
        for _ in range(number):
            stream = self.h2.get_next_available_stream_id()
            self.h2.send_headers(stream, [*HEAD, *headers], end_stream=end and not body)
            if body:
                self.h2.send_data(stream, body, end_stream=end)
        self.send()

    def statuses(self):
        return [dict(one.headers)[":status"] for one in self.events if isinstance(one, ResponseReceived)]

    def resets(self):
        return [one.error_code for one in self.events if isinstance(one, StreamReset)]

    def allowed_streams(self):
        changes = [one.changed_settings for one in self.events if isinstance(one, RemoteSettingsChanged)]
        code = SettingCodes.MAX_CONCURRENT_STREAMS
        return [change[code].new_value for change in changes if code in change]


class Relayer:
    """An HTTP/2 server and its limits."""

    def __init__(self, timeouts):
        self.now = 0.0
        self.memory = MemoryBudget(lambda: self.now, LIMIT)
        self.connections = Connections(ConnectionLimits(), self.memory)
        self.server = Http2Server(Router(), lambda: 1_000_000, timeouts)


async def iterations(number=100):
    for _ in range(number):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def served(timeouts):
    relayer = Relayer(timeouts)
    yield relayer
    for connection in list(relayer.server.connections):
        connection.connection_lost(None)
    await iterations(3)
    assert relayer.memory.used == 0, "memory of streams or connections that ended"
    assert relayer.server.uploads.unfinished == 0


@pytest.fixture
async def relayer():
    async with served(ClientTimeouts()) as found:
        yield found


async def test_a_stream_whose_body_has_not_arrived_has_no_task(relayer):
    client, tasks = Client(relayer), len(asyncio.all_tasks())
    client.open(20, b"rel")
    await iterations()
    assert relayer.server.uploads.unfinished == 20
    assert len(asyncio.all_tasks()) == tasks
    for stream in range(1, 41, 2):
        client.h2.send_data(stream, b"ay", end_stream=True)
    client.send()
    await iterations()
    assert client.statuses() == ["200"] * 20
    assert relayer.server.uploads.unfinished == 0


async def test_a_connection_may_open_few_streams_until_a_relay_was_served_on_it(relayer):
    client = Client(relayer)
    # Of a number that is lowered later gRPC does not always notice that it has room: its calls would wait for ever.
    assert client.allowed_streams() == [100, 100]
    client.open(108)
    await iterations()
    assert client.resets() == [7] * 8
    client.h2.send_data(1, b"relay", end_stream=True)
    client.send()
    await iterations()
    assert client.statuses() == ["200"]
    assert client.allowed_streams()[-1] == 250
    client.open(300)
    await iterations()
    assert client.resets() == [7] * (8 + 300 - (250 - 99))


async def test_streams_of_strangers_replace_the_oldest_ones_and_those_of_a_flood_are_not_answered(relayer):
    relayer.server.uploads = StrangersUploads(10)
    clients = [Client(relayer) for _ in range(4)]
    for client in clients:
        client.open(30)
        await iterations()
    assert relayer.server.uploads.unfinished == 10
    oldest = clients[0]
    assert len(oldest.resets()) == 30, "each one ended"
    assert (oldest.statuses(), set(oldest.resets())) == ([], {7})


async def test_a_stream_that_finds_no_memory_is_answered(relayer):
    relayer.memory.connection_limit = 50_000
    client = Client(relayer)
    client.h2.send_headers(1, HEAD)
    for _ in range(4):
        client.h2.send_data(1, bytes(16_000))
    client.send()
    await iterations()
    assert (client.statuses(), client.resets()) == (["503"], [0])


async def test_what_is_no_relay_is_answered_before_its_body(relayer):
    client = Client(relayer)
    client.open(headers=[("content-type", "application/grpc")])
    await iterations()
    assert client.statuses() == ["400"]
    assert client.resets() == [0], "gRPC clients wait for the end of the stream"


async def test_a_stream_that_is_late_at_once_is_refused():
    async with served(ClientTimeouts(read_seconds=0.0)) as relayer:
        relayer.server.uploads = StrangersUploads(1)
        client = Client(relayer)
        client.open(3)
        await iterations()
        assert (client.statuses(), client.resets()) == (["408"] * 3, [0] * 3)


def frames_of(chance, stream):
    """Return frames that open a stream or belong to one that was opened lately."""
    known = max(1, stream - 2 * chance.randrange(4))
    match chance.randrange(8):
        case 0 | 1 | 2:
            kind = chance.choice([b"", b"\x5f\x10application/grpc"])
            return raw_frame(HEADERS, stream, POST + kind, END_HEADERS | chance.choice([0, 0, END_STREAM]))
        case 3 | 4:
            return raw_frame(DATA, known, chance.choice([b"relay", b"re", bytes(3000)]), chance.choice([0, END_STREAM]))
        case 5:
            return raw_frame(RST_STREAM, known, b"\0\0\0\x08")
        case 6:
            return raw_frame(WINDOW_UPDATE, chance.choice([0, known]), chance.choice([1, 1000]).to_bytes(4, "big"))
        case _:
            return raw_settings([SettingCodes.INITIAL_WINDOW_SIZE], chance.choice([0, 10, 65_535]))


@pytest.mark.parametrize("seed", range(12))
async def test_frames_in_any_order_break_nothing_and_leave_nothing(seed):
    chance, failures = random.Random(seed), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    for _ in range(10):
        async with served(ClientTimeouts(read_seconds=chance.choice([0.0, 0.001, 15.0]))) as relayer:
            relayer.memory.limit = chance.choice([200_000, LIMIT])
            relayer.server.uploads = StrangersUploads(chance.choice([3, 1000]))
            clients = [Client(relayer) for _ in range(2)]
            streams = dict.fromkeys(clients, 1)
            for _ in range(chance.randint(1, 60)):
                client = chance.choice(clients)
                if not client.transport.closed:
                    client.protocol.data_received(frames_of(chance, streams[client]))
                    streams[client] += 2
                await iterations(chance.choice([0, 1, 10]))
                if chance.random() < 0.05:
                    client.protocol.pause_writing()
                    client.protocol.resume_writing()
    assert failures == []


async def test_a_body_that_stops_arriving_is_refused_in_time():
    async with served(ClientTimeouts(read_seconds=0.01, bytes_per_second=1e9)) as relayer:
        client = Client(relayer)
        client.open(1, b"rel")
        async with asyncio.timeout(10):
            while not client.statuses():  # noqa: ASYNC110 - a timer of the event loop ends it
                await asyncio.sleep(0.005)
        assert (client.statuses(), client.resets()) == (["408"], [0])


async def test_a_connection_makes_room_for_others_once_its_last_stream_has_ended(relayer):
    unfinished, over = Client(relayer, "192.0.2.1"), Client(relayer, "192.0.2.2")
    unfinished.open(1, b"rel")
    over.open(1, b"rel")
    await iterations()
    over.h2.reset_stream(1)
    over.send()
    await iterations()
    relayer.now = 10.0
    others = [relayer.memory.connection(f"198.51.100.{n}").reserve() for n in range(4)]
    for one in others:
        one.acquire(relayer.memory.connection_limit - 15_000)
    assert (unfinished.transport.closed, over.transport.closed) == (False, True)
    for one in others:
        one.close()


async def test_a_stream_that_ends_outside_of_its_connections_input_lets_the_connection_make_room(relayer):
    client = Client(relayer)
    client.open(1, b"relay", end=True)
    await iterations()
    assert client.statuses() == ["200"]
    relayer.now = 10.0
    others = [relayer.memory.connection(f"198.51.100.{n}").reserve() for n in range(4)]
    for one in others:
        one.acquire(relayer.memory.connection_limit - 5_000)
    assert client.transport.closed
    for one in others:
        one.close()
