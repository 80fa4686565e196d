"""Relays of attackers, made from one signed relay that they saw."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from pocket.protocol.crypto.addresses import encode_address
from pocket.protocol.relays.messages import RelayRequest, SessionHeader, decode_relay_request

_HEAD_BYTES: Final = 69  # of a ring signature: number of members, start and key image
_MEMBER_BYTES: Final = 65
_MEMBERS: Final = 150_000
_INVENTED: Final = 2000


def _header(relay: RelayRequest) -> SessionHeader:
    if relay.header is None:
        raise RuntimeError("the relay has no session header")
    return relay.header


def _forged(relay: RelayRequest) -> bytes:
    """Return a relay whose first scalar differs.

    Only a whole verification notices it.
    """
    at = _HEAD_BYTES + 31
    signature = relay.signature
    return replace(relay, signature=signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]).encode()


def _long_ring(relay: RelayRequest) -> bytes:
    member = relay.signature[_HEAD_BYTES : _HEAD_BYTES + _MEMBER_BYTES]
    signature = _MEMBERS.to_bytes(4, "big") + relay.signature[4:_HEAD_BYTES] + member * _MEMBERS
    return replace(relay, signature=signature).encode()


def _invented(relay: RelayRequest) -> Iterator[bytes]:
    """Yield relays of applications that do not exist."""
    header = _header(relay)
    for number in range(_INVENTED):
        found = hashlib.sha256(b"%d" % number)
        application = encode_address(found.digest()[:20])
        invented = replace(header, application_address=application, session_id=found.hexdigest())
        yield replace(relay, header=invented).encode()


RELAYS: Final[dict[str, Callable[[RelayRequest], Iterable[bytes]]]] = {
    "copies of a served relay": lambda seen: [seen.encode()],
    "copies with a byte behind the signature": lambda seen: [replace(seen, signature=seen.signature + b"\0").encode()],
    "forged signatures": lambda seen: [_forged(seen)],
    "rings of 150,000 members": lambda seen: [_long_ring(seen)],
    "relays of invented applications": _invented,
}
"""Bodies of attacks, from a relay that was seen."""


def relays_of_attackers(name: str, seen: bytes) -> list[bytes]:
    """Return the bodies of an attack. `seen` is a signed relay that was served."""
    return list(RELAYS[name](decode_relay_request(seen)))
