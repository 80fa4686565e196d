"""A miner whose volume takes no writes: what is sealed is claimed and proven, and nothing else is done."""

import asyncio
import contextlib
import logging
from pathlib import Path

from pocket.coordination.shard_leases import ShardLeaseManager
from pocket.coordination.stores.lease_store import LeaseUnavailable
from pocket_miner import miner_metrics
from pocket_miner.status.readiness import Phase, Readiness
from pocket_miner.storage.volume import takes_writes

_LOG = logging.getLogger("pocket_miner.suppliers.read_only_volume")
_SECONDS = 5.0


async def until_writable(folder: Path, keeper: ShardLeaseManager, readiness: Readiness, stop: asyncio.Event) -> None:
    """Wait until the folder takes writes again, which takes a new start of the miner, or for the stop.

    The Leases are read meanwhile: other members that live mine instead.
    """
    readiness.volume = (
        f"{folder} takes no writes: nothing new is mined, what is sealed is claimed and proven. Look at the volume and "
        "its node."
    )
    readiness.enter(Phase.READ_ONLY)
    miner_metrics.READ_ONLY.set(1)
    _LOG.error("%s", readiness.volume)
    while not stop.is_set():
        with contextlib.suppress(LeaseUnavailable):
            await keeper.refresh()
        if await asyncio.to_thread(takes_writes, folder):
            _LOG.warning("%s takes writes again: the miner ends, to start anew", folder)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                await stop.wait()
