"""A small world on a localnet: keys, genesis, a gateway that signs relays."""

import hashlib
import random
from dataclasses import dataclass, field, replace

from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.crypto.ring import sign_ring
from pocket.protocol.relays.envelope import HttpRequest
from pocket.protocol.relays.messages import Relay, RelayRequest, RelayResponse, SessionHeader
from pocket_localnet.genesis import Genesis


def key(name: str) -> PrivateKey:
    """Return a repeatable key."""
    return PrivateKey(hashlib.sha256(f"test key {name}".encode()).digest())


def address(name: str) -> str:
    """Its address."""
    return address_of(key(name).public_key)


@dataclass
class World:
    """Keys by name.

    `genesis()` stakes them all.
    """

    suppliers: tuple[str, ...] = ("alice", "bob")
    services: tuple[str, ...] = ("eth",)
    compute_units: int = 100
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def application(self, service: str) -> str:
        return address(f"app {service}")

    def genesis(self, **overrides: object) -> Genesis:
        names = [*self.suppliers, *(f"app {s}" for s in self.services), "gateway", "owner"]
        fields: dict[str, object] = {
            "block_seconds": 1.0,
            "accounts": [
                {"address": address(n), "balance": 10_000_000_000, "public_key": key(n).public_key.hex()} for n in names
            ],
            "gateways": [{"address": address("gateway")}],
            "services": [
                {"id": s, "name": s, "compute_units_per_relay": self.compute_units, "owner": address("owner")}
                for s in self.services
            ],
            "applications": [
                {"address": self.application(s), "stake": 10**12, "service": s, "gateways": [address("gateway")]}
                for s in self.services
            ],
            "suppliers": [
                {"operator": address(n), "owner": address(n), "stake": 10**9, "services": list(self.services)}
                for n in self.suppliers
            ],
            "proof_params": {"proof_request_probability": 1.0, "proof_missing_penalty": 1_000_000},
            "shared_params": {"compute_units_to_tokens_multiplier": 1_000_000},
            "num_suppliers_per_session": 10,
        }
        fields.update(overrides)
        return Genesis.model_validate(fields)

    def request(self, header: SessionHeader, supplier: str, body: bytes, url: str = "http://x/") -> RelayRequest:
        """Return a request signed by the gateway."""
        envelope = HttpRequest("POST", url, {"Content-Type": ("application/json",)}, body)
        return self.signed(RelayRequest(header, b"", supplier, envelope.encode()))

    def signed(self, request: RelayRequest) -> RelayRequest:
        """Return the request with a new signature of the gateway."""
        unsigned = replace(request, signature=b"")
        service = request.header.service_id if request.header else ""
        ring = sorted([key("gateway").public_key, key(f"app {service}").public_key])
        signature = sign_ring(unsigned.signable_hash(), ring, key("gateway").scalar, self.chance.randbytes)
        return replace(unsigned, signature=signature.encode())

    def relay(self, header: SessionHeader, supplier_name: str, number: int) -> bytes:
        """Bytes of a mined relay, as a leaf holds them."""
        request = self.request(header, address(supplier_name), b'{"id":%d}' % number)
        payload = b"answer %d" % number
        unsigned = RelayResponse(header, b"", payload, hashlib.sha256(payload).digest())
        signature = key(supplier_name).sign(unsigned.signable_hash())
        response = RelayResponse(header, signature, b"", unsigned.payload_hash)
        return Relay(request, response).encode()
