"""Mutated requests over every decoder of the relay port: typed errors only, nothing slow, replays keep their identity.

FUZZ mutants (3000; `make fuzz` takes more), begun at SEED.
"""

import asyncio
import gzip
import os
import random
import re
import time
import zlib
from collections.abc import Callable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error

from pocket.errors import PocketError
from pocket.protocol.crypto.ring import ExpectedRing, verify_request_signature
from pocket.protocol.relays.envelope import HttpRequest, decode_http_request, decode_http_response
from pocket.protocol.relays.messages import SessionHeader, decode_relay_request, decode_relay_response
from pocket_relayer.backends.backend_connection import BackendConnection
from pocket_relayer.backends.framing import Framing, frame
from pocket_relayer.backends.grpc_calls import metadata_of
from pocket_relayer.backends.header_fields import answer_headers, request_headers
from pocket_relayer.backends.paths import backend_target, grpc_method
from pocket_relayer.backends.response_bodies import ResponseBodyDecoder
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.http1_messages import parse_head
from pocket_relayer.transports.http2_frames import FrameBudget
from pocket_relayer.transports.http2_protocol import ServerProtocol
from pocket_relayer.transports.request_bodies import plain_portions
from pocket_relayer.transports.websocket_frames import FrameFollower
from world import World, address, key

SLOW_SECONDS = 1.0  # of CPU
COUNT, SEED = int(os.environ.get("FUZZ", "3000")), int(os.environ.get("SEED", "1"))
WORLD = World()
HEADER = SessionHeader(address("app eth"), "eth", "ab" * 32, 1, 10)
REQUEST = WORLD.request(HEADER, address("alice"), b'{"id":1}', "http://gw/v1/../x?a=b")
RING = ExpectedRing.of([key("gateway").public_key, key("app eth").public_key])
IDENTITY = verify_request_signature(REQUEST.signable_hash(), REQUEST.signature, RING)
ENVELOPE = HttpRequest("POST", "http://gw/%2e%2e/x;y?a=b#c", {"Content-Type": ("a", "b"), "X-Y": ("z",)}, b"body")
BITS = (
    b"\0", b"\xff", b"..", b"%2e", b"/", b"\\", b"\r\n", b"\x12\x00", b"\x7b", b"\x0a\x00", b"\x1f\x8b", b"\x80" * 9,
)  # fmt: skip


def relay(data: bytes) -> None:
    """Decode and verify the body of a relay request.

    A mutant with a valid signature is the same relay.
    """
    request = decode_relay_request(data)
    if request.signature and request.problem() is None:
        found = verify_request_signature(request.signable_hash(), request.signature, RING)
        assert found == IDENTITY, "another identity of the same signature"
    decode_http_request(request.payload)


def envelope(data: bytes) -> None:
    """Decode a payload, its URL and its headers."""
    found = decode_http_request(data)
    request_headers(found, {}, {}, {"X-Api-Key": "k"})
    assert backend_target("http://b:1/base?k=v", "", found.url).startswith("/base"), "outside the prefix"
    grpc_method(found.url)


def unpack(data: bytes) -> None:
    """Unpack a packed answer."""
    assert len(ResponseBodyDecoder(10_000).feed(data)) <= 10_000


def head(data: bytes) -> None:
    """Parse the head of an HTTP/1.1 request. What is accepted has one length and one host, and no line end within."""
    found = parse_head(data)
    if found is not None:
        parsed, end = found
        assert data[:end].endswith(b"\r\n\r\n"), "an end within the head"
        assert len(parsed.headers.getall("Content-Length")) == len(parsed.headers.getall("Host")) == 1
        assert "Transfer-Encoding" not in parsed.headers
        assert all("\r" not in text and "\n" not in text for pair in parsed.headers.items() for text in pair)


def http2(data: bytes) -> None:
    """Receive HTTP/2 frames in two pieces, within their budgets."""
    budget = FrameBudget()
    protocol = ServerProtocol(budget.take_fields)
    protocol.initiate_connection()
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        if budget.take(piece, 0.0):
            protocol.receive_data(piece)


