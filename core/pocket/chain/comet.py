"""Query CometBFT's JSON-RPC over HTTP and WebSocket.

Source: docs/protocol/messages.md, section 11.
"""

import asyncio
import functools
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import aiohttp
from cachetools import FIFOCache

from pocket.chain.end_block_events import EndBlockEventParser, EventFilter
from pocket.chain.failover import Failover, NodeAddress, QueryObserver
from pocket.chain.failures import classify_rpc, error_of
from pocket.chain.model import Block, Event, NodeRetention, checked_block
from pocket.chain.node_health import NodeHealthTable
from pocket.errors import ChainError, ChainUnavailable, DecodingError, FailureClass
from pocket.protocol.transactions.build import Timestamp

HEADER_QUERY: Final = "tm.event='NewBlockHeader'"
_SILENCE_SECONDS: Final = 30.0
_LARGEST_ANSWER: Final = 1024 * 1024
_LARGEST_RESULTS: Final = 1024 * 1024 * 1024
_RESULTS_SECONDS: Final = 60.0
_RESULTS_SHARE: Final = 0.6  # of the seconds, before a large answer is also requested from the next node
_PIECE: Final = 64 * 1024
_LAST_REQUEST: Final = {"Connection": "close"}
"""Headers of the last request over a connection."""
_BLOCKS: Final = 1000
_HEIGHT: Final = re.compile(r"[1-9][0-9]{0,18}")
_UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""Errors of reading an answer whose fields are missing, null or of another type."""
T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)


class ResponseParser(Protocol[T_co]):
    """Takes an answer in pieces."""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises DecodingError."""

    def close(self) -> T_co:
        """Return the parsed response. Raises PocketError."""


def parse_time(text: Any) -> Timestamp:
    """Parse RFC 3339 UTC with up to nanoseconds. Raises DecodingError."""
    if not isinstance(text, str):
        raise DecodingError(f"{str(text)[:40]!r} is not a UTC time")
    try:
        seconds_text, _, fraction = text.removesuffix("Z").partition(".")
        seconds = int(datetime.fromisoformat(seconds_text).replace(tzinfo=UTC).timestamp())
        return Timestamp(seconds, int(fraction.ljust(9, "0")[:9]) if fraction else 0)
    except (ValueError, OverflowError) as error:
        raise DecodingError(f"{text[:40]!r} is not a UTC time") from error


def result_of(body: Any) -> Any:
    """Return the result of a JSON-RPC response.

    Raises ChainError for an error response.
    """
    if not isinstance(body, dict):
        raise DecodingError("the node's answer is not a JSON-RPC object")
    if error := body.get("error"):
        text = str(error.get("data") or error.get("message")) if isinstance(error, dict) else str(error)
        raise error_of(classify_rpc(text), text)
    return body.get("result")


def _height(value: Any) -> int:
    """Return a height, which CometBFT writes as text. Raises DecodingError."""
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not _HEIGHT.fullmatch(text):
        raise DecodingError(f"{str(value)[:40]!r} is not a height")
    return int(text)


def _block(height: Any, block_hash: Any, time: Any) -> Block:
    return checked_block(_height(height), bytes.fromhex(block_hash), parse_time(time))


def latest_block_of(result: Any) -> Block:
    """Return the latest block of a `status` result. Raises DecodingError."""
    try:
        sync = result["sync_info"]
        return _block(sync["latest_block_height"], sync["latest_block_hash"], sync["latest_block_time"])
    except _UNREADABLE as error:
        raise DecodingError("the node's status cannot be read") from error


def network_of(result: Any) -> str:
    """Return the network name of a `status` result. Raises DecodingError."""
    try:
        network = result["node_info"]["network"]
        if not isinstance(network, str) or not network:
            raise DecodingError(f"the node's network {str(network)[:40]!r} is not a name")
        return network
    except _UNREADABLE as error:
        raise DecodingError("the node's status cannot be read") from error


def retention_of(result: Any) -> NodeRetention:
    """Return the node's retention from a `status` result. Raises DecodingError."""
    try:
        sync, other = result["sync_info"], result["node_info"].get("other") or {}
        earliest, height = _height(sync.get("earliest_block_height") or 1), _height(sync["latest_block_height"])
        return NodeRetention(earliest, height, other.get("tx_index", "on") == "on")
    except _UNREADABLE as error:
        raise DecodingError("the node's status cannot be read") from error


def block_of(result: Any) -> Block:
    """Return the block of a `commit` result. Raises DecodingError."""
    try:
        signed = result["signed_header"]
        return _block(signed["header"]["height"], signed["commit"]["block_id"]["hash"], signed["header"]["time"])
    except _UNREADABLE as error:
        raise DecodingError("the node's commit cannot be read") from error


