"""Find claims on chain of sessions that nothing here knows.

Another miner has made such a claim with a supplier's key, or the session's relays and seal are lost. If its proof is
required and no miner sends it, the supplier is slashed.

Each supplier is queried for it once per session, after the claim window, and once more before an alert.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain.client import ChainClient
from pocket.errors import PocketError
from pocket_miner import miner_metrics
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.supplier_miner import SupplierMiner

_LOG: FilteringBoundLogger = structlog.get_logger()


@dataclass(slots=True)
class UnknownClaims:
    """Compares the claims on chain with the sessions of mined suppliers."""

    chain: ChainClient
    _next_close: int = 0
    """Height at which the claim window of the next session closes."""
    _due: set[str] = field(default_factory=set)  # suppliers to be queried about it
    _suspected: dict[str, frozenset[str]] = field(default_factory=dict)
    """Supplier → sessions whose claims were unknown at its latest query."""
    _told: dict[str, frozenset[str]] = field(default_factory=dict)

    async def run(self, board: LatestBlock, miners: Callable[[], Collection[SupplierMiner]], seconds: float) -> None:
        """Check at each block at which a supplier is due, without end.

        Waits at most `seconds` for a block.
        """
        seen = 0
        while True:
            await board.wait_newer(seen, seconds)
            if board.height > seen:
                seen = board.height
                await self.check(miners(), seen)

    async def check(self, miners: Collection[SupplierMiner], height: int) -> None:
        """Query the claims of the suppliers that are due.

        What cannot be queried stays due.
        """
        if height >= self._next_close:
            try:
                session_end, self._next_close = await self._claim_windows(height)
            except (PocketError, TimeoutError):
                return
            if session_end > 0:
                self._due = {miner.supplier for miner in miners}
        for miner in [miner for miner in miners if miner.supplier in self._due and miner.last_scan_at is not None]:
            try:
                await self._check(miner, height)
            except (PocketError, TimeoutError) as error:
                _LOG.info("claims not compared with known sessions", supplier=miner.supplier, error=error)

    async def _claim_windows(self, height: int) -> tuple[int, int]:
        """Return the end of the latest session whose claim window is over.

        Also returns when the next one's will be. Both are heights. The first one is 0 if no window is over. Raises the
        errors of the chain.
        """
        at, close = height, 0
        while at > 0:
            params = await self.chain.shared_params(at)
            windows = params.windows(at)
            if windows.claim_close <= height:
                return windows.session_end, close
            close, at = windows.claim_close, params.session_start(at) - 1
        return 0, close

    async def _check(self, miner: SupplierMiner, height: int) -> None:
        supplier = miner.supplier
        claimed = {claim.header.session_id for claim in await self.chain.claims_of(supplier, height)}
        unknown = frozenset(claimed - miner.sessions.keys() - miner.concluder.finished.keys())
        new = unknown - self._told.pop(supplier, frozenset())
        certain = new & self._suspected.pop(supplier, frozenset())
        if known := unknown - (new - certain):
            self._told[supplier] = known
        if suspected := new - certain:
            self._suspected[supplier] = suspected  # one answer may be wrong
        else:
            self._due.discard(supplier)
        for session_id in sorted(certain):
            miner_metrics.UNKNOWN_CLAIMS.inc()
            _LOG.error(
                "claim on chain of a session that nothing here knows: does another miner use this supplier's key?",
                supplier=supplier,
                session=session_id,
                height=height,
            )
