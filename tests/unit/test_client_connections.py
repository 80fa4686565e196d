"""How many connections clients may have, and which one goes."""

import pytest

from pocket.api.relayminer import ConnectionLimits
from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.client_connections import CONNECTION_BYTES, Connections, address_of


class Transport:
    """The two things that are asked of a transport before it is served."""

    def __init__(self, address="192.0.2.1"):
        self.address, self.aborted = address, False

    def get_extra_info(self, name):
        return (self.address, 1234) if name == "peername" else None

    def abort(self):
        self.aborted = True


def connections(**limits):
    return Connections(ConnectionLimits(**limits), MemoryBudget(lambda: 0.0))


def test_a_newcomer_takes_the_place_of_the_oldest_connection_without_a_proven_relay():
    limited = connections(total=16, per_address=3)
    paying, *strangers = [Transport() for _ in range(6)]
    limited.admit(paying).trust()
    for transport in strangers:
        assert limited.admit(transport) is not None
    assert [transport.aborted for transport in (paying, *strangers)] == [False, True, True, True, False, False]
    assert limited.open == 3


def test_one_address_cannot_take_the_places_of_others_but_the_total_counts():
    limited = connections(total=16, per_address=10)
    others = [Transport(f"192.0.2.{number}") for number in range(2, 8)]
    for transport in others:
        limited.admit(transport)
    flood = [Transport() for _ in range(40)]
    for transport in flood:
        limited.admit(transport)
    assert not any(transport.aborted for transport in others)
    assert limited.open == 16


def test_where_all_connections_are_proven_a_newcomer_is_refused():
    limited = connections(total=16, per_address=2)
    for _ in range(2):
        limited.admit(Transport()).trust()
    refused = Transport()
    assert limited.admit(refused) is None
    assert refused.aborted


