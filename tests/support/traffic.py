"""A gateway's traffic: relays signed for the session of the moment, every answer verified."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.errors import PocketError
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.client_transports import RelayFailed
from relayctl.gateway import Gateway, SessionSigner, json_rpc_envelope

_OVER = "the session and its grace period are over"


@dataclass
class Traffic:
    """Counts acknowledged relays by supplier, and `failures` by message."""

    url: str
    node: NodeAddress
    key: PrivateKey
    application: str
    service: str = "eth"
    acknowledged: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def acknowledges(self, more: int, seconds: float = 60) -> None:
        """Wait until so many more relays were acknowledged."""
        wanted = self.acknowledged.total() + more
        async with asyncio.timeout(seconds):
            while self.acknowledged.total() < wanted:
                self._news.clear()
                await self._news.wait()

    async def run(self, stop: asyncio.Event, *, per_second: float, workers: int = 8) -> None:
        """Send relays until stopped.

        Each one has its own connection, so that all go through the balancer.
        """
        connector = aiohttp.TCPConnector(limit=64, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as http, ChainClient([self.node]) as chain:
            gateway = Gateway(chain, http, self.key)
            number = 0

            async def worker() -> None:
                nonlocal number
                while not stop.is_set():
                    number += 1
                    await self._one(gateway, number)
                    await asyncio.sleep(workers / per_second)

            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(worker())

    async def send(self, count: int, supplier: str | None = None) -> None:
        """Send a number of relays, one after the other."""
        async with aiohttp.ClientSession() as http, ChainClient([self.node]) as chain:
            gateway = Gateway(chain, http, self.key)
            for number in range(count):
                await self._one(gateway, number, supplier)

    async def _one(self, gateway: Gateway, number: int, supplier: str | None = None) -> None:
        call = json.dumps({"jsonrpc": "2.0", "id": number, "method": "eth_blockNumber", "params": []})
        payload = json_rpc_envelope(self.url + "/", call.encode())
        try:
            signer = await gateway.signer(self.application, self.service)
            try:
                chosen = await self._sent(gateway, signer, number, supplier, payload)
            except RelayFailed as error:
                if _OVER not in str(error):
                    raise
                # It came after its session: gateways sign anew, for the next one.
                next_signer = await gateway.signer(self.application, self.service)
                if next_signer.session.header == signer.session.header:
                    raise
                chosen = await self._sent(gateway, next_signer, number, supplier, payload)
        except (RelayFailed, PocketError) as error:
            self.failures[f"{type(error).__name__}: {error}"[:200]] += 1
            return
        self.acknowledged[chosen] += 1
        self._news.set()

    async def _sent(
        self, gateway: Gateway, signer: SessionSigner, number: int, supplier: str | None, payload: bytes
    ) -> str:
        """Send a relay and return the supplier that answered.

        Raises RelayFailed.
        """
        suppliers = sorted(signer.session.supplier_addresses)
        chosen = supplier or suppliers[number % len(suppliers)]
        await gateway.send(self.url, signer.sign(chosen, payload), 3, 15.0)
        return chosen
