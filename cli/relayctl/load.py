"""Sending of one or many relays, with progress and a latency summary."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import click

from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.errors import ConfigurationError, InvalidRelay, PocketError
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.runtime.own_authorities import system_context
from relayctl.client_transports import ClientTransport, RelayFailed
from relayctl.gateway import Gateway, SessionSigner, json_rpc_envelope, rest_envelope
from relayctl.key_files import read_small_text

_SESSION_EXPIRED: Final = "session_expired"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The target of a load and the key to sign with."""

    url: str
    node_grpc: str
    node_rpc: str
    app: str
    service: str
    supplier: str | None
    key_file: Path
    method: str
    rest_path: str | None
    timeout: float
    over: ClientTransport = ClientTransport.HTTP

    @classmethod
    def of(cls, options: Mapping[str, object]) -> "LoadOptions":
        """Create from command-line options. Raises ConfigurationError."""
        load = cls(**{**options, "over": ClientTransport(options.get("over", ClientTransport.HTTP))})  # type: ignore[arg-type]  # by click
        if not load.url.startswith(("http://", "https://")) or "@" in load.url:
            raise ConfigurationError(f"--url {load.url!r}: write http://host:port, without credentials")
        return load


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the sorted values lie."""
    return values[min(len(values) - 1, int(len(values) * share))]


async def run_load(options: LoadOptions, count: int, concurrency: int, rate: float, *, show: bool) -> int:
    """Send `count` relays. Returns exit code 0 if every response was verified."""
    key = PrivateKey.from_hex(read_small_text(options.key_file))
    node = NodeAddress.parse(options.node_grpc, options.node_rpc)
    connector = aiohttp.TCPConnector(limit=concurrency, ssl=system_context())
    async with aiohttp.ClientSession(connector=connector) as http, ChainClient([node]) as chain:
        gateway = Gateway(chain, http, key)
        signer = await gateway.signer(options.app, options.service)
        run = _Run(options, gateway, signer, show)
        begun = time.perf_counter()
        await run.all(count, concurrency, rate)
        run.report(time.perf_counter() - begun)
        return 0 if not run.failures else 1


def _suppliers(options: LoadOptions, signer: SessionSigner) -> list[str]:
    """Return the suppliers of a session to send to. Raises InvalidRelay."""
    suppliers = sorted(signer.session.supplier_addresses)
    if options.supplier is None:
        return suppliers
    if options.supplier not in suppliers:
        raise InvalidRelay(f"{options.supplier} is not in the session; its suppliers: {', '.join(suppliers)}")
    return [options.supplier]


class _Run:
    def __init__(self, options: LoadOptions, gateway: Gateway, signer: SessionSigner, show: bool) -> None:
        self._options = options
        self._gateway = gateway
        self._signer = signer
        self._suppliers = _suppliers(options, signer)
        self._renewing = asyncio.Lock()
        self._show = show
        self._next = 0
        self.latencies: list[float] = []
        self.failures: Counter[str] = Counter()

    async def all(self, count: int, concurrency: int, rate: float) -> None:
        begun = time.perf_counter()

        async def sender() -> None:
            while self._next < count:
                number = self._next
                self._next += 1
                if rate:
                    await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
                await self._one(number)
                if not self._show and number and number % 1000 == 0:
                    click.echo(f"{number} of {count} sent, {sum(self.failures.values())} failed", err=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(sender())

    async def _one(self, number: int) -> None:
        """Send one relay, and again in the new session if its session has ended."""
        used = self._signer
        try:
            try:
                await self._send(number)
            except RelayFailed as error:
                if error.code != _SESSION_EXPIRED:
                    raise
                await self._renew(used)
                await self._send(number)
        except RelayFailed as error:
            self.failures[(str(error) if self._show else error.kind)[:160]] += 1
        except PocketError as error:
            self.failures[str(error)[:160]] += 1

    async def _renew(self, used: SessionSigner) -> None:
        """Sign for the current session from now on.

        Nothing changes if another sender has asked for that since.
        """
        async with self._renewing:
            if self._signer is used:
                signer = await self._gateway.signer(self._options.app, self._options.service)
                self._signer, self._suppliers = signer, _suppliers(self._options, signer)

    async def _send(self, number: int) -> None:
        options = self._options
        supplier = self._suppliers[number % len(self._suppliers)]
        if options.rest_path is not None:
            envelope, rpc_type = rest_envelope(options.url + options.rest_path), 4
        else:
            call = {"jsonrpc": "2.0", "id": number + 1, "method": options.method, "params": []}
            envelope, rpc_type = json_rpc_envelope(options.url + "/", json.dumps(call).encode()), 3
        if options.over is ClientTransport.WEB_SOCKET:
            request = self._signer.sign_payload(supplier, envelope.body)
        else:
            request = self._signer.sign(supplier, envelope)
        answer = await self._gateway.send(options.url, request, rpc_type, options.timeout, options.over)
        self.latencies.append(answer.seconds)
        if self._show:
            click.echo(f"backend status {answer.http.status}, valid signature of {supplier}")
            click.echo(answer.http.body.decode("utf-8", "replace"))

    def report(self, seconds: float) -> None:
        done = sorted(self.latencies)
        if done:
            line = ", ".join(f"p{int(p * 100)} {percentile(done, p) * 1000:.1f} ms" for p in (0.5, 0.95, 0.99))
            click.echo(f"{len(done)} relays in {seconds:.1f} s ({len(done) / seconds:.0f}/s), {line}")
        for text, number in self.failures.most_common(5):
            click.echo(f"{number} failed: {text}", err=True)