class _Result:
    """The result of a small answer."""

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, piece: bytes) -> None:
        self._body += piece
        if len(self._body) > _LARGEST_ANSWER:
            raise DecodingError("the node's answer is too large")

    def close(self) -> Any:
        try:
            return result_of(json.loads(self._body))
        except (ValueError, RecursionError) as error:
            raise DecodingError("the node's answer is not JSON") from error


class _Results:
    """Events of a response of any size. A small response may be an error."""

    def __init__(self, wanted: EventFilter) -> None:
        self._events = EndBlockEventParser(wanted)
        self._size = 0
        self._start = _Result()

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= _PIECE:
            self._start.feed(piece)
        if self._size > _LARGEST_RESULTS:
            raise DecodingError("the node's block results are too large")
        self._events.feed(piece)

    def close(self) -> tuple[Event, ...]:
        if self._size <= _PIECE:
            self._start.close()
        return self._events.close()


class CometClient:
    """Queries blocks and their events.

    Every node is queried before an error is raised.

    `chain_id` is the required network, empty for any. Nodes of another network are not used.
    """

    def __init__(
        self,
        addresses: Sequence[NodeAddress],
        http: aiohttp.ClientSession,
        timeout_seconds: float = 5.0,
        block_seconds: float = 10.0,
        node_health: NodeHealthTable | None = None,
        chain_id: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        on_query: QueryObserver | None = None,
    ) -> None:
        names = [address.name for address in addresses]
        self._renewed: set[NodeAddress] = set()
        """Nodes whose connection is closed after the next answer, so that later ones come over a new connection."""
        self._nodes = Failover(
            list(addresses), clock, node_health=node_health, names=names, on_query=on_query, renew=self._renewed.add
        )
        self._latest_heights: dict[NodeAddress, int] = {}
        self._http = http
        self._timeout = timeout_seconds
        self._chain_id = chain_id
        self._blocks: FIFOCache[int, Block] = FIFOCache(_BLOCKS)
        # Pings show a dead connection; a living one that announces no block for so long is useless as well.
        self._silence = max(_SILENCE_SECONDS, 3 * block_seconds)
        self._look = min(self._silence, max(1.0, block_seconds))
        self.block_seconds: Callable[[], float] = lambda: block_seconds
        """Returns the measured time between blocks, the expected one until then."""

    def _asking(
        self, answer: Callable[[], ResponseParser[T]], method: str, params: Mapping[str, str], check: Callable[[T], U],
        silence: float | None = None,
    ) -> Callable[[NodeAddress], Awaitable[U]]:  # fmt: skip
        """Return the query for one node.

        `check` converts the result and raises PocketError. A node from which nothing comes for `silence` seconds is
        given up.
        """
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}

        async def ask(node: NodeAddress) -> U:
            taken, now = answer(), asyncio.get_running_loop().time
            headers = _LAST_REQUEST if node in self._renewed else None
            self._renewed.discard(node)
            post = self._http.post(node.rpc, json=body, headers=headers)
            try:
                async with asyncio.timeout(silence) as quiet, post as response:
                    async for piece in response.content.iter_chunked(_PIECE):
                        taken.feed(piece)
                        quiet.reschedule(None if silence is None else now() + silence)
                return check(taken.close())
            except TimeoutError as error:
                raise ChainUnavailable(f"{node.rpc}: silent for too long") from error
            except ChainError as error:
                raise error_of(error.failure, f"{node.rpc}: {error}", error.height) from error
            except (aiohttp.ClientError, OSError, DecodingError) as error:
                raise ChainUnavailable(f"{node.rpc}: {error}") from error

        return ask

    async def _call(self, method: str, check: Callable[[Any], U], **params: str) -> U:
        return await self._nodes.call(method, self._asking(_Result, method, params, check), self._timeout)

    def _of_this_chain(self, network: object) -> None:
        """Raise ChainUnavailable for a node that belongs to another network."""
        if self._chain_id and network != self._chain_id:
            text = f"the node is on chain {network!r}, not on {self._chain_id!r}"
            raise ChainUnavailable(text, failure=FailureClass.WRONG_NODE)

    def _latest(self, result: Any) -> Block:
        block = latest_block_of(result)
        self._of_this_chain(network_of(result))
        return block

    def _retention(self, result: Any) -> NodeRetention:
        self._of_this_chain(network_of(result))
        return retention_of(result)

    def _commit(self, height: int, result: Any) -> Block:
        block = block_of(result)
        if block.height != height:
            raise DecodingError(f"the node was asked for block {height} and answered with {block.height}")
        self._of_this_chain(result["signed_header"]["header"].get("chain_id"))
        return block

    async def chain_id(self) -> str:
        """Return the network name of the node."""
        return await self._call("status", network_of)

    async def latest_of_any_chain(self) -> tuple[Block, str]:
        """Return the latest block of any network, and the network's name."""
        return await self._call("status", lambda result: (latest_block_of(result), network_of(result)))

    async def block(self, height: int | None = None) -> Block:
        """Return a block, the latest without a height.

        Raises ChainUnavailable if no node has it.

        Neither query transfers the block's transactions, which take megabytes when claims are due.
        """
        if height is None:
            return await self._latest_block()
        if height not in self._blocks:
            check = functools.partial(self._commit, height)
            self._blocks[height] = await self._call("commit", check, height=str(height))
        return self._blocks[height]

    async def _latest_block(self) -> Block:
        """Return the latest block.

        The connection to a node that states the same one again is renewed: the node's name, or the address of a load
        balancer, may lead to another node by now.
        """
        ask = self._asking(_Result, "status", {}, self._latest)

        async def latest(node: NodeAddress) -> Block:
            block = await ask(node)
            if block.height <= self._latest_heights.get(node, 0):
                self._renewed.add(node)
            self._latest_heights[node] = block.height
            return block

        return await self._nodes.call("status", latest, self._timeout)

    async def hashes_by_node(self, height: int) -> dict[str, bytes | ChainError]:
        """Return a block's hash from every usable node without caches, by node name."""
        ask = self._asking(_Result, "commit", {"height": str(height)}, functools.partial(self._commit, height))
        answers = await self._nodes.ask_all(ask, self._timeout)
        return {name: row if isinstance(row, ChainError) else row.hash for name, row in answers.items()}

    async def end_events(self, height: int, wanted: EventFilter) -> tuple[Event, ...]:
        """Return the selected end-block events of a block. Raises ChainUnavailable.

        The error's failure is PRUNED_NODE if every node reports that it has pruned them.
        """
        return await self._nodes.call("block_results", self._results(height, wanted), _RESULTS_SECONDS, _RESULTS_SHARE)

    async def end_events_by_node(self, height: int, wanted: EventFilter) -> dict[str, tuple[Event, ...] | ChainError]:
        """Return the selected end-block events from every usable node, by node name."""
        asking = self._results(height, wanted)
        return await self._nodes.ask_all(asking, _RESULTS_SECONDS, self._patience, _RESULTS_SHARE)

    @property
    def _patience(self) -> float:
        """Return how long a node may take before a large answer begins, in seconds."""
        return max(self._timeout, self.block_seconds())

    def _results(self, height: int, wanted: EventFilter) -> Callable[[NodeAddress], Awaitable[tuple[Event, ...]]]:
        return self._asking(
            lambda: _Results(wanted), "block_results", {"height": str(height)}, lambda events: events, self._patience
        )

    async def retention(self) -> NodeRetention:
        """Return what the node retains.

        Queries the events of one past block to learn whether it retains events.
        """
        retention = await self._call("status", self._retention)
        try:
            await self.end_events(max(retention.earliest, retention.height - 1), lambda event: False)
        except ChainUnavailable as error:
            if error.failure is not FailureClass.PRUNED_NODE:
                raise
            return replace(retention, events=False)
        return retention

    async def heights(self) -> AsyncIterator[int]:
        """Yield heights as a node's WebSocket announces them.

        Raises ChainUnavailable when the connection ends.

        A connection without an announcement for the time of three blocks counts as lost. So does one to a node if
        another node is healthier by now.
        """
        order = self._nodes.order()
        if not order:
            raise ChainUnavailable("every chain node is on another fork or chain")
        node = self._nodes.nodes[order[0]]
        try:
            async with self._http.ws_connect(node.websocket_url, heartbeat=20, max_msg_size=_LARGEST_ANSWER) as socket:
                await socket.send_json(
                    {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"query": HEADER_QUERY}}
                )
                silent = 0.0
                while True:
                    if self._nodes.better_node_exists(order[0]):
                        raise ChainUnavailable(f"{node.websocket_url}: switching to a healthier node")
                    try:
                        frame = await socket.receive(self._look)
                    except TimeoutError:
                        silent += self._look
                        if silent >= self._silence:
                            raise
                        continue
                    silent = 0.0
                    if frame.type is not aiohttp.WSMsgType.TEXT:
                        raise ChainUnavailable(f"{node.websocket_url}: closed")
                    if (height := announced_height(frame.data)) is not None:
                        yield height
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ChainUnavailable(f"{node.websocket_url}: {str(error) or 'silent'}") from error


def announced_height(text: str) -> int | None:
    """Return the height of a NewBlockHeader event.

    Returns None for the empty response to the subscription. Raises ChainError.
    """
    try:
        result = result_of(json.loads(text))
        return _height(result["data"]["value"]["header"]["height"]) if result else None
    except _UNREADABLE as error:
        raise DecodingError("the node's event cannot be read") from error
