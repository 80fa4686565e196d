"""Claim and prove sessions sealed on this volume while their owner is unknown.

A sealed session needs only its key and the chain. A miner that starts while Redis or the API server is unavailable has
no Lease, and the window does not wait for one. Every miner sends the same claim and proof of a sealed session, so only
a fee could be paid twice, and the chain is queried before that.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from structlog.contextvars import bound_contextvars
from structlog.typing import FilteringBoundLogger

from pocket.chain.model import Block
from pocket.redis_store.store_errors import StaleEpoch
from pocket.runtime.concurrency import map_bounded
from pocket_miner import miner_metrics
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.suppliers.error_scope import STEP_ERRORS
from pocket_miner.suppliers.latest_block import LatestBlock, longest_wait
from pocket_miner.suppliers.proof_params import ProofParamsByHeight
from pocket_miner.suppliers.supplier_miner import SupplierMiner

_LOG: FilteringBoundLogger = structlog.get_logger()
_AT_ONCE: Final = 12
"""Suppliers that are worked on at the same time, as each may wait for the chain."""


class SealedSuppliers(Protocol):
    """The part of the supplier factory that is needed here."""

    @property
    def audit(self) -> Audit:
        """Return the audit file, which holds the volume's seals."""

    @property
    def addresses(self) -> list[str]:
        """Return the suppliers whose keys are loaded."""

    def detached(self, address: str) -> SupplierMiner:
        """Build a miner that works with the volume, the key and the chain alone."""


@dataclass(slots=True)
class SealedWork:
    """Works while the owner is unknown and stops as soon as Leases can be read again."""

    suppliers: SealedSuppliers
    board: LatestBlock
    params: ProofParamsByHeight
    block_seconds: float
    owners_known: Callable[[], bool]
    """Returns True if the Leases were read recently."""
    running: Callable[[], Collection[str]]
    """Returns the suppliers that this miner mines."""
    grace_seconds: float = 0.0
    """How long the owner must have been unknown. At an ordinary start Leases are read and taken immediately."""
    unowned: Callable[[Collection[str]], set[str]] = lambda addresses: set()
    """Returns the suppliers whose shard no miner holds, as when its Lease can be read but not written."""
    _unknown_since: float | None = None
    _miners: dict[str, SupplierMiner] = field(default_factory=dict)

    async def run(self) -> None:
        """Claim and prove at every block, forever."""
        tried = done = 0
        while True:
            await self.board.wait_newer(tried, longest_wait(self.block_seconds))
            tried = self.board.height
            if tried != done and await self.at_block():
                done = tried

    async def at_block(self) -> bool:
        """Claim and prove at the latest block.

        Returns True if that was due. Raises VolumeCorrupted only.
        """
        block, now = self.board.latest, asyncio.get_running_loop().time()
        waiting = set(self.suppliers.addresses)
        if self.owners_known():
            waiting = self.unowned(waiting)
        waiting.difference_update(self.running())
        if block is None or not waiting:
            self._miners.clear()
            self._unknown_since = None
            return False
        self._unknown_since = now if self._unknown_since is None else self._unknown_since
        if now - self._unknown_since < self.grace_seconds:
            return False
        open_ = await asyncio.to_thread(self.suppliers.audit.suppliers_with_open_seals)
        due = [address for address in open_ if address in waiting]
        await map_bounded(lambda address: self._work_on(address, block), due, _AT_ONCE)
        return True

    async def _work_on(self, address: str, block: Block) -> None:
        with bound_contextvars(supplier=address, height=block.height):
            await self._decide(address, block)

    async def _decide(self, address: str, block: Block) -> None:
        if address not in self._miners:
            _LOG.warning("working on sealed sessions without Redis or Lease")
            self._miners[address] = self.suppliers.detached(address)
        try:
            await self._miners[address].on_block(block, await self.params.at(block.height))
        except StaleEpoch as error:
            _LOG.info("supplier skipped, another miner owns it", error=error)
        except STEP_ERRORS as error:
            if corruption_in(error) is not None:
                raise
            miner_metrics.ERRORS.labels("sealed work").inc()
            _LOG.warning("working on sealed sessions failed, retrying at the next block", error=error)
