"""Wait on a read-only volume, while what is sealed on it is claimed and proven."""

import asyncio
import contextlib
from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.coordination.shard_leases import ShardLeaseManager
from pocket.coordination.stores.lease_store import LeaseUnavailable
from pocket_miner import miner_metrics
from pocket_miner.status.readiness import Phase, Readiness
from pocket_miner.storage.volume import takes_writes

_LOG: FilteringBoundLogger = structlog.get_logger()
_SECONDS = 5.0


async def until_writable(folder: Path, keeper: ShardLeaseManager, readiness: Readiness, stop: asyncio.Event) -> None:
    """Wait until the folder can be written again, or for the stop.

    The miner restarts then. Leases are read meanwhile to find out whether live members mine instead.
    """
    readiness.volume = (
        f"{folder} is read-only: no new relays are mined, sealed sessions are still claimed and proven. Check the "
        "volume and its node."
    )
    readiness.enter(Phase.READ_ONLY)
    miner_metrics.READ_ONLY.set(1)
    _LOG.error("volume is read-only", problem=readiness.volume)
    while not stop.is_set():
        with contextlib.suppress(LeaseUnavailable):
            await keeper.refresh()
        if await asyncio.to_thread(takes_writes, folder):
            _LOG.warning("volume is writable again, restarting the miner", folder=str(folder))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                await stop.wait()
