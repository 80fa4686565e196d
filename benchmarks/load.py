"""Send relays that were signed beforehand to a relayer.

They are as many as it takes, or come at a steady rate.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from benchmarks.pulse import Exchanges, encode_post, flood, pulse
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.gateway import Gateway, SessionSigner, json_rpc_envelope
from relayctl.load import percentile
from relayctl.local_stack import LocalStack

SAMPLES = Path(__file__).resolve().parent.parent / "manifests/samples/trial"
RPC_TYPE = {"Rpc-Type": "3"}


@dataclass(frozen=True, slots=True)
class Measured:
    """Results of a run.

    Latencies are sorted and in seconds.
    """

    latencies: list[float]
    failed: int
    seconds: float
    last_failure: str

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    def ms(self, share: float) -> float:
        """Return a percentile in milliseconds."""
        return percentile(self.latencies, share) * 1000


@dataclass(frozen=True, slots=True)
class Signing:
    """Who signs for which application on which chain."""

    node: NodeAddress
    key: str
    application: str
    service: str = "eth"

    async def bodies(self, http: aiohttp.ClientSession, count: int) -> list[bytes]:
        """Return encoded relay requests of the current session, over all its suppliers."""
        async with ChainClient([self.node]) as chain:
            gateway = Gateway(chain, http, PrivateKey.from_hex(self.key))
            signer = await gateway.signer(self.application, self.service)
        return _signed(signer, count)

    async def bodies_of(
        self, http: aiohttp.ClientSession, applications: Sequence[str], each: int
    ) -> tuple[list[bytes], list[bytes]]:
        """Return the first relay of each application's session, and the others in turns."""
        rows = []
        async with ChainClient([self.node]) as chain:
            gateway = Gateway(chain, http, PrivateKey.from_hex(self.key))
            for application in applications:
                rows.append(_signed(await gateway.signer(application, self.service), each))
        turns = list(zip(*rows, strict=True))
        return list(turns[0]), [body for turn in turns[1:] for body in turn]


def _signed(signer: SessionSigner, count: int) -> list[bytes]:
    suppliers = sorted(signer.session.supplier_addresses)
    found = []
    for number in range(count):
        call = json.dumps({"jsonrpc": "2.0", "id": number, "method": "m", "params": [number]}).encode()
        envelope = json_rpc_envelope("http://relayer/", call)
        found.append(signer.sign(suppliers[number % len(suppliers)], envelope).encode())
    return found


def signing_for(stack: LocalStack) -> Signing:
    """Return the samples' gateway on an embedded stack."""
    file = yaml.safe_load((SAMPLES / "gateway.yaml").read_text())
    node = NodeAddress.parse(f"grpc://127.0.0.1:{stack.ports['grpc']}", stack.url("rpc"))
    return Signing(node, file["key"], file["applications"]["eth"])


class Sender:
    """Posts bodies to one URL, by a generator that adds little to the latencies."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.failed = 0
        self.last_failure = ""

    def _encoded(self, bodies: list[bytes]) -> list[bytes]:
        return [encode_post(self._url, body, RPC_TYPE) for body in bodies]

    async def at_once(self, bodies: list[bytes], connections: int) -> Measured:
        """As fast as the connections carry it."""
        requests = self._encoded(bodies)
        begun = time.perf_counter()
        return self._measured(await flood(self._url, requests, connections), begun)

    async def at_rate(self, bodies: list[bytes], per_second: float) -> Measured:
        """At a steady rate."""
        requests = self._encoded(bodies)
        begun = time.perf_counter()
        return self._measured(await pulse(self._url, requests, per_second), begun)

    def _measured(self, found: Exchanges, begun: float) -> Measured:
        self.failed += found.failed
        self.last_failure = found.last_failure or self.last_failure
        return Measured(sorted(found.latencies), found.failed, time.perf_counter() - begun, found.last_failure)
