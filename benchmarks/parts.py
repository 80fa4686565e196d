"""CPU time per operation of the parts, in one process."""

import hashlib
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pocket.protocol.crypto import linear_combination
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.crypto.ring import sign_ring, verify_ring_signature
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.envelope import HttpRequest
from pocket.protocol.relays.messages import Relay, RelayRequest, RelayResponse, SessionHeader
from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.smst.digest import leaf_digest
from pocket_miner.sessions.leaf_validation import LeafBuilder, LeafTerms
from pocket_miner.storage.relay_store import SessionEndFile


def key(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(f"bench {name}".encode()).digest())


def best(action: Callable[[], object], number: int, repeats: int = 5) -> float:
    """Least CPU seconds per call over the repeats."""
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        for _ in range(number):
            action()
        found.append((time.process_time() - begun) / number)
    return min(found)


def ring(size: int) -> float:
    """Return the CPU seconds of one verification, with decoding and the set check.

    The ring's points are known.
    """
    keys = [key(f"ring {i}") for i in range(size)]
    members = [k.public_key for k in keys]
    encoded = sign_ring(b"m" * 32, members, keys[0].scalar, random.Random(1).randbytes).encode()
    expected = frozenset(members)
    return best(lambda: verify_ring_signature(b"m" * 32, encoded, expected), 300)


def wheel_only_ring() -> float:
    """Return the CPU seconds of verifying a ring of two without the accelerator now."""
    accelerator = linear_combination.accelerator
    linear_combination.accelerator = None
    try:
        return ring(2)
    finally:
        linear_combination.accelerator = accelerator


def ecdsa() -> float:
    """CPU seconds of one response signature."""
    signer = key("sign")
    return best(lambda: signer.sign(b"m" * 32), 2000)


def leaves(count: int) -> list[tuple[bytes, bytes]]:
    found = []
    for number in range(count):
        path = hashlib.sha256(number.to_bytes(8, "big")).digest()
        found.append((path, leaf_digest(path, b"value", 1)))
    return sorted(found)


def trie(count: int) -> tuple[float, float]:
    """(root, closest proof) CPU seconds for sorted leaves."""
    rows = leaves(count)
    begun = time.process_time()
    bulk = LeafSet(rows)
    bulk.root()
    middle = time.process_time()
    bulk.closest_proof(b"\x5a" * 32, lambda _: LeafContent(b"value", 1))
    return middle - begun, time.process_time() - middle


def mined_relays(count: int) -> tuple[list[bytes], LeafTerms]:
    """Return relays as they lie in the Redis stream.

    Signatures are random bytes of the right size: nothing here verifies them.
    """
    chance = random.Random(2)
    application, supplier = address_of(key("app").public_key), address_of(key("supplier").public_key)
    header = SessionHeader(application, "eth", "ab" * 32, 1, 10)
    found = []
    for number in range(count):
        body = b'{"jsonrpc":"2.0","id":%d,"method":"eth_getBalance","params":["0x00",%d]}' % (number, number)
        envelope = HttpRequest("POST", "http://relayer:8080/", {"Content-Type": ("application/json",)}, body)
        request = RelayRequest(header, chance.randbytes(199), supplier, envelope.encode())
        response = RelayResponse(header, chance.randbytes(64), b"", chance.randbytes(32))
        found.append(Relay(request, response).encode())
    return found, LeafTerms(supplier, header, BASE_TARGET, 100)


def miner(count: int = 20_000) -> tuple[float, float]:
    """Return the CPU seconds per relay of validation and of mirroring.

    Validation is checks, hashing and digest. Mirroring is a durable SQLite insert in batches of 500.
    """
    rows, terms = mined_relays(count)
    begun = time.process_time()
    builder = LeafBuilder(terms)
    made = [builder.build(row) for row in rows]
    gate = (time.process_time() - begun) / count
    with tempfile.TemporaryDirectory() as folder:
        file = SessionEndFile(Path(folder) / "end-10.sqlite")
        file.add_session(terms.supplier, terms.header.session_id, terms.header.encode())
        begun = time.process_time()
        for start in range(0, count, 500):
            file.store(terms.supplier, terms.header.session_id, made[start : start + 500], 0, "1-1", "x")
        relay_store = (time.process_time() - begun) / count
        file.close()
    return gate, relay_store
