"""Serve CometBFT JSON-RPC over the localnet.

It takes POST, the URI form and WebSockets (messages.md, section 11).
"""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from pocket.chain.model import TransactionResult
from pocket_localnet import encode
from pocket_localnet.local_chain import CommittedBlock, IncludedTransaction, LocalChain

_SLOW_SUBSCRIBER = 200  # undelivered events after which a subscriber is dropped


class RpcError(Exception):
    """A JSON-RPC error, with its detail in `data`."""

    def __init__(self, code: int, message: str, data: str = "") -> None:
        super().__init__(data or message)
        self.body = {"code": code, "message": message} | ({"data": data} if data else {})


def _height(chain: LocalChain, params: dict[str, Any], *, uri: bool) -> int:
    raw = params.get("height")
    if raw is None or raw == "":
        return chain.served_height
    if not uri and not isinstance(raw, str):
        text = f'error converting json params to arguments: invalid 64-bit integer encoding "{raw}", expected string'
        raise RpcError(-32602, "Invalid params", text)
    try:
        height = int(str(raw).strip('"'))
    except ValueError as error:
        kind = "http" if uri else "json"
        text = f'error converting {kind} params to arguments: invalid 64-bit integer encoding "{raw}", expected string'
        raise RpcError(-32602, "Invalid params", text) from error
    if height <= 0:
        raise RpcError(-32603, "Internal error", f"height must be greater than 0, but got {height}")
    if height > chain.served_height:
        text = f"height {height} must be less than or equal to the current blockchain height {chain.served_height}"
        raise RpcError(-32603, "Internal error", text)
    if height not in chain.blocks:
        raise RpcError(-32603, "Internal error", f"height {height} is not available, lowest height is {height + 1}")
    return height


def _id(block_hash: bytes) -> dict[str, Any]:
    return {"hash": block_hash.hex().upper(), "parts": {"total": 1 if block_hash else 0, "hash": ""}}


def _header(chain: LocalChain, block: CommittedBlock) -> dict[str, Any]:
    return {
        "version": {"block": "11"},
        "chain_id": chain.state.chain_id,
        "height": str(block.height),
        "time": encode.time_text(block.time_ns),
        "last_block_id": _id(chain.block_hash(block.height - 1)),
        "proposer_address": "",
    }


def _block(chain: LocalChain, block: CommittedBlock) -> dict[str, Any]:
    txs = [base64.b64encode(t.raw).decode() for t in block.transactions]
    return {"header": _header(chain, block), "data": {"txs": txs}, "evidence": {"evidence": []}, "last_commit": None}


def _commit(chain: LocalChain, block: CommittedBlock) -> dict[str, Any]:
    commit = {"height": str(block.height), "round": 0, "block_id": _id(block.hash), "signatures": []}
    return {"signed_header": {"header": _header(chain, block), "commit": commit}, "canonical": True}


def _tx_result(row: IncludedTransaction) -> dict[str, Any]:
    return {
        "code": row.result.code,
        "data": None,
        "log": row.result.log,
        "info": "",
        "gas_wanted": str(row.gas_wanted),
        "gas_used": str(row.result.gas_used),
        "events": encode.events_json(row.events, ("msg_index", "0")),
        "codespace": row.result.codespace,
    }


def _transaction(chain: LocalChain, params: dict[str, Any], *, uri: bool) -> dict[str, Any]:
    text = str(params.get("hash") or "")
    try:
        wanted = bytes.fromhex(text.strip('"').removeprefix("0x")) if uri else base64.b64decode(text, validate=True)
    except ValueError as error:
        detail = f"error converting {'http' if uri else 'json'} params to arguments: {error}"
        raise RpcError(-32602, "Invalid params", detail) from error
    tx_hash = wanted.hex().upper()
    row = chain.transactions.get(tx_hash)
    if row is None or row.result.height > chain.served_height:
        raise RpcError(-32603, "Internal error", f"tx ({tx_hash}) not found")
    block = chain.blocks.get(row.result.height)
    index = next((number for number, other in enumerate(block.transactions) if other is row), 0) if block else 0
    return {
        "hash": tx_hash, "height": str(row.result.height), "index": index, "tx_result": _tx_result(row),
        "tx": base64.b64encode(row.raw).decode(),
    }  # fmt: skip


