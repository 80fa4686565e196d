"""Run the localnet or the demo backend as a process.

Usage: `python -m pocket_localnet chain|backend`.
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from pocket.runtime import logs
from pocket.runtime.program import run_program
from pocket_localnet.backend import serve_backend
from pocket_localnet.genesis import load_genesis
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve


async def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)


async def _chain(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    await _stop_on_signals(stop)
    chain = LocalChain(load_genesis(options.genesis))
    if options.block_seconds is not None:
        chain.block_seconds = max(0.0, options.block_seconds)
    async with serve(chain, host=options.host, grpc_port=options.grpc_port, rpc_port=options.rpc_port) as localnet:
        sys.stdout.write(f"localnet {chain.state.chain_id}: gRPC {localnet.grpc_url}, RPC {localnet.rpc_url}\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            clock = None if options.step else group.create_task(localnet.follow_clock())
            await stop.wait()
            if clock:
                clock.cancel()


async def _backend(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    await _stop_on_signals(stop)
    async with serve_backend(options.host, options.port, options.grpc_port):
        await stop.wait()


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="localnet", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    kinds = parser.add_subparsers(required=True)
    chain = kinds.add_parser("chain")
    chain.add_argument("--genesis", type=Path, required=True)
    chain.add_argument("--grpc-port", type=int, default=9090)
    chain.add_argument("--rpc-port", type=int, default=26657)
    chain.add_argument("--block-seconds", type=float, help="0 = as fast as possible (default: the genesis')")
    chain.add_argument("--step", action="store_true", help="commit blocks only on POST /localnet/step")
    chain.set_defaults(run=_chain)
    backend = kinds.add_parser("backend")
    backend.add_argument("--port", type=int, default=8545)
    backend.add_argument("--grpc-port", type=int, help="port for gRPC; without it none is served")
    backend.set_defaults(run=_backend)
    options = parser.parse_args()
    logs.configure("localnet", os.environ.get("LOG_LEVEL", "INFO"))
    return run_program("localnet", options.run(options))


if __name__ == "__main__":
    sys.exit(main())
