"""The localnet as a process: gRPC, CometBFT RPC, a clock and a control interface."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pocket.api.base import problem_of
from pocket.errors import ConfigurationError
from pocket_localnet.comet_service import CometService
from pocket_localnet.grpc_server import start_grpc
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


class _Refusal(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: int
    codespace: str
    log: str


class _FaultRequest(BaseModel):
    """The faults that a request sets. What it does not name stays as it is."""

    model_config = ConfigDict(extra="forbid")

    evict: int | None = Field(None, ge=0)
    hold_blocks: int | None = Field(None, ge=0)
    lag_blocks: int | None = Field(None, ge=0)
    refuse: list[_Refusal] = []


class _StepRequest(BaseModel):
    blocks: int = Field(1, ge=1, le=10_000)


def _bad_request(error: ValidationError) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=f"{problem_of(error)}\n")


def _control(chain: LocalChain, step: Callable[[], CommittedBlock]) -> list[web.RouteDef]:
    async def do_step(request: web.Request) -> web.Response:
        try:
            wanted = _StepRequest.model_validate(dict(request.query))
        except ValidationError as error:
            raise _bad_request(error) from None
        for _ in range(wanted.blocks):
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

    async def set_faults(request: web.Request) -> web.Response:
        try:
            wanted = _FaultRequest.model_validate_json(await request.read())
        except ValidationError as error:
            raise _bad_request(error) from None
        faults = chain.faults
        for name, value in wanted.model_dump(exclude={"refuse"}, exclude_none=True).items():
            setattr(faults, name, value)
        faults.refuse += [(row.code, row.codespace, row.log) for row in wanted.refuse]
        return web.json_response(
            {
                "evict": faults.evict, "hold_blocks": faults.hold_blocks, "lag_blocks": faults.lag_blocks,
                "refuse": len(faults.refuse),
            }
        )  # fmt: skip

    return [
        web.post("/localnet/step", do_step),
        web.get("/localnet/state", show),
        web.post("/localnet/faults", set_faults),
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
