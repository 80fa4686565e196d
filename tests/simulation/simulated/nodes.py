"""Chain nodes over one chain: each answers for itself, as the network lets it."""

import asyncio
import functools
import json
from collections.abc import Callable, Generator, Sequence
from typing import Any

import aiohttp
import grpc
import grpc.aio

from pocket.chain.node_answer import HEIGHT_HEADER
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.transactions.build import transaction_hash
from pocket_localnet.ante import decode
from pocket_localnet.comet_service import CometService
from pocket_localnet.grpc_server import _is_about_the_state
from pocket_localnet.grpc_service import Abort, answer
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.tx_rejected import TxRejected
from simulated.loop import PROCESS, Loop
from simulated.network import Network
from simulated.plan import Kind
from world import address

NOT_YET = (
    "codespace sdk code 26: invalid height: context did not contain latest block height in either check state or "
    "finalize block state (0)"
)
_BROADCAST = "BroadcastTx"
_TRANSACTIONS = {_BROADCAST, "Simulate"}
_HOLLOW = {"AllClaims"}
_FAR = 500


class Down(Exception):
    """Nobody listens."""


class Node:
    """One node: `name` is host:port of its gRPC interface, rpc of its HTTP interface is `http://NAME-rpc`."""

    def __init__(
        self, name: str, chain: LocalChain, loop: Loop, network: Network, sent: Callable[[str, bytes], None]
    ) -> None:
        self.name = name
        self._chain, self._loop, self._network, self._sent = chain, loop, network, sent
        self._comet = CometService(chain)
        self.waits_for_block = 0  # height; answers UNKNOWN until then
        self.sockets: dict[asyncio.Queue[int | None], None] = {}

    @property
    def lag(self) -> int:
        return max((int(f.share) for f in self._network.of(Kind.NODE_LAGS, target=self.name)), default=0)

    @property
    def down(self) -> bool:
        return bool(self._network.of(Kind.NODE_DOWN, Kind.NODE_RESTART, target=self.name))

    @property
    def hangs(self) -> bool:
        return bool(self._network.of(Kind.NODE_HANGS, target=self.name))

    def _strikes(self, *kinds: Kind) -> bool:
        return any(self._network.strikes(f) for f in self._network.of(*kinds, target=self.name))

    def announce(self, height: int) -> None:
        """Tells subscribers of a block, unless it is down or lags."""
        if not self.down and not self.lag and not self._strikes(Kind.NODE_SILENT):
            for queue in list(self.sockets):
                queue.put_nowait(height)

    def cut(self) -> None:
        """End every subscription."""
        for queue in list(self.sockets):
            queue.put_nowait(None)

    async def _arrive(self, boundary: str, what: str) -> None:
        network = self._network
        network.calls["chain"] += 1
        self._loop.note(PROCESS.get(), self.name, what)
        await network.pause(boundary)
        for fault in network.of(Kind.NODE_SLOW, target=self.name):
            await asyncio.sleep(self._loop.chance.uniform(0.5, 1.0) * fault.share)
        if self._strikes(Kind.NODE_HANGS):
            await asyncio.sleep(60)
        if self.down:
            raise Down

    async def ask(self, method: str, request: bytes, height: str) -> tuple[bytes, int]:
        """Return the answer and its reported height, 0 for none.

        Raises Abort and Down.
        """
        name = method.rsplit("/", 1)[-1]
        await self._arrive("chain", name)
        network = self._network
        if network.of(Kind.NODE_OTHER_CHAIN, target=self.name):
            raise Abort(grpc.StatusCode.UNIMPLEMENTED, "unknown service pocket.proof.Query")
        if self._strikes(Kind.NODE_FAILS):
            raise Abort(grpc.StatusCode.UNKNOWN, "Stream removed")
        if self._is_about_one_that_is_away(name, request):
            raise Abort(grpc.StatusCode.UNKNOWN, "panic: collections: encoding error")
        if self._strikes(Kind.NODE_DENIES):
            raise Abort(grpc.StatusCode.PERMISSION_DENIED, "RBAC: access denied")
        if self.waits_for_block > self._chain.height:
            raise Abort(grpc.StatusCode.UNKNOWN, NOT_YET)
        if name == "GetTx" and network.of(Kind.NODE_NO_INDEX, target=self.name):
            raise Abort(grpc.StatusCode.UNKNOWN, "transaction indexing is disabled")
        kept = min((int(f.share) for f in network.of(Kind.NODE_PRUNES, target=self.name)), default=self._chain.height)
        if 0 < int(height) <= self._chain.height - kept:
            text = (
                f"failed to load state at height {height}; version does not exist (latest height: {self._chain.height})"
            )
            raise Abort(grpc.StatusCode.UNKNOWN, f"codespace sdk code 18: invalid request: {text}")
        if self._strikes(Kind.NODE_EMPTY):
            return b"", 0
        if self._strikes(Kind.NODE_GARBAGE):
            return b"<html>502 Bad Gateway</html>", 0
        if name in _HOLLOW and self._strikes(Kind.NODE_HOLLOW):
            hollow = proof_pb.QueryAllClaimsResponse()
            hollow.pagination.SetInParent()
            return hollow.SerializeToString(), int(height) or self._chain.height
        headless = bool(network.of(Kind.NODE_HEADLESS, target=self.name))
        found, told = self._answered(method, name, request, "0" if headless else height)
        if name == "Simulate":
            found = self._with_low_gas(found)
        await network.pause("chain")
        if self.down or self._strikes(Kind.NODE_REPLY_LOST):
            raise Down
        return found, 0 if headless else told

    def _with_low_gas(self, found: bytes) -> bytes:
        for fault in self._network.of(Kind.NODE_LOW_GAS, target=self.name):
            answer = tx_pb.SimulateResponse.FromString(found)
            answer.gas_info.gas_used = int(answer.gas_info.gas_used * fault.share)
            return answer.SerializeToString()
        return found

    def _is_about_one_that_is_away(self, name: str, request: bytes) -> bool:
        away = [address(f.target) for f in self._network.holding if f.kind is Kind.SUPPLIER_AWAY]
        if name not in _TRANSACTIONS:  # these are of a supplier, for whatever applications
            away += [address(f"app {f.target}") for f in self._network.holding if f.kind is Kind.APPLICATION_AWAY]
        return any(one.encode() in request for one in away)

    def _answered(self, method: str, name: str, request: bytes, height: str) -> tuple[bytes, int]:
        if name == _BROADCAST:
            self._sent(PROCESS.get().name, request)
            if self._strikes(Kind.NODE_SWALLOWS):
                taken = tx_pb.BroadcastTxResponse()
                taken.tx_response.txhash = tx_hash_of(request)
                return taken.SerializeToString(), 0
        lag = self.lag + (5 if self._strikes(Kind.NODE_STALE) else 0)
        self._chain.faults.lag_blocks = lag
        try:
            return answer(self._chain, method, request, height)
        finally:
            self._chain.faults.lag_blocks = 0

    async def rpc(self, body: Any) -> bytes:
        """Return the answer of the HTTP interface.

        Raises Down.
        """
        await self._arrive("rpc", str(body["method"]))
        if self._strikes(Kind.NODE_FAILS, Kind.NODE_GARBAGE, Kind.NODE_EMPTY):
            return b"<html>502 Bad Gateway</html>"
        self._chain.faults.lag_blocks = self.lag + (5 if self._strikes(Kind.NODE_STALE) else 0)
        try:
            found = self._comet._respond(body)
        finally:
            self._chain.faults.lag_blocks = 0
        if body["method"] == "block_results" and "result" in found and self._strikes(Kind.NODE_HOLLOW):
            found["result"] = {**found["result"], "finalize_block_events": []}
        if self._network.of(Kind.NODE_OTHER_CHAIN, target=self.name):
            found = _of_another_chain(found)
        if body["method"] == "commit" and self._strikes(Kind.NODE_OTHER_HASH):
            found = _with_another_hash(found)
        await self._network.pause("rpc")
        if self.down:
            raise Down
        return json.dumps(found).encode()


