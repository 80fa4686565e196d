"""Clients that read nothing are dropped, and those that read slowly are not."""

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field

import pytest

from pocket_relayer.transports.unread_timer import UnreadTimer, unread_bytes


@dataclass
class Loop:
    """Runs timers when the test advances its clock."""

    now: float = 0.0
    timers: list = field(default_factory=list)

    def call_later(self, seconds, call, *arguments):
        timer = Timer(self.now + seconds, call, arguments)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.call(*timer.arguments)


@dataclass
class Timer:
    at: float
    call: object
    arguments: tuple
    cancelled: bool = False

    def cancel(self):
        self.cancelled = True


@dataclass
class Transport:
    unread: int

    def get_write_buffer_size(self):
        return self.unread

    def get_extra_info(self, name):
        return None


@pytest.fixture
def timer():
    loop, dropped = Loop(), []
    unread = UnreadTimer(loop, 30.0)
    return loop, unread, lambda transport: unread.start(transport, lambda: dropped.append(loop.now)), dropped


def test_a_client_that_reads_slowly_is_kept_for_as_long_as_it_reads(timer):
    loop, _, start, dropped = timer
    transport = Transport(10_000_000)
    start(transport)
    for _ in range(20):
        transport.unread -= 20_000
        loop.advance(30)
    assert dropped == []
    loop.advance(30)
    assert dropped == [630]


@pytest.mark.parametrize("read", [0, 1, 16 * 1024 - 1])
def test_a_client_that_reads_next_to_nothing_is_dropped(timer, read):
    loop, _, start, dropped = timer
    transport = Transport(1_000_000)
    start(transport)
    transport.unread -= read
    loop.advance(30)
    assert dropped == [30]


def test_a_client_that_reads_again_is_not_dropped(timer):
    loop, unread, start, dropped = timer
    start(Transport(1_000_000))
    unread.stop()
    loop.advance(60)
    assert dropped == []


async def test_what_the_kernel_still_holds_is_unread():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=accepted)
    try:
        transport.write(bytes(10_000_000))
        before = unread_bytes(transport)
        assert before > transport.get_write_buffer_size()
        client.setblocking(False)
        async with asyncio.timeout(10):
            while unread_bytes(transport):
                with contextlib.suppress(BlockingIOError):
                    client.recv(1_000_000)
                await asyncio.sleep(0)
    finally:
        transport.abort()
        client.close()
        listener.close()
        await asyncio.sleep(0)
