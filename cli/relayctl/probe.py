"""Define `relayctl relay probe`.

It sends simulated relays to every supplier, service and transport. They are free and need no chain node.
"""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import aiohttp
import click

from pocket.api.base import ManifestError
from pocket.api.manifests import Manifests, load_manifests
from pocket.api.services import RPC_NUMBERS
from pocket.api.simulation import SimulationIdentity
from pocket.chain.model import Session
from pocket.errors import PocketError, system_reason
from pocket.protocol.crypto.ecdsa import PrivateKey, verify_signature_by_address
from pocket.protocol.relays.envelope import decode_http_response
from pocket.protocol.relays.messages import RelayRequest, decode_relay_response
from pocket.protocol.relays.simulated import simulated_header
from pocket.runtime.http_sessions import http_session
from pocket_relayer.pipeline.simulated_relays import HEADER
from relayctl.client_transports import SENDERS, ClientTransport, RelayFailed
from relayctl.gateway import SessionSigner, json_rpc_envelope, rest_envelope
from relayctl.key_files import read_small_text

_ASKED: Final = RPC_NUMBERS.keys() - {"grpc"}  # no call is common to all gRPC backends


@dataclass(frozen=True, slots=True)
class Target:
    """The target of one probe."""

    supplier: str
    service: str
    backend: str
    over: ClientTransport


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one probe. `problem` is empty if it was served."""

    target: Target
    milliseconds: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Prober:
    """Signs and sends simulated relays of one identity."""

    identity: SimulationIdentity
    key: PrivateKey
    url: str
    method: str
    path: str
    seconds: float
    unix_seconds: Callable[[], float] = time.time
    random_bytes: Callable[[int], bytes] = secrets.token_bytes

    def request(self, target: Target) -> RelayRequest:
        """Return a new signed request."""
        application = bytes.fromhex(self.identity.application_public_key)
        header = simulated_header(application, target.service, int(self.unix_seconds()), self.random_bytes(16))
        session = Session(header, 0, 1, 0, frozenset({target.supplier}))
        signer = SessionSigner(
            session, tuple(bytes.fromhex(k) for k in self.identity.ring), self.key, self.random_bytes
        )
        call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": self.method, "params": []}).encode()
        if target.backend == "webSocket":
            return signer.sign_payload(target.supplier, call)
        if target.backend == "rest":
            return signer.sign(target.supplier, rest_envelope(self.url + self.path))
        return signer.sign(target.supplier, json_rpc_envelope(self.url + "/", call))

    async def probe(self, http: aiohttp.ClientSession, target: Target) -> Result:
        """Send one relay and check the supplier's signature against its address."""
        begun = time.perf_counter()

        def done(problem: str = "") -> Result:
            return Result(target, round((time.perf_counter() - begun) * 1000, 1), problem)

        request = self.request(target)
        number, extra = RPC_NUMBERS[target.backend], {HEADER: self.identity.key_id}
        try:
            bodies = await SENDERS[target.over](http, self.url, request, number, self.seconds, extra)
            for body in bodies:
                response = decode_relay_response(body)
                if response.header != request.header:
                    return done("the response is for another session header")
                if not verify_signature_by_address(
                    target.supplier, response.signable_hash(), response.supplier_operator_signature
                ):
                    return done("the supplier's signature is invalid")
                if target.backend != "webSocket":
                    decode_http_response(response.payload)
        except (RelayFailed, PocketError) as error:
            return done(str(error))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return done(system_reason(error))
        return done() if bodies else done("the response was empty")


def targets(manifests: Manifests, identity: SimulationIdentity, name: str) -> Iterator[Target]:
    """Yield every supplier, service and backend type that a simulated relay can reach."""
    (miner,) = (row for row in manifests.relay_miners if row.metadata.name == name)
    for supplier in manifests.suppliers:
        if supplier.spec.relay_miner_ref.name != name:
            continue
        for service in miner.spec.services:
            if supplier.spec.services and service.id not in supplier.spec.services:
                continue
            if identity.services and service.id not in identity.services:
                continue
            for backend in service.backends.by_type():
                if backend in _ASKED:
                    over = ClientTransport.WEB_SOCKET if backend == "webSocket" else ClientTransport.HTTP
                    yield Target(supplier.spec.operator_address, service.id, backend, over)


def _identity(manifests: Manifests, key_id: str) -> tuple[str, SimulationIdentity]:
    for miner in manifests.relay_miners:
        for identity in miner.spec.relayer.simulation.identities:
            if identity.key_id == key_id:
                return miner.metadata.name, identity
    raise click.ClickException(f"no RelayMiner in these files pins {key_id} under spec.relayer.simulation.identities")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--url", required=True, help="The relayer, http://host:port")
@click.option("--key-id", required=True, help="Identity of spec.relayer.simulation to use.")
@click.option("--key-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
              help="File with the hex key of its application or of one of its gateways.")  # fmt: skip
@click.option("--method", default="eth_blockNumber", show_default=True, help="JSON-RPC method.")
@click.option("--path", default="/", show_default=True, help="Path requested from REST backends.")
@click.option("--timeout", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def probe(
    files: tuple[Path, ...],
    url: str,
    key_id: str,
    key_file: Path,
    method: str,
    path: str,
    timeout: float,
    *,
    as_json: bool,
) -> None:
    """Probe every supplier, service and transport of FILES.

    Each gets a simulated relay. The exit code is 1 if one is not served. Nothing is paid, charged or recorded, and no
    chain node is queried. gRPC backends are left out: no call is common to all of them.
    """
    try:
        manifests = load_manifests(files)
        name, identity = _identity(manifests, key_id)
        prober = Prober(
            identity, PrivateKey.from_hex(read_small_text(key_file)), url.rstrip("/"), method, path, timeout
        )
    except (ManifestError, PocketError) as error:
        raise click.ClickException(str(error)) from None
    if prober.key.public_key.hex() not in identity.ring:
        raise click.ClickException(f"the key in {key_file} is not in the ring of {key_id}")
    rows = list(targets(manifests, identity, name))
    if not rows:
        raise click.ClickException("nothing to probe: no Supplier of these files serves an allowed service")
    results = asyncio.run(_probe_all(prober, rows, identity.max_per_second, as_json=as_json))
    failed = sum(bool(result.problem) for result in results)
    if not as_json:
        click.echo(f"{len(results) - failed} of {len(results)} probes were served.")
    sys.exit(1 if failed else 0)


async def _probe_all(prober: Prober, rows: list[Target], per_second: int, *, as_json: bool) -> list[Result]:
    results = []
    async with http_session() as http:
        for number, target in enumerate(rows):
            if number:
                await asyncio.sleep(1 / per_second)
            result = await prober.probe(http, target)
            results.append(result)
            if as_json:
                click.echo(
                    json.dumps({**asdict(target), "milliseconds": result.milliseconds, "problem": result.problem})
                )
            else:
                text = result.problem or f"served in {result.milliseconds:.0f} ms"
                click.echo(f"{target.supplier} {target.service} {target.backend}: {text}")
    return results