def _block_results(block: CommittedBlock) -> dict[str, Any]:
    return {
        "height": str(block.height),
        "txs_results": [_tx_result(row) for row in block.transactions] or None,
        "finalize_block_events": encode.events_json(block.end_events, ("mode", "EndBlock")),
        "validator_updates": None,
    }


def _status(chain: LocalChain) -> dict[str, Any]:
    block = chain.blocks[chain.served_height]
    return {
        "node_info": {
            "network": chain.state.chain_id, "version": "0.38.0", "moniker": "localnet", "other": {"tx_index": "on"},
        },
        "sync_info": {
            "latest_block_hash": block.hash.hex().upper(),
            "latest_block_height": str(block.height),
            "latest_block_time": encode.time_text(block.time_ns),
            "earliest_block_height": str(min(chain.blocks)),
            "catching_up": False,
        },
    }  # fmt: skip


def _broadcast(chain: LocalChain, params: dict[str, Any], *, uri: bool) -> dict[str, Any]:
    text = str(params.get("tx") or "")
    try:
        raw = bytes.fromhex(text.removeprefix("0x")) if uri else base64.b64decode(text, validate=True)
    except ValueError as error:
        text = f"error converting json params to arguments: {error}"
        raise RpcError(-32602, "Invalid params", text) from error
    result: TransactionResult = chain.broadcast(raw)
    if result.code == 19:
        raise RpcError(-32603, "Internal error", "tx already exists in cache")
    return {
        "code": result.code,
        "data": "",
        "log": result.log,
        "codespace": result.codespace,
        "hash": result.tx_hash,
    }


