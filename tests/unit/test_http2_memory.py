"""Memory of HTTP/2 connections themselves: which of them make room for others, and which end."""

from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.transports.client_connections import Connection
from pocket_relayer.transports.http2_memory import CONNECTION_BYTES, Http2Memory

LIMIT = 1_000_000


class Clients:
    """HTTP/2 connections of as many addresses, and the numbers of those that were aborted."""

    def __init__(self):
        self.now, self.aborted = 0.0, []
        self.memory = MemoryBudget(lambda: self.now, LIMIT)

    def open(self, number):
        budget = self.memory.connection(f"192.0.2.{number}")
        found = Http2Memory(Connection(None, budget, lambda: self.aborted.append(number)))
        assert found.open()
        return found

    def fill(self, size):
        """Take memory for requests of others, of which each connection may have a quarter."""
        for part in range(0, size, LIMIT // 5):
            reservation = self.memory.connection(f"198.51.100.{part}").reserve()
            reservation.acquire(min(LIMIT // 5, size - part))


def test_a_header_block_without_an_end_makes_room_and_a_single_frame_does_not():
    clients = Clients()
    block, frame = clients.open(1), clients.open(2)
    for one, size in ((block, 200_000), (frame, 16_000)):
        one.hold()
        assert one.count_unparsed(size)
        one.release(idle=False)
    clients.now = 1.0
    clients.fill(LIMIT - 100_000)
    assert clients.aborted == [1]


def test_connections_without_streams_make_room_and_those_without_requests_for_longest_go_first():
    clients = Clients()
    idle = [clients.open(number) for number in range(20)]
    busy = clients.open(20)
    busy.hold()
    busy.release(idle=False)
    clients.now = 5.0
    for one in idle[:10]:
        one.on_request()
    clients.now = 6.0
    clients.fill(LIMIT - 20 * CONNECTION_BYTES)
    assert 0 < len(clients.aborted) <= 10
    assert set(clients.aborted) <= set(range(10, 20))


def test_a_header_block_without_room_ends_its_connection_and_a_frame_only_its_stream():
    clients = Clients()
    block, other = clients.open(1), clients.open(2)
    block.hold()
    assert not block.count_unparsed(LIMIT // 4)
    assert clients.aborted == [1]
    other.hold()
    clients.memory.connection_limit = CONNECTION_BYTES
    assert other.count_unparsed(16_000)
    assert clients.aborted == [1]