def web_socket(data: bytes) -> None:
    """Follow WebSocket frames, whole and byte by byte alike."""
    whole, pieces = FrameFollower(), FrameFollower()
    ended = whole.feed(data)
    assert ended == [size for byte in data for size in pieces.feed(bytes([byte]))]
    assert whole.unfinished == pieces.unfinished


def packed_request(data: bytes) -> None:
    """Unpack a packed request."""
    for _ in range(10):
        if not next(plain_portions(data), b""):
            break


def backend_answer(data: bytes) -> None:
    """Parse the response of a backend. It is whole, unfinished, or a typed error."""
    connection = BackendConnection(LOOP)
    connection.connection_made(DeafTransport())
    connection.send(b"", b"", head_only=False)
    connection.data_received(data)
    connection.connection_lost(None)
    if connection.complete and not connection.reusable:
        answer_headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in connection.headers)


def grpc_metadata(data: bytes) -> None:
    """Make the metadata of a gRPC call. gRPC takes all of it."""
    for name, value in metadata_of(decode_http_request(data), {"X-Api-Key": "k"}):
        assert grpc_key(name.encode()), name
        assert isinstance(value, bytes) or value.isprintable(), value


class DeafTransport(asyncio.Transport):
    """A transport that sends nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Discard the data."""

    def abort(self) -> None:
        """Do nothing."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def is_closing(self) -> bool:
        """Return False."""
        return False

    def get_write_buffer_size(self) -> int:
        """Return 0."""
        return 0


LOOP = asyncio.new_event_loop()
LOOP.close()
grpc_key = re.compile(rb"[0-9a-z_.-]+").fullmatch
HEAD = b"POST /v1?a=b HTTP/1.1\r\nHost: relayer\r\nRpc-Type: 3\r\nContent-Length: 12\r\nConnection: keep-alive\r\n\r\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
    b"5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\nX-T: r\r\n\r\n"
)


def _http2_request() -> bytes:
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    target = [(":path", "/"), (":scheme", "http"), (":authority", "r")]
    client.send_headers(1, [(":method", "POST"), *target, ("rpc-type", "3")])
    client.send_data(1, b"body" * 30)
    client.ping(b"12345678")
    client.end_stream(1)
    client.send_headers(3, [(":method", "GET"), *target])
    return client.data_to_send()


FRAMES = b"\x02\x85mask12345\x89\x80mask\x80\xfe\x00\x80mask" + bytes(128)
DECODERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (relay, REQUEST.encode()),
    (envelope, ENVELOPE.encode()),
    (decode_relay_response, WORLD.relay(HEADER, "alice", 1)),
    (decode_http_response, ENVELOPE.encode()),
    (Framing(10_000).all, frame(REQUEST.encode()) + frame(b"x")),
    (unpack, zlib.compressobj(wbits=31).flush() + b"\x1f\x8b\x08"),
    (head, HEAD),
    (http2, _http2_request()),
    (web_socket, FRAMES),
    (packed_request, gzip.compress(REQUEST.encode())),
    (backend_answer, ANSWER),
    (grpc_metadata, ENVELOPE.encode()),
]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to four changes: bits, cuts, insertions, doublings."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(5):
            case 0 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                out[at:at] = chance.choice(BITS)
            case 2:
                del out[at : at + chance.randint(1, 8)]
            case 3:
                out += out[at : at + 64]
            case _:
                out[at : at + 2] = chance.randbytes(2)
    return bytes(out)


def test_mutants_of_requests_are_decoded_or_refused_with_a_typed_error_and_soon():
    chance, taken = random.Random(SEED), 0
    for number in range(COUNT):
        decode, original = chance.choice(DECODERS)
        data = mutated(original, chance)
        begun = time.process_time()
        try:
            decode(data)
            taken += 1
        except (PocketError, Rejected, ValueError, OSError, H2Error, zlib.error):
            pass
        except Exception as error:  # noqa: BLE001 - what this looks for
            pytest.fail(f"{decode.__name__}, mutant {number} of SEED={SEED}: {error!r}: {data.hex()}")
        assert time.process_time() - begun < SLOW_SECONDS, f"{decode.__name__}: {data.hex()}"
    assert 0 < taken < COUNT