class CometService:
    """The node's RPC. `publish` delivers a new block to subscribers."""

    def __init__(self, chain: LocalChain) -> None:
        self._chain = chain
        self._subscribers: set[asyncio.Queue[CommittedBlock]] = set()

    def routes(self, app: web.Application) -> None:
        """Add the node's paths."""
        app.router.add_post("/", self._post)
        app.router.add_get("/websocket", self._websocket)
        app.router.add_get("/{method}", self._get)

    def publish(self, block: CommittedBlock) -> None:
        """Queue the block for every subscriber. A slow subscriber is dropped."""
        for queue in list(self._subscribers):
            try:
                queue.put_nowait(block)
            except asyncio.QueueFull:
                self._subscribers.discard(queue)

    def call(self, method: str, params: dict[str, Any], *, uri: bool = False) -> Any:
        """Return the result of an ordinary method. Raises RpcError."""
        chain = self._chain
        methods: dict[str, Callable[[], Any]] = {
            "status": lambda: _status(chain),
            "health": dict,
            "abci_info": lambda: {"response": {"data": "pocket", "last_block_height": str(chain.served_height)}},
            "block": lambda: self._block_answer(_height(chain, params, uri=uri)),
            "commit": lambda: _commit(chain, chain.blocks[_height(chain, params, uri=uri)]),
            "header": lambda: {"header": _header(chain, chain.blocks[_height(chain, params, uri=uri)])},
            "block_results": lambda: _block_results(chain.blocks[_height(chain, params, uri=uri)]),
            "tx": lambda: _transaction(chain, params, uri=uri),
            "broadcast_tx_sync": lambda: _broadcast(chain, params, uri=uri),
            "broadcast_tx_async": lambda: _broadcast(chain, params, uri=uri),
        }
        if method not in methods:
            raise RpcError(-32601, "Method not found")
        return methods[method]()

    def _block_answer(self, height: int) -> dict[str, Any]:
        block = self._chain.blocks[height]
        return {"block_id": _id(block.hash), "block": _block(self._chain, block)}

    def _respond(self, request: Any) -> dict[str, Any]:
        number = request.get("id", -1) if isinstance(request, dict) else -1
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": number}
        try:
            if not isinstance(request, dict):
                raise RpcError(-32600, "Invalid Request")
            params = request.get("params") or {}
            if isinstance(params, list):
                params = {"height": params[0]} if params else {}
            answer["result"] = self.call(str(request.get("method")), params)
        except RpcError as error:
            answer["error"] = error.body
        return answer

    async def _post(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
        except ValueError:
            error = {"code": -32700, "message": "Parse error. Invalid JSON"}
            return web.json_response({"jsonrpc": "2.0", "id": -1, "error": error}, status=500)
        answer = [self._respond(row) for row in body] if isinstance(body, list) else self._respond(body)
        return web.json_response(answer)

    async def _get(self, request: web.Request) -> web.Response:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": -1}
        try:
            answer["result"] = self.call(request.match_info["method"], dict(request.query), uri=True)
        except RpcError as error:
            if error.body["code"] == -32601:
                return web.Response(status=404, text="404 page not found\n")
            return web.json_response({**answer, "error": error.body}, status=500)
        return web.json_response(answer)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=27)
        await socket.prepare(request)
        subscriptions: dict[str, Any] = {}
        queue: asyncio.Queue[CommittedBlock] = asyncio.Queue(maxsize=_SLOW_SUBSCRIBER)
        self._subscribers.add(queue)

        async def deliver() -> None:
            while True:
                block = await queue.get()
                for query, number in list(subscriptions.items()):
                    if event := self._event(query, block):
                        body = {"query": query, "data": event, "events": {"tm.event": [event["type"].split("/")[-1]]}}
                        await socket.send_json({"jsonrpc": "2.0", "id": number, "result": body})

        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(deliver())
                async for frame in socket:
                    if frame.type is WSMsgType.TEXT:
                        await socket.send_json(self._websocket_answer(frame.data, subscriptions))
                sender.cancel()
        except* (ConnectionError, RuntimeError):
            pass  # the client disconnected
        finally:
            self._subscribers.discard(queue)
        return socket

    def _websocket_answer(self, text: str, subscriptions: dict[str, Any]) -> dict[str, Any]:
        try:
            request = json.loads(text)
        except ValueError:
            return {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error. Invalid JSON"}}
        method = request.get("method") if isinstance(request, dict) else None
        if method not in ("subscribe", "unsubscribe", "unsubscribe_all"):
            return self._respond(request)
        query = str((request.get("params") or {}).get("query", ""))
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request.get("id", -1)}
        problem = ""
        if method == "subscribe":
            if query in subscriptions:
                problem = "already subscribed"
            elif not query.startswith("tm.event="):
                problem = "failed to parse query"
            else:
                subscriptions[query] = answer["id"]
        elif method == "unsubscribe_all":
            problem = "" if subscriptions else "subscription not found"
            subscriptions.clear()
        elif subscriptions.pop(query, None) is None:
            problem = "subscription not found"
        if problem:
            return {**answer, "error": {"code": -32603, "message": "Internal error", "data": problem}}
        return {**answer, "result": {}}

    def _event(self, query: str, block: CommittedBlock) -> dict[str, Any] | None:
        if query == "tm.event='NewBlockHeader'":
            value: dict[str, Any] = {"header": _header(self._chain, block)}
            return {"type": "tendermint/event/NewBlockHeader", "value": value}
        if query == "tm.event='NewBlock'":
            value = {
                "block": _block(self._chain, block),
                "block_id": _id(block.hash),
                "result_finalize_block": {"events": encode.events_json(block.end_events, ("mode", "EndBlock"))},
            }
            return {"type": "tendermint/event/NewBlock", "value": value}
        return None