def test_a_place_is_free_again_once_whatever_ends_the_connection():
    limited = connections(total=16, per_address=1)
    first = limited.admit(Transport())
    second = limited.admit(Transport())
    first.lost()  # told by the event loop after it was pushed out
    assert limited.open == 1
    second.trust()
    second.lost()
    second.lost()
    assert limited.open == 0
    assert limited.admit(Transport()) is not None


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("2001:0:0:1::9", "2001:0:0:1::"),
        ("2001::1:2:3:4:5", "2001:0:0:1::"),
        ("2001:db8::1", "2001:db8::"),
        ("::1", "::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_one_client_is_one_address_or_one_network_of_ipv6(peer, address):
    assert address_of(Transport(peer)) == address


def test_where_all_connections_are_proven_a_newcomer_replaces_one_that_served_nothing_for_long():
    now, transports = [0.0], [Transport() for _ in range(3)]
    limited = Connections(
        ConnectionLimits(total=16, per_address=3, idle_seconds=60), MemoryBudget(lambda: 0.0), lambda: now[0]
    )
    admitted = [limited.admit(transport) for transport in transports]
    for connection in admitted:
        connection.trust()
    assert limited.admit(Transport()) is None, "all of them served something just now"
    now[0] = 59.0
    assert limited.admit(Transport()) is None
    admitted[0].trust()
    now[0] = 61.0
    newcomer = limited.admit(Transport())
    assert newcomer is not None
    assert [transport.aborted for transport in transports] == [False, True, False]
    newcomer.trust()
    assert limited.admit(Transport()) is not None
    assert [transport.aborted for transport in transports] == [False, True, True]
    assert limited.admit(Transport()) is not None, "in place of the one before, which is not proven"
    assert not transports[0].aborted
    assert limited.open == 3


def test_a_connection_whose_relay_was_served_after_its_loss_keeps_no_place():
    now = [0.0]
    limits = ConnectionLimits(total=16, per_address=2, idle_seconds=10)
    limited = Connections(limits, MemoryBudget(lambda: now[0]), lambda: now[0])
    gone, kept = limited.admit(Transport()), limited.admit(Transport())
    gone.lost()
    gone.trust()
    others = [kept, limited.admit(Transport())]
    for time in (20.0, 40.0):
        now[0] = time
        for connection in others:
            connection.trust()
        assert limited.admit(Transport()) is None, "both served a relay lately"
    assert limited.open == 2


def test_the_places_of_all_addresses_are_freed_in_the_same_way():
    now = [0.0]
    limited = Connections(
        ConnectionLimits(total=16, per_address=16, idle_seconds=60), MemoryBudget(lambda: 0.0), lambda: now[0]
    )
    transports = [Transport(f"192.0.2.{number}") for number in range(16)]
    for transport in transports:
        limited.admit(transport).trust()
    assert limited.admit(Transport()) is None
    now[0] = 61.0
    assert limited.admit(Transport()) is not None
    assert sum(transport.aborted for transport in transports) == 1


def occupied(limited):
    """Return what connections occupy. It is a part of the memory, half of it at most, and here all that is used."""
    assert limited.occupied == limited.memory.used <= limited.memory.limit // 2
    return limited.occupied


def test_connections_occupy_half_of_the_memory_and_replace_the_oldest_ones_without_a_proven_relay():
    limited = Connections(ConnectionLimits(), MemoryBudget(lambda: 0.0, 20 * CONNECTION_BYTES))
    paying, *strangers = [Transport() for _ in range(12)]
    limited.admit(paying).trust()
    for transport in strangers:
        assert limited.admit(transport) is not None
    assert [transport.aborted for transport in strangers] == [True, True, *[False] * 9]
    assert occupied(limited) == 10 * CONNECTION_BYTES
    newest = limited.admit(Transport())
    newest.occupy(5 * CONNECTION_BYTES)
    newest.occupy(CONNECTION_BYTES)
    assert [transport.aborted for transport in strangers] == [True] * 7 + [False] * 4
    assert occupied(limited) == 10 * CONNECTION_BYTES
    newest.lost()
    assert occupied(limited) == 5 * CONNECTION_BYTES
    assert not paying.aborted


def test_a_connection_that_finds_no_room_beside_proven_ones_is_refused():
    limited = Connections(ConnectionLimits(), MemoryBudget(lambda: 0.0, 20 * CONNECTION_BYTES))
    proven = [limited.admit(Transport()) for _ in range(10)]
    for connection in proven:
        connection.trust()
    with pytest.raises(Rejected):
        proven[0].occupy(2 * CONNECTION_BYTES)
    refused = Transport()
    assert limited.admit(refused) is None
    assert refused.aborted
    assert limited.open == 10
    proven[0].lost()
    assert limited.admit(Transport()) is not None
    assert occupied(limited) == 10 * CONNECTION_BYTES


def test_a_connection_that_wants_more_than_there_is_or_is_lost_occupies_nothing_more():
    limited = Connections(ConnectionLimits(), MemoryBudget(lambda: 0.0, 20 * CONNECTION_BYTES))
    transport = Transport()
    connection = limited.admit(transport)
    with pytest.raises(Rejected):
        connection.occupy(11 * CONNECTION_BYTES)
    assert not transport.aborted, "it can be told"
    connection.lost()
    with pytest.raises(Rejected):
        connection.occupy(2 * CONNECTION_BYTES)
    assert (limited.open, occupied(limited)) == (0, 0)


def test_proven_connections_are_searched_once_a_second_however_many_newcomers_come():
    now = [10.0]
    limits = ConnectionLimits(total=16, per_address=2, idle_seconds=60)
    limited = Connections(limits, MemoryBudget(lambda: 0.0), lambda: now[0])
    first, second = limited.admit(Transport()), limited.admit(Transport())
    for connection in (first, second):
        connection.trust()
    for time, searched in ((10.0, True), (10.1, False), (10.9, False), (11.0, True), (11.9, False), (12.0, True)):
        now[0] = time
        second.trust()
        assert limited.admit(Transport()) is None
        assert second.served is not searched, "a search forgets what was served before it"
