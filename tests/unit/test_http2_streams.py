"""Streams of HTTP/2 connections: what an unfinished one takes, and how many a connection may open."""

import asyncio
import contextlib
import random

import pytest
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
from http2_peer import HEAD, LIMIT, Client, Http2Relayer, iterations
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http2_streams import StrangersUploads


@contextlib.asynccontextmanager
async def served(timeouts):
    relayer = Http2Relayer(timeouts)
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
    client.h2.send_headers(1, [*HEAD, (":path", "/")])
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
