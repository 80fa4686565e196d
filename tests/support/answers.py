"""What a busy chain's node answers, and a node that sends it in pieces."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any

from aiohttp import web

from pocket.chain.end_block_events import EndBlockEventParser
from pocket.chain.failover import NodeAddress
from pocket.chain.model import Event


def everything(_: Event) -> bool:
    return True


def end_events(pieces: Iterable[bytes], wanted: Callable[[Event], bool] = everything) -> tuple[Event, ...]:
    """Return the events of an answer that arrives in these pieces."""
    reader = EndBlockEventParser(wanted)
    for piece in pieces:
        reader.feed(piece)
    return reader.close()


def settled_row(supplier: str, number: int) -> dict[str, Any]:
    """Return a settlement as CometBFT shows it, 2 KiB of text."""
    told = {
        "supplier_operator_address": supplier, "session_id": f"{number:064x}", "service_id": "eth",
        "application_address": f"pokt1{number:038x}", "num_relays": "100", "claimed_upokt": "100upokt",
        "settled_upokt": "100upokt",
        "reward_distribution": json.dumps({f"pokt1{number:030x}{i:08x}": "10upokt" for i in range(20)}),
    }  # fmt: skip
    rows = [{"key": key, "value": json.dumps(value), "index": True} for key, value in told.items()]
    return {"type": "pocket.tokenomics.EventClaimSettled", "attributes": rows}


def results_text(height: int, rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Return a `block_results` answer, event by event."""
    yield b'{"jsonrpc":"2.0","id":1,"result":{"height":"%d","txs_results":[{"code":0,"events":[]}],' % height
    yield b'"finalize_block_events":['
    for number, row in enumerate(rows):
        yield (b"," if number else b"") + json.dumps(row, separators=(",", ":")).encode()
    yield b'],"validator_updates":null}}'


@contextlib.asynccontextmanager
async def node(answer: Callable[[str, Mapping[str, Any]], Iterable[bytes]]) -> AsyncIterator[NodeAddress]:
    """Run a node whose JSON-RPC answers are sent piece by piece, each in its own packet."""

    async def respond(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for piece in answer(asked["method"], asked["params"]):
                await response.write(piece)
                await asyncio.sleep(0)
        return response

    app = web.Application()
    app.router.add_post("/", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield NodeAddress.parse("127.0.0.1:1", f"http://{host}:{port}")
    finally:
        await runner.cleanup()
