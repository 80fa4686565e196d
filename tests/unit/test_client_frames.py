"""What frames a client sends, followed over any cuts of its stream: WebSocket messages, and HTTP/2 floods."""

import functools
import itertools
import struct

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.http2_frames import FrameBudget
from pocket_relayer.transports.http2_protocol import ServerProtocol
from pocket_relayer.transports.websocket_frames import FrameFollower, IncomingMessages

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def ws_frame(opcode, payload, *, last=True, masked=True):
    head = bytes([(0x80 if last else 0) | opcode])
    size = len(payload)
    mask = 0x80 if masked else 0
    if size < 126:
        head += bytes([mask | size])
    elif size < 65536:
        head += bytes([mask | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mask | 127]) + struct.pack(">Q", size)
    return head + (b"mask" if masked else b"") + payload


def cut(data, places):
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    begins = [0, *ends[:-1]]
    return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]


MESSAGE = st.lists(st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 65_535, 65_536])), min_size=1, max_size=3)


@given(
    st.lists(st.tuples(MESSAGE, st.booleans()), max_size=4),
    st.integers(0, 300),
    st.lists(st.integers(0, 200_000), max_size=10),
)
def test_messages_are_followed_whatever_their_fragments_and_cuts(messages, rest, places):
    stream, expected = b"", []
    for fragments, ping in messages:
        for number, size in enumerate(fragments):
            stream += ws_frame(0 if number else 2, bytes(size), last=number == len(fragments) - 1)
            if ping:
                stream += ws_frame(9, b"p" * 50)
        expected.append(sum(fragments))
    stream += ws_frame(1, bytes(rest), last=False)
    follower, found = FrameFollower(), []
    for piece in cut(stream, places):
        found += follower.feed(piece)
    assert found == expected
    assert follower.unfinished == rest


def incoming():
    now = [0.0]
    memory = MemoryBudget(lambda: now[0], 1_000_000)
    return IncomingMessages(memory.connection("one").reserve(), lambda: now[0]), memory, now


def test_a_message_counts_until_it_was_served_and_tells_since_when_it_has_no_end():
    messages, memory, now = incoming()
    messages.feed(ws_frame(2, bytes(5_000), last=False))
    now[0] = 7.0
    assert messages.unfinished == (5_000, 7.0)
    messages.feed(ws_frame(0, bytes(1_000)) + ws_frame(2, bytes(10)))
    assert messages.unfinished is None
    assert memory.used == 6_010
    messages.served()
    assert memory.used == 10
    messages.close()
    assert memory.used == 0


@pytest.mark.parametrize("flood", [ws_frame(9, b""), ws_frame(10, b""), ws_frame(0, b"x", last=False)])
def test_a_websocket_that_sends_nothing_but_control_frames_or_crumbs_is_refused(flood):
    messages, _, now = incoming()
    for _ in range(300):
        now[0] += 1.0
        messages.feed(flood * 20)
    with pytest.raises(Rejected):
        messages.feed(flood * 2_000)


def h2_frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


FLOODS = {
    "PING": h2_frame(6, 0, 0, b"12345678"),
    "SETTINGS": h2_frame(4, 0, 0, b""),
    "PRIORITY": h2_frame(2, 0, 1, b"\0\0\0\0\1"),
    "WINDOW_UPDATE": h2_frame(8, 0, 0, b"\0\0\0\1"),
    "empty DATA": h2_frame(0, 0, 1, b""),
    "crumbs of DATA": h2_frame(0, 0, 1, b"x"),
    "empty CONTINUATION": h2_frame(9, 0, 1, b""),
    "unknown": h2_frame(77, 0, 1, b""),
    "RST_STREAM": h2_frame(3, 0, 1, b"\0\0\0\10"),
    "HEADERS": h2_frame(1, 5, 1, b"\x82"),
}


@pytest.mark.parametrize("frame", FLOODS.values(), ids=FLOODS)
@given(st.lists(st.integers(0, 60_000), max_size=8))
def test_a_flood_of_frames_that_carry_nothing_is_noticed_in_the_read_that_brings_it(frame, places):
    budget = FrameBudget()
    taken = itertools.takewhile(lambda piece: budget.take(piece, 0.0), cut(PREFACE + frame * 3_000, places))
    assert sum(map(len, taken)) <= len(PREFACE + frame * 1_001), "a read may end within a frame"
    assert FrameBudget().take(PREFACE + frame * 100, 0.0)


@pytest.mark.parametrize("frame", [frame for name, frame in FLOODS.items() if name != "HEADERS"])
def test_what_a_client_sends_now_and_then_is_a_rate_not_a_count(frame):
    budget = FrameBudget()
    assert budget.take(PREFACE, 0.0)
    assert all(budget.take(frame * 50, float(second)) for second in range(1_000))


def test_window_updates_for_what_was_sent_are_no_flood():
    budget = FrameBudget()
    assert budget.take(PREFACE, 0.0)
    for _ in range(1_000):
        for _ in range(10):
            budget.on_sent(16_384, last=False)
        assert budget.take(FLOODS["WINDOW_UPDATE"] * 20, 0.0)


@functools.cache
def busy_client() -> bytes:
    """Return what a client of a hundred relays sends."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    head = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "relayer"), ("rpc-type", "3")]
    for number in range(100):
        client.send_headers(2 * number + 1, head)
        client.send_data(2 * number + 1, bytes(600), end_stream=True)
    return client.data_to_send()


@given(st.lists(st.integers(0, 100_000), max_size=12))
def test_bodies_and_relays_of_a_busy_client_are_no_flood(places):
    budget = FrameBudget()
    assert all(budget.take(piece, 0.0) for piece in cut(busy_client(), places))


def test_a_client_cannot_enlarge_the_table_of_our_own_headers():
    server = ServerProtocol(lambda _: True)
    server.initiate_connection()
    server.receive_data(PREFACE + h2_frame(4, 0, 0, struct.pack(">HI", 1, 2**31 - 1)))
    assert server.encoder.header_table_size == 4096
    server.receive_data(h2_frame(4, 0, 0, struct.pack(">HI", 1, 100)))
    assert server.encoder.header_table_size == 100


def test_header_fields_have_a_budget_that_grows_with_the_first_relay():
    budget = FrameBudget()
    assert budget.take_fields(10_000)
    assert not budget.take_fields(1_000)
    budget.trust()
    assert budget.take_fields(30_000)
