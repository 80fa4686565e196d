"""The first bytes of a connection decide what serves it, and many HTTP/2 connections begin in turns."""

import asyncio

import pytest

from pocket.api.relayminer import ConnectionLimits
from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.pipeline.fair_queue import FairQueue
from pocket_relayer.transports.client_connections import Connections
from pocket_relayer.transports.listener import PREFACE, Sniffer


class Transport(asyncio.Transport):
    """The server's end of a connection."""

    protocol, paused, closing = None, False, False

    def set_protocol(self, protocol):
        self.protocol = protocol

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False

    def is_closing(self):
        return self.closing

    def abort(self):
        self.closing = True


class Serving(asyncio.Protocol):
    """What serves a connection: it keeps what it gets, and frees the connection's place."""

    def __init__(self, connection):
        self.connection, self.received = connection, b""

    def data_received(self, data):
        self.received += data


class Port:
    """A port whose connections begin two in an iteration of the event loop."""

    def __init__(self):
        self.memory = MemoryBudget(lambda: 0.0)
        self.connections = Connections(ConnectionLimits(), self.memory)
        self.turns = FairQueue(lambda: 0.0, per_iteration=2.0)

    def connect(self):
        transport = Transport({"peername": ("192.0.2.1", 1)})
        transport.sniffer = Sniffer(Serving, Serving, self.connections, self.turns)
        transport.sniffer.connection_made(transport)
        return transport


@pytest.fixture
def port():
    return Port()


async def test_http2_connections_begin_in_turns_with_all_that_they_sent(port):
    transports = [port.connect() for _ in range(40)]
    for one in transports:
        one.sniffer.data_received(PREFACE[:5])
        one.sniffer.data_received(PREFACE[5:] + b"frames")
    assert sum(one.protocol is not None for one in transports) == 2
    begun = 2
    while begun < 40:
        await asyncio.sleep(0)
        now = sum(one.protocol is not None for one in transports)
        assert now - begun <= 2
        begun = now
    assert {one.protocol.received for one in transports} == {PREFACE + b"frames"}
    assert not any(one.paused for one in transports)
    assert port.memory.used == 40 * 4096


async def test_http1_connections_wait_for_no_turn(port):
    transports = [port.connect() for _ in range(40)]
    for one in transports:
        one.sniffer.data_received(b"POST / HTTP/1.1\r\n")
    assert {one.protocol.received for one in transports} == {b"POST / HTTP/1.1\r\n"}


async def test_a_connection_that_is_lost_while_it_waits_is_never_served(port):
    transports = [port.connect() for _ in range(10)]
    for one in transports:
        one.sniffer.data_received(PREFACE)
    for one in transports[2:]:
        one.closing = True
        one.sniffer.connection_lost(None)
    for _ in range(20):
        await asyncio.sleep(0)
    assert [one.protocol is not None for one in transports] == [True] * 2 + [False] * 8
    assert port.connections.open == 2
    assert port.memory.used == 2 * 4096


async def test_a_connection_without_memory_to_wait_is_served_at_once(port):
    transports = [port.connect() for _ in range(4)]
    port.memory.connection_limit = 4096 + 100
    for one in transports:
        one.sniffer.data_received(PREFACE + bytes(200))
    assert [one.protocol.received for one in transports] == [PREFACE + bytes(200)] * 4
    assert port.memory.used == 4 * 4096
