"""The tasks of one supplier that is mined: it is tailed, and it decides at every block."""

import asyncio
import contextlib
import logging
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from pocket.errors import PocketError
from pocket.redis_store.redis_errors import REDIS_ERRORS
from pocket.redis_store.store_errors import StaleEpoch
from pocket_miner import miner_metrics
from pocket_miner.storage.corruption import damage_of
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.proof_params import ProofParamsByHeight
from pocket_miner.suppliers.supplier_miner import SupplierMiner

_LOG = logging.getLogger("pocket_miner.suppliers.running")
_BUSY_SECONDS = 0.1
_BUSY_ROUNDS = 15
_HEAL_SECONDS = 5.0
LAST_SECONDS = 5.0
"""For so long after a key is gone here, a relayer may have gone on with it."""
TROUBLE = (PocketError, *REDIS_ERRORS, sqlite3.Error)


@dataclass(slots=True)
class SupplierWorker:
    """`gate` and `tail_gate` bound how many suppliers of a process decide and are tailed at once.

    Without them a thousand suppliers would wait for the same few connections until each one's deadline. `fenced` is
    told of a higher epoch.
    """

    supplier: SupplierMiner
    params: ProofParamsByHeight
    board: LatestBlock
    gate: asyncio.Semaphore
    tail_gate: asyncio.Semaphore
    block_seconds: float
    fenced: Callable[[str, StaleEpoch], None]
    chance: random.Random
    retiring_since: float | None = None
    """Since when the supplier's key is gone (loop's clock): nothing new is mined, what is open goes on."""
    stages: dict[str, int] = field(default_factory=dict)
    seen: int = 0  # height of the block that was decided last
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until the supplier is retired with nothing open, or another owner is met. Raises damage of the volume."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._decide()), group.create_task(self._tail())]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        finally:
            self.stages = {}

    def wake(self) -> None:
        """Relays came."""
        self._woken.set()

    def retire(self, now: float | None) -> None:
        """Its key is gone; None: it is there."""
        self.retiring_since = None if now is None else self.retiring_since or now

    @property
    def _over(self) -> bool:
        """Whether nothing is open that a relayer which lost the key a little later may have recorded."""
        since, looked = self.retiring_since, self.supplier.looked_at
        return since is not None and not self.supplier.sessions and looked is not None and looked > since + LAST_SECONDS

    async def _tail(self) -> None:
        failures = idle = 0
        while not self._over:
            try:
                async with self.tail_gate:
                    read = await self.supplier.tail()
                failures = 0
            except StaleEpoch as error:
                self.fenced(self.supplier.supplier, error)
                return
            except TROUBLE as error:
                if damage_of(error) is not None:
                    raise
                # A full volume stops mirroring, never claims: what is not mirrored is still in the streams.
                miner_metrics.ERRORS.labels("tail").inc()
                failures += 1
                if failures == 1:
                    _LOG.warning("tailing: %s", error, extra={"fields": {"supplier": self.supplier.supplier}})
                await asyncio.sleep(min(2.0, 0.1 * 2 ** min(failures, 5)))
                continue
            if read:
                idle = 0
                continue
            idle += 1
            # Whoever just had relays looks often; the others wait to be woken, and look now and then in case they
            # were not.
            await self._rest(_BUSY_SECONDS if idle < _BUSY_ROUNDS else _HEAL_SECONDS * self.chance.uniform(0.8, 1.2))

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def _decide(self) -> None:
        """At every new block, and again after a while without one; bursts collapse."""
        while not self._over:
            await self.board.wait(self.seen, max(1.0, self.block_seconds))
            try:
                async with self.gate:
                    block = self.board.latest  # what came while others decided is skipped
                    if block is None:
                        continue
                    self.stages = await self.supplier.on_block(block, await self.params.at(block.height))
                self.seen = block.height
            except StaleEpoch as error:
                self.fenced(self.supplier.supplier, error)
                return
            except TROUBLE as error:
                if damage_of(error) is not None:
                    raise
                # One supplier's trouble must not keep the others from their windows.
                miner_metrics.ERRORS.labels("decide").inc()
                _LOG.warning("deciding: %s", error, extra={"fields": {"supplier": self.supplier.supplier}})
                await asyncio.sleep(min(1.0, self.block_seconds / 4))
