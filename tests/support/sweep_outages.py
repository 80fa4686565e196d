"""Outages of one dependency for one to three blocks, from every block, with a miner that is restarted in it or not."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from sweep_faults import Fault
from sweep_life import FIRST, Life, Script
from sweep_points import guarded

DEPENDENCIES = {
    "chain node, gRPC": ("chain", "unavailable"),
    "chain node, CometBFT": ("rpc", "unavailable"),
    "chain node, both": ("chain+rpc", "unavailable"),
    "Redis": ("redis+recorder", "lost before"),
    "volume, full": ("sqlite+files", "full"),
    "volume, read-only": ("sqlite+files", "read-only"),
    "volume, I/O errors": ("sqlite+files", "I/O error"),
    "Kubernetes API": ("leases", "away"),
    "peers": ("peers", "refuses"),
}
BLOCKS = (1, 2, 3)
FROM = range(FIRST, 23)


@dataclass(frozen=True)
class Outage:
    """An outage of `blocks` blocks.

    With `restarted` the miner restarts in its first block.
    """

    dependency: str
    height: int
    blocks: int
    restarted: bool


CLAIMS_FROM, CLAIMS = 13, 3
"""At these blocks a claim can be sent: the window opens at 12, sealing waits a block, what is sent at 15 is the last.

Claims go over gRPC: where it is away at all of them, nothing can save a session. Who starts without a Lease may not
seal: another owner may have.
"""
NEEDED_FOR_A_CLAIM = ("chain node, gRPC", "chain node, both")
UNAVOIDABLE = {
    Outage(dependency, CLAIMS_FROM, CLAIMS, restarted)
    for dependency in NEEDED_FOR_A_CLAIM for restarted in (False, True)
} | {Outage("Kubernetes API", CLAIMS_FROM, CLAIMS, restarted=True)}  # fmt: skip


def every_outage() -> list[Outage]:
    return [
        Outage(dependency, height, blocks, restarted)
        for dependency in DEPENDENCIES for blocks in BLOCKS for restarted in (False, True) for height in FROM
    ]  # fmt: skip


async def live_outage(script: Script, redis: object, outage: Outage) -> list[str]:
    """Return the losses of an outage."""
    boundary, kind = DEPENDENCIES[outage.dependency]
    fault = Fault(boundary, kind, blocks=outage.blocks, first_block=outage.height)
    return await guarded(Life(script, redis, fault, outage.height if outage.restarted else 0).run())


def outage_columns() -> list[str]:
    return [f"{blocks} block{'s' * (blocks > 1)}{', restart' * restart}" for blocks in BLOCKS for restart in (0, 1)]


def outage_table(lost: Iterable[Outage]) -> str:
    """Return the table of docs/hardening.md, with the blocks from which an outage costs something."""
    cells = defaultdict(list)
    for outage in lost:
        cells[outage.dependency, outage.blocks, outage.restarted].append(outage.height)

    def cell(dependency: str, blocks: int, restarted: bool) -> str:
        heights = sorted(cells[dependency, blocks, restarted])
        return f"lost from {', '.join(map(str, heights))}" if heights else "nothing lost"

    columns = outage_columns()
    lines = ["| " + " | ".join(["away", *columns]) + " |", "|" + "--|" * (1 + len(columns))]
    for dependency in DEPENDENCIES:
        row = [cell(dependency, blocks, restarted) for blocks in BLOCKS for restarted in (False, True)]
        lines.append("| " + " | ".join([dependency, *row]) + " |")
    return "\n".join(lines) + "\n"
