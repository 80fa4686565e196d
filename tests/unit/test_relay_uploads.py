"""Bodies of HTTP/1.1 requests that arrive in parts: complete, and read in turns from strangers."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.api.relayminer import ConnectionLimits
from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.pipeline.fair_queue import FairQueue
from pocket_relayer.transports.client_connections import Connections
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.first_requests import FirstRequests
from pocket_relayer.transports.http1_messages import parse_head
from pocket_relayer.transports.http1_relays import RelayConnection, RelayServer
from pocket_relayer.transports.http1_uploads import Upload
from pocket_relayer.transports.replies import OutgoingResponse

MIB = 1024 * 1024


def head(size):
    return b"POST / HTTP/1.1\r\nHost: relayer\r\nContent-Length: %d\r\n\r\n" % size


class Router:
    """Keeps the bodies of requests."""

    def __init__(self):
        self.bodies = []

    async def answer(self, request):
        self.bodies.append(await request.read())
        return OutgoingResponse(200, {})


class Transport(asyncio.Transport):
    """The server's end of a connection."""

    paused = closing = False

    def write(self, data):
        """Send nothing."""

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False


class Clients:
    """Connections of one worker."""

    def __init__(self):
        self.router, self.turns, self.memory = Router(), FairQueue(lambda: 0.0, per_iteration=2.0), MemoryBudget(float)
        self.connections = Connections(ConnectionLimits(), self.memory)
        first = FirstRequests(self.turns)
        self.server = RelayServer(self.router, lambda: 10 * MIB, ClientTimeouts(), None, None, first)

    def connect(self, *, trusted=False):
        transport = Transport({"peername": ("192.0.2.1", 1)})
        connection = self.connections.admit(transport)
        if trusted:
            connection.trust()
        protocol = RelayConnection(self.server, connection)
        protocol.connection_made(transport)
        return protocol


async def iterations(number):
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("trusted", [False, True])
async def test_bodies_of_strangers_are_read_in_turns(trusted):
    clients = Clients()
    uploads = [clients.connect(trusted=trusted) for _ in range(10)]
    for one in uploads:
        one.data_received(head(2 * MIB) + bytes(MIB))
    paused = sum(one._transport.paused for one in uploads)
    assert paused == (0 if trusted else 9)
    await iterations(5 if trusted else 60)
    assert not any(one._transport.paused for one in uploads)
    for one in uploads:
        one.data_received(bytes(MIB))
    await iterations(200)
    assert clients.router.bodies == [bytes(2 * MIB)] * 10
    for one in uploads:
        one.connection_lost(None)
    assert clients.memory.used == 0


async def test_a_body_that_waits_for_its_turn_is_left_with_its_connection():
    clients = Clients()
    uploads = [clients.connect() for _ in range(3)]
    for one in uploads:
        one.data_received(head(2 * MIB) + bytes(MIB))
    for one in uploads:
        one._transport.closing = True
        one.connection_lost(None)
    await iterations(60)
    assert (clients.memory.used, clients.router.bodies) == (0, [])


@given(st.lists(st.sampled_from([1, 2, 100, 16_383, 16_384, 20_000]), min_size=1, max_size=20))
def test_a_body_is_what_arrived_whatever_its_parts(sizes):
    body = bytes(n % 251 for n in range(sum(sizes)))
    parsed, _ = parse_head(head(len(body)))
    upload, at = Upload(parsed, None), 0
    for size in sizes:
        upload.add(body[at : at + size])
        at += size
        assert upload.size == at
    assert b"".join(upload.parts) == body
    assert upload.missing == 0
    assert len(upload.parts) <= 1 + 2 * sum(size >= 16_384 for size in sizes), "small parts share one"
