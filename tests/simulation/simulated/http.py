"""HTTP without sockets: chain nodes' RPC, miners' own ports, backends."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from simulated.loop import PROCESS, Process
from simulated.network import Network
from simulated.nodes import Down, Node, Subscription
from simulated.plan import Kind

Handler = Callable[[web.Request], Any]
_GARBAGE = (
    (404, b"404: Not Found"),  # an older version
    (500, b"500: Internal Server Error"),
    (200, b"<html>200 OK</html>"),
    (200, b'{"relays": ["AAAA"], "next": "'),  # cut
    (200, b'[{"session_id": 7, "header": "no hex", "position": "later", "end": "soon", "seal": {}}]'),
    (200, b'{"relays": ["bm8gcmVsYXk="], "next": null, "ended": 3}'),
)
"""Status and body of what a peer must not answer."""


class Ports:
    """Who listens where: host:port → (process, handlers by path)."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[Process, Mapping[str, Handler]]] = {}


class _Content:
    def __init__(self, body: bytes) -> None:
        self._left = body

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        for at in range(0, len(self._left), size):
            yield self._left[at : at + size]

    async def readany(self) -> bytes:
        piece, self._left = self._left, b""
        return piece

    def at_eof(self) -> bool:
        return not self._left


class Response:
    """As much of an aiohttp response as is used."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.content = _Content(body)
        self.headers = {"Content-Type": "application/json"}
        self.content_type = "application/json"
        self._body = body

    def raise_for_status(self) -> None:
        if self.status >= 400:
            raise aiohttp.ClientError(f"status {self.status}")

    async def json(self) -> Any:
        return json.loads(self._body)

    def release(self) -> None:
        return

    def close(self) -> None:
        return


class _Asked:
    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask

    async def __aenter__(self) -> Response:
        found: Response = await self._ask()
        return found

    async def __aexit__(self, *_: object) -> None:
        return


class Http:
    """A client session of one process."""

    def __init__(self, network: Network, nodes: Mapping[str, Node], ports: Ports) -> None:
        self._network, self._nodes, self._ports = network, nodes, ports

    async def __aenter__(self) -> "Http":
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def close(self) -> None:
        return

    def _node(self, url: str) -> Node:
        return self._nodes[urlsplit(url).hostname or ""]

    def post(self, url: str, json: Any, headers: Any = None) -> _Asked:
        async def ask() -> Response:
            try:
                return Response(200, await self._node(url).rpc(json))
            except Down:
                raise aiohttp.ClientConnectionError(f"cannot connect to {url}") from None

        return _Asked(ask)

    def ws_connect(self, url: str, **_: Any) -> Subscription:
        return Subscription(self._node(url), self._network)

    def get(self, url: str, params: Mapping[str, str], timeout: aiohttp.ClientTimeout) -> _Asked:
        """Request a page from another miner's port."""

        async def ask() -> Response:
            async with asyncio.timeout(timeout.total):
                return await self._from_peer(url, params)

        return _Asked(ask)

    async def _from_peer(self, url: str, params: Mapping[str, str]) -> Response:
        parts = urlsplit(url)
        network = self._network
        network.loop.note(PROCESS.get(), "peer", parts.path)
        await network.pause("peer")
        process, handlers = self._ports.open.get(parts.netloc, (None, {}))
        if process is None or process.dead or network.of(Kind.PEERS_AWAY, target=PROCESS.get().name):
            raise aiohttp.ClientConnectionError(f"cannot connect to {url}")
        request = make_mocked_request("GET", str(URL(parts.path).with_query(dict(params))))
        served = network.loop.spawn(process, _served(handlers[parts.path], request))
        await asyncio.wait([served])
        await network.pause("peer")
        found = served.result()
        for fault in network.of(Kind.PEERS_GARBAGE, target=PROCESS.get().name):
            if network.strikes(fault):
                return Response(*_GARBAGE[network.hits[fault.kind.value] % len(_GARBAGE)])
        return Response(found.status, found.body if isinstance(found.body, bytes) else b"")

    async def request(self, method: str, url: Any, **_: Any) -> Response:
        """To a backend."""
        network = self._network
        await network.pause("backend")
        if any(network.strikes(f) for f in network.of(Kind.BACKEND_FAILS)):
            raise aiohttp.ClientConnectionError(f"{method} {url}: connection reset")
        await network.pause("backend")
        return Response(200, b'{"jsonrpc":"2.0","id":1,"result":"0x1"}')


async def _served(handler: Handler, request: web.Request) -> web.Response:
    try:
        found: web.Response = await handler(request)
    except web.HTTPException as error:
        return web.Response(status=error.status, text=error.text)
    return found
