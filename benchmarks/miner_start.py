"""Measure how long a miner takes to start with relays on its volume.

Usage: `python -m benchmarks.miner_start --gigabytes 2`.
"""

import argparse
import asyncio
import random
import time

from benchmarks.machine import cpu_seconds, resident_mib
from benchmarks.miner_cost import Bench, running_miner
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.envelope import HttpRequest
from pocket.protocol.relays.messages import Relay, RelayRequest, RelayResponse
from pocket_miner.sessions.leaf_validation import LeafBuilder, LeafTerms
from pocket_miner.storage.relay_store import RelayStore
from relayctl.local_process import await_http

_BATCH = 400


def fill(bench: Bench, size: float, relay_bytes: int) -> int:
    """Write relays of a running session to the volume of a stopped miner.

    It ends when they have `size` bytes. Returns their number.
    """
    sessions = asyncio.run(bench.sessions())
    supplier, header = next(row for row in sessions if row[0] in bench.suppliers)
    builder = LeafBuilder(LeafTerms(supplier, header, BASE_TARGET, 100))
    store = RelayStore(bench.folder / "data" / "mirror")
    file = store.file(header.session_end_block_height)
    file.add_session(supplier, header.session_id, header.encode())
    chance, body, written, number = random.Random(5), b"x" * relay_bytes, 0, 0
    while written < size:
        leaves = []
        for _ in range(_BATCH):
            envelope = HttpRequest("POST", "http://relayer/", {"Content-Type": ("text/plain",)}, b"%d " % number + body)
            request = RelayRequest(header, chance.randbytes(199), supplier, envelope.encode())
            response = RelayResponse(header, chance.randbytes(64), b"", chance.randbytes(32))
            relay = Relay(request, response).encode()
            leaves.append(builder.build(relay))
            number, written = number + 1, written + len(relay)
        file.store(supplier, header.session_id, leaves, 0, "1-1", "x")
    store.close()
    return number


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.miner_start", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--relay-bytes", type=int, default=10_000)
    options = parser.parse_args()
    with running_miner(3) as bench:
        for size in (0.0, options.gigabytes * 1e9):
            bench.miner.stop()
            number = fill(bench, size, options.relay_bytes)
            begun = time.monotonic()
            bench.miner.start()
            await_http(f"{bench.admin}/ready", bench.miner, 120)
            seconds = time.monotonic() - begun
            print(
                f"{size / 1e9:g} GB, {number:,} relays: ready after {seconds:.1f} s, {cpu_seconds(bench.pid):.2f} s of "
                f"CPU, {resident_mib(bench.pid):.0f} MiB"
            )


if __name__ == "__main__":
    main()