def _of_another_chain(found: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(found))
    result = made.get("result") or {}
    if "sync_info" in result:
        result["node_info"]["network"] = "elsewhere"
        result["sync_info"]["latest_block_height"] = str(int(result["sync_info"]["latest_block_height"]) + _FAR)
    if "signed_header" in result:
        result["signed_header"]["header"]["chain_id"] = "elsewhere"
    return made


def _with_another_hash(found: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(found))
    if "signed_header" in (made.get("result") or {}):
        made["result"]["signed_header"]["commit"]["block_id"]["hash"] = "AB" * 32
    return made


class _Call:
    """What a stub's call gives back."""

    def __init__(self, node: Node, method: str, request: bytes, timeout: float | None, metadata: Any) -> None:
        self._node, self._method, self._request, self._timeout = node, method, request, timeout
        self._height = str(next((value for key, value in metadata or () if key == HEIGHT_HEADER), "0"))
        self._told = 0

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._run().__await__()

    async def _run(self) -> bytes:
        code = grpc.StatusCode
        try:
            if self._node.hangs:
                async with asyncio.timeout(self._timeout):
                    found, self._told = await self._node.ask(self._method, self._request, self._height)
            else:  # it answers long before
                found, self._told = await self._node.ask(self._method, self._request, self._height)
        except Abort as abort:
            told = ()
            if not _is_about_the_state(abort):
                told = ((HEIGHT_HEADER, str(int(self._height) or self._node._chain.height - self._node.lag)),)
            raise _failed(abort.code, abort.text, told) from None
        except Down:
            raise _failed(code.UNAVAILABLE, "failed to connect to all addresses") from None
        except TimeoutError:
            raise _failed(code.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
        return found

    async def initial_metadata(self) -> Sequence[tuple[str, str]]:
        return ((HEIGHT_HEADER, str(self._told)),) if self._told else ()


def _failed(code: grpc.StatusCode, text: str, metadata: Sequence[tuple[str, str]] = ()) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(*metadata), grpc.aio.Metadata(), details=text)


