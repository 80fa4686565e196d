"""Claims and proofs of what is sealed on this volume, while nobody can tell who owns its suppliers.

What is sealed needs only its key and the chain. A miner that starts while Redis or the API server is away has no Lease,
and the window does not wait for one. Whoever sends a sealed claim or its proof sends the same, so nothing but a fee can
be paid twice; the chain is asked before that.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from pocket.redis_store.store_errors import StaleEpoch
from pocket_miner import miner_metrics
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.proof_params import ProofParamsByHeight
from pocket_miner.suppliers.running import TRANSIENT_ERRORS
from pocket_miner.suppliers.supplier_miner import SupplierMiner

_LOG = logging.getLogger("pocket_miner.suppliers.sealed_work")


class SealedSuppliers(Protocol):
    """Where the miners of single suppliers come from."""

    @property
    def audit(self) -> Audit:
        """The volume's seals."""

    @property
    def addresses(self) -> list[str]:
        """Suppliers whose keys are loaded."""

    def detached(self, address: str) -> SupplierMiner:
        """Return a miner that works with the volume, the key and the chain alone."""


@dataclass(slots=True)
class SealedWork:
    """Runs beside the ownership by Leases and steps back as soon as that can be asked again."""

    suppliers: SealedSuppliers
    board: LatestBlock
    params: ProofParamsByHeight
    block_seconds: float
    owners_known: Callable[[], bool]
    """Whether the Leases were read lately."""
    running: Callable[[], Collection[str]]
    """Suppliers that this miner mines."""
    grace_seconds: float = 0.0
    """For so long the Leases must not have been readable: at an ordinary start they are read at once."""
    _unknown_since: float | None = None
    _miners: dict[str, SupplierMiner] = field(default_factory=dict)

    async def run(self) -> None:
        """Work at every block, for ever."""
        tried = done = 0
        while True:
            await self.board.wait_newer(tried, max(1.0, self.block_seconds))
            tried = self.board.height
            if tried != done and await self.at_block():
                done = tried

    async def at_block(self) -> bool:
        """Claim and prove at the latest block; return whether that was due. Raises damage of the volume only."""
        block, now = self.board.latest, asyncio.get_running_loop().time()
        if block is None or self.owners_known():
            self._miners.clear()
            self._unknown_since = None
            return False
        self._unknown_since = now if self._unknown_since is None else self._unknown_since
        if now - self._unknown_since < self.grace_seconds:
            return False
        open_ = await asyncio.to_thread(self.suppliers.audit.suppliers_with_open_seals)
        for address in sorted(open_.intersection(self.suppliers.addresses).difference(self.running())):
            if address not in self._miners:
                _LOG.warning("working on sealed sessions without Redis or Lease", extra={"fields": {
                    "supplier": address, "height": block.height}})  # fmt: skip
                self._miners[address] = self.suppliers.detached(address)
            try:
                await self._miners[address].on_block(block, await self.params.at(block.height))
            except StaleEpoch as error:
                _LOG.info("another miner owns a supplier: %s", error, extra={"fields": {"supplier": address}})
            except TRANSIENT_ERRORS as error:
                if corruption_in(error) is not None:
                    raise
                miner_metrics.ERRORS.labels("sealed work").inc()
                fields = {"supplier": address, "height": block.height, "error": str(error) or type(error).__name__}
                _LOG.warning("working on sealed sessions failed, trying again", extra={"fields": fields})
        return True
