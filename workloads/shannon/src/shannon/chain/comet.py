"""CometBFT JSON-RPC over HTTP and WebSocket (messages.md, section 11)."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from shannon.chain import convert
from shannon.chain.model import Block, BlockResults
from shannon.chain.nodes import Failover, NodeAddress
from shannon.chain.standing import Standings
from shannon.errors import ChainRefusal, ChainUnavailable, DecodingError
from shannon.transactions.build import Timestamp

HEADER_QUERY: Final = "tm.event='NewBlockHeader'"
_SILENCE_SECONDS: Final = 30.0
_LARGEST_ANSWER: Final = 64 * 1024 * 1024


def parse_time(text: str) -> Timestamp:
    """RFC 3339 with up to nanoseconds, UTC; raises DecodingError."""
    try:
        whole, _, fraction = text.removesuffix("Z").partition(".")
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        return Timestamp(seconds, int(fraction.ljust(9, "0")[:9]) if fraction else 0)
    except ValueError as error:
        raise DecodingError(f"{text[:40]!r} is not a UTC time") from error


def result_of(body: Any) -> Any:
    """The result of a JSON-RPC answer; raises ChainRefusal with the useful text of an error."""
    if not isinstance(body, dict):
        raise DecodingError("the node's answer is not a JSON-RPC object")
    if error := body.get("error"):
        raise ChainRefusal(str(error.get("data") or error.get("message")) if isinstance(error, dict) else str(error))
    return body.get("result")


def block_of(result: Any) -> Block:
    """Block from a `block` result; raises DecodingError."""
    try:
        header = result["block"]["header"]
        return Block(int(header["height"]), bytes.fromhex(result["block_id"]["hash"]), parse_time(header["time"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DecodingError("the node's block cannot be read") from error


def block_results_of(result: Any) -> BlockResults:
    """Events and codes from a `block_results` result; raises DecodingError."""
    try:
        codes = tuple(int(row.get("code", 0)) for row in result.get("txs_results") or [])
        return BlockResults(int(result["height"]), codes, convert.events(result.get("finalize_block_events") or []))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DecodingError("the node's block results cannot be read") from error


class CometClient:
    """Blocks and their events from the first node that answers."""

    def __init__(
        self,
        addresses: Sequence[NodeAddress],
        http: aiohttp.ClientSession,
        timeout_seconds: float = 5.0,
        block_seconds: float = 10.0,
        standings: Standings | None = None,
    ) -> None:
        self._nodes = Failover(list(addresses), standings=standings)
        self._http = http
        self._timeout = timeout_seconds
        # Pings show a dead connection; a living one that announces no block for so long is useless as well.
        self._silence = max(_SILENCE_SECONDS, 3 * block_seconds)
        self._look = min(self._silence, max(1.0, block_seconds))

    async def _call(self, method: str, **params: str) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}

        async def ask(node: NodeAddress) -> Any:
            try:
                async with self._http.post(node.rpc, json=body) as answer:
                    content = await answer.content.read(_LARGEST_ANSWER)
                    return result_of(json.loads(content))
            except (aiohttp.ClientError, OSError) as error:
                raise ChainUnavailable(f"{node.rpc}: {error}") from error
            except ValueError as error:
                raise ChainUnavailable(f"{node.rpc}: the answer is not JSON") from error

        return await self._nodes.call(method, ask, self._timeout)

    async def chain_id(self) -> str:
        """Network name of the node."""
        result = await self._call("status")
        try:
            return str(result["node_info"]["network"])
        except (KeyError, TypeError) as error:
            raise DecodingError("the node's status cannot be read") from error

    async def block(self, height: int | None = None) -> Block:
        """A block, the latest without height; ChainRefusal when it is not there yet."""
        return block_of(await (self._call("block") if height is None else self._call("block", height=str(height))))

    async def block_results(self, height: int) -> BlockResults:
        """What happened in a block."""
        return block_results_of(await self._call("block_results", height=str(height)))

    async def heights(self) -> AsyncIterator[int]:
        """Heights as a node's WebSocket announces them; raises ChainUnavailable when the connection ends.

        A connection without an announcement for three blocks' time counts as lost, and so does one to a node that
        another is to be preferred to by now.
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
                    if self._nodes.outranked(order[0]):
                        raise ChainUnavailable(f"{node.websocket_url}: another node is better now")
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
            raise ChainUnavailable(f"{node.websocket_url}: {error or 'silent'}") from error


def announced_height(text: str) -> int | None:
    """Height of a NewBlockHeader event; None for the empty answer to the subscription. Raises ChainRefusal."""
    try:
        result = result_of(json.loads(text))
        return int(result["data"]["value"]["header"]["height"]) if result else None
    except (KeyError, TypeError, ValueError) as error:
        raise DecodingError("the node's event cannot be read") from error
