"""The localnet as a process: gRPC, CometBFT RPC, a clock and a control interface."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from pocket.errors import ConfigurationError
from pocket_localnet.comet_service import CometService
from pocket_localnet.grpc_service import start_grpc
from pocket_localnet.local_chain import CommittedBlock, LocalChain


@dataclass(frozen=True, slots=True)
class Localnet:
    """A running localnet."""

    chain: LocalChain
    grpc_url: str
    rpc_url: str
    step: Callable[[], CommittedBlock]

    async def follow_clock(self) -> None:
        """Commit a block every `block_seconds` of wall-clock time, for ever."""
        while True:
            await asyncio.sleep(self.chain.block_seconds)
            self.step()


def _control(chain: LocalChain, step: Callable[[], CommittedBlock]) -> list[web.RouteDef]:
    async def do_step(request: web.Request) -> web.Response:
        for _ in range(min(int(request.query.get("blocks", "1")), 10_000)):
            step()
        return web.json_response({"height": chain.height})

    async def show(_: web.Request) -> web.Response:
        state = chain.state
        body: dict[str, Any] = {
            "height": chain.height,
            "balances": state.balances,
            "supplier_stakes": {a: s.stake_upokt for a, s in state.suppliers.items()},
            "claims": [
                {"session_id": k[0], "supplier": k[1], "root": c.root_hash.hex(), "status": c.proof_validation_status}
                for k, c in state.claims.items()
            ],
        }
        return web.json_response(body)

    async def faults(request: web.Request) -> web.Response:
        body = await request.json()
        for name in ("evict", "hold_blocks", "lag_blocks"):
            if name in body:
                setattr(chain.faults, name, int(body[name]))
        for row in body.get("refuse", []):
            chain.faults.refuse.append((int(row["code"]), str(row["codespace"]), str(row["log"])))
        return web.json_response({"evict": chain.faults.evict, "refuse": len(chain.faults.refuse)})

    return [
        web.post("/localnet/step", do_step),
        web.get("/localnet/state", show),
        web.post("/localnet/faults", faults),
    ]


@contextlib.asynccontextmanager
async def serve(
    chain: LocalChain, *, host: str = "127.0.0.1", grpc_port: int = 0, rpc_port: int = 0
) -> AsyncIterator[Localnet]:
    """Serve the chain. Port 0 selects a free port.

    Raises ConfigurationError for an occupied port.
    """
    comet = CometService(chain)

    def step() -> CommittedBlock:
        # Block time follows the wall clock but always advances: timeouts depend on it.
        earliest = chain.state.time_ns + 1_000_000
        block = chain.step(max(earliest, time.time_ns()) if chain.genesis.time == 0 else None)
        comet.publish(block)
        return block

    app = web.Application()
    app.add_routes(_control(chain, step))
    comet.routes(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, host, rpc_port)
    try:
        await site.start()
        server, port = await start_grpc(chain, f"{host}:{grpc_port}")
    except (OSError, RuntimeError) as error:
        await runner.cleanup()
        raise ConfigurationError(
            f"localnet: cannot listen on {host}, ports {rpc_port} and {grpc_port}: {error}. "
            "Stop the other process or choose other ports (0 takes a free one)."
        ) from error
    try:
        bound = runner.addresses[0][1]
        yield Localnet(chain, f"grpc://{host}:{port}", f"http://{host}:{bound}", step)
    finally:
        await server.stop(0.2)
        await runner.cleanup()