class Channel:
    """A gRPC channel to a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def unary_unary(self, method: str, *_: Any) -> Callable[..., _Call]:
        def call(request: bytes, timeout: float | None = None, metadata: Any = ()) -> _Call:
            return _Call(self._node, method, request, timeout, metadata)

        return call

    def renew(self) -> None:
        return

    async def close(self, _: Any = None) -> None:
        return


class Subscription:
    """A WebSocket on which a node announces its blocks."""

    def __init__(self, node: Node, network: Network) -> None:
        self._node, self._network = node, network
        self._queue: asyncio.Queue[int | None] = asyncio.Queue()

    async def __aenter__(self) -> "Subscription":
        try:
            await self._node._arrive("rpc", "subscribe")
        except Down:
            raise aiohttp.ClientConnectionError(f"cannot connect to {self._node.name}") from None
        self._node.sockets[self._queue] = None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._node.sockets.pop(self._queue, None)

    async def send_json(self, _: Any) -> None:
        return

    async def receive(self, seconds: float) -> Any:
        async with asyncio.timeout(seconds):
            height = await self._queue.get()
        await self._network.pause("rpc")
        if height is None:
            return aiohttp.WSMessage(aiohttp.WSMsgType.CLOSED, None, None)
        found = {"result": {"data": {"value": {"header": {"height": str(height)}}}}}
        return aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, json.dumps(found), None)


def tx_hash_of(request: bytes) -> str:
    """Of the transaction in a BroadcastTx request."""
    return transaction_hash(tx_pb.BroadcastTxRequest.FromString(request).tx_bytes)


@functools.lru_cache(64)  # the same bytes are sent a dozen times
def messages_of(request: bytes) -> tuple[Any, ...]:
    """Return the messages of a BroadcastTx request, or none if the chain cannot read it."""
    try:
        return decode(tx_pb.BroadcastTxRequest.FromString(request).tx_bytes).messages
    except TxRejected:
        return ()
