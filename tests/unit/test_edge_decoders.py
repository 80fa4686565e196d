"""Mutated requests over every decoder of the relay port: typed errors only, nothing slow, replays keep their identity.

FUZZ mutants (3000; `make fuzz` takes more), begun at SEED.
"""

import os
import random
import time
import zlib
from collections.abc import Callable

import pytest

from pocket.errors import PocketError
from pocket.protocol.crypto.ring import ExpectedRing, verify_request_signature
from pocket.protocol.relays.envelope import HttpRequest, decode_http_request, decode_http_response
from pocket.protocol.relays.messages import SessionHeader, decode_relay_request, decode_relay_response
from pocket_relayer.backends.header_fields import request_headers
from pocket_relayer.backends.paths import backend_target, grpc_method
from pocket_relayer.backends.response_bodies import ResponseBodyDecoder
from pocket_relayer.framing import Framing, frame
from pocket_relayer.rejection import Rejected
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


DECODERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (relay, REQUEST.encode()),
    (envelope, ENVELOPE.encode()),
    (decode_relay_response, WORLD.relay(HEADER, "alice", 1)),
    (decode_http_response, ENVELOPE.encode()),
    (Framing(10_000).all, frame(REQUEST.encode()) + frame(b"x")),
    (unpack, zlib.compressobj(wbits=31).flush() + b"\x1f\x8b\x08"),
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
        except (PocketError, Rejected, ValueError, zlib.error):
            pass
        except Exception as error:  # noqa: BLE001 - what this looks for
            pytest.fail(f"{decode.__name__}, mutant {number} of SEED={SEED}: {error!r}: {data.hex()}")
        assert time.process_time() - begun < SLOW_SECONDS, f"{decode.__name__}: {data.hex()}"
    assert 0 < taken < COUNT
