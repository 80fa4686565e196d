"""Track the fees of claims and proofs per session.

Those of the next ones are estimated from them.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import structlog
from cachetools import FIFOCache, TTLCache
from structlog.typing import FilteringBoundLogger

from pocket.chain.client import ChainClient
from pocket.errors import DecodingError, NotFound, PocketError
from pocket.protocol.transactions.build import GasPrice
from pocket.protocol.transactions.decode import decode_tx
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import RedisStoreError
from pocket_miner import miner_metrics
from pocket_miner.storage.audit import Audit
from pocket_miner.submission.gas import CLAIM_GAS, PROOF_GAS, PROOF_GAS_PER_BYTE, USUAL_RELAY_BYTES

_LOG: FilteringBoundLogger = structlog.get_logger()
_RECENT: Final = 8
_RECENT_SECONDS: Final = 3600.0
_MAX_UNSAVED: Final = 1000


def shares(total: int, number: int) -> list[int]:
    """Split a fee in upokt into `number` whole amounts that add up to it."""
    share, rest = divmod(total, number)
    return [share + (index < rest) for index in range(number)]


@dataclass(slots=True)
class FeeTracker:
    """Tracks fees of all suppliers of a process on the volume."""

    gas_price: GasPrice
    audit: Audit
    clock: Callable[[], float] = time.monotonic
    _recent: dict[str, TTLCache[str, int]] = field(init=False)
    """Kind → transaction hash → fee of one message in upokt, of the transactions of the last hour."""
    _unsaved: FIFOCache[tuple[str, str], tuple[str, dict[str, int]]] = field(
        default_factory=lambda: FIFOCache(_MAX_UNSAVED)
    )
    """(supplier, transaction hash) → costs that could not be saved to the volume."""

    def __post_init__(self) -> None:
        self._recent = {
            message: TTLCache(_RECENT, _RECENT_SECONDS, timer=self.clock) for message in ("claim", "proof")
        }  # fmt: skip

    def estimate_upokt(self) -> int:
        """Return the expected fees of one claim and one proof in upokt.

        Each is the lowest of several recent ones, or that of typical gas while there are fewer: a few dear transactions
        must not make all later sessions look unprofitable, because without a claim no cheaper one would follow.
        """
        return self._lowest("claim", CLAIM_GAS) + self._lowest("proof", PROOF_GAS)

    def _lowest(self, message: str, typical_gas: int) -> int:
        recent = list(self._recent[message].values())
        return min(recent if len(recent) >= _RECENT else [*recent, self.gas_price.fee_upokt(typical_gas)])

    def highest_claim_upokt(self) -> int:
        """Return the fee to be kept back in upokt for one claim."""
        return max([*self._recent["claim"].values(), self.gas_price.fee_upokt(CLAIM_GAS)])

    def highest_proof_upokt(self, relay_bytes: int) -> int:
        """Return the fee to be kept back in upokt for a proof of any relay up to a size."""
        gas = PROOF_GAS + PROOF_GAS_PER_BYTE * max(0, relay_bytes - USUAL_RELAY_BYTES)
        return max([*self._recent["proof"].values(), self.gas_price.fee_upokt(gas)])

    async def record_pending(self, store: SealStore, raw: bytes, proof_submission_fee_upokt: int = 0) -> None:
        """Save the cost of a transaction before it is sent.

        A crash cannot lose it then. Never raises.
        """
        for message, tx_hash, costs in self._costs_of(raw, proof_submission_fee_upokt):
            await self._spend(store.supplier, message, tx_hash, costs)

    async def record_sent(self, store: SealStore, raw: bytes, proof_submission_fee_upokt: int = 0) -> None:
        """Record a transaction that a mempool accepted.

        Never raises. Sending the same bytes again costs nothing more.
        """
        for message, tx_hash, costs in self._costs_of(raw, proof_submission_fee_upokt):
            each = proof_submission_fee_upokt if message == "proof" else 0
            self._recent[message][tx_hash] = -(-sum(costs.values()) // len(costs)) - each
            await self._spend(store.supplier, message, tx_hash, costs)
            with contextlib.suppress(RedisStoreError):
                await store.share_costs(tx_hash, message, costs)

    async def record_failed(self, store: SealStore, raw: bytes, *, fee_paid: bool) -> None:
        """Record that a transaction failed in a block.

        No submission fee of its proofs is paid.

        `fee_paid` is True if its own fee is. Never raises.
        """
        for message, tx_hash, fees in self._costs_of(raw, 0):
            costs = fees if fee_paid else dict.fromkeys(fees, 0)
            await self._spend(store.supplier, message, tx_hash, costs, correct=True)
            with contextlib.suppress(RedisStoreError):
                await store.share_costs(tx_hash, message, costs)

    async def record_rejected(self, store: SealStore, raw: bytes) -> None:
        """Set the cost of a transaction aside that every mempool rejected.

        Unless a block proves to hold it in the end. Never raises.
        """
        for _, tx_hash, costs in self._costs_of(raw, 0):
            try:
                await asyncio.to_thread(self.audit.reject, store.supplier, list(costs), tx_hash)
            except sqlite3.Error as error:
                _LOG.warning("fee of a rejected transaction not deleted from the volume", error=error)

    def _costs_of(self, raw: bytes, submission_fee_upokt: int) -> list[tuple[str, str, dict[str, int]]]:
        """Return the costs of a transaction.

        They are claim or proof, transaction hash, and upokt by session id.
        """
        try:
            transaction = decode_tx(raw)
        except DecodingError as error:
            _LOG.error("fees not recorded, the transaction cannot be decoded", error=error)
            return []
        return [
            (message, transaction.tx_hash,
             {i: fee + each for i, fee in zip(sessions, shares(transaction.fee_upokt, len(sessions)), strict=True)})
            for message, sessions, each in (
                ("claim", transaction.claims, 0), ("proof", transaction.proofs, submission_fee_upokt),
            ) if sessions
        ]  # fmt: skip

    async def _spend(
        self, supplier: str, message: str, tx_hash: str, costs: dict[str, int], *, correct: bool = False
    ) -> None:  # fmt: skip
        """Save costs to the volume, or correct them.

        Costs that cannot be saved stay in memory until the session is settled.
        """
        try:
            await asyncio.to_thread(self.audit.spend, supplier, tx_hash, message, costs, correct=correct)
        except sqlite3.Error as error:
            miner_metrics.ERRORS.labels("volume").inc()
            _LOG.error("fees not saved to the volume: free up space on it", error=error)
            self._unsaved[supplier, tx_hash] = (message, costs)
            return
        self._unsaved.pop((supplier, tx_hash), None)

    async def settle(
        self, store: SealStore, session_id: str, chain: ChainClient, missed: Collection[str] = ()
    ) -> None:  # fmt: skip
        """Determine the final cost of a session.

        It includes fees that former owners paid, and only those of included transactions. A claim or proof that was
        signed several times costs the fees of all included transactions, failed ones too. `missed` are the kinds, claim
        or proof, of which the chain had none: a transaction that no node knows cost nothing. If the node cannot return
        which were included, all of them count. Raises sqlite3.Error, because a volume that cannot save fees cannot save
        the outcome either.
        """
        supplier = store.supplier
        try:
            known = await store.costs(session_id)
        except RedisStoreError as error:
            _LOG.warning("fees of former owners not read from Redis", error=error)
            known = {}
        for (of, tx_hash), (message, costs) in list(self._unsaved.items()):
            if of == supplier and session_id in costs:
                known.setdefault(tx_hash, (message, costs[session_id]))
        for tx_hash, (message, upokt) in known.items():
            await asyncio.to_thread(self.audit.spend, supplier, tx_hash, message, {session_id: upokt})
        try:
            payments = await asyncio.to_thread(self.audit.payments, supplier, session_id)
            several = Counter(message for message, _ in payments)
            for message, number in several.items():
                hashes = [tx_hash for kind, tx_hash in payments if kind == message]
                unsure = number > 1 or message in missed
                missing = [tx_hash for tx_hash in hashes if unsure and not await _included(chain, tx_hash)]
                # A node that has not indexed transactions returns none of them.
                for tx_hash in missing if len(missing) < number or message in missed else ():
                    await asyncio.to_thread(self.audit.unspend, supplier, session_id, tx_hash)
            for tx_hash, message, upokt in await asyncio.to_thread(self.audit.rejected, supplier, session_id):
                if await _included(chain, tx_hash):
                    await asyncio.to_thread(self.audit.spend, supplier, tx_hash, message, {session_id: upokt})
        except PocketError as error:
            _LOG.warning("inclusion of transactions unknown, all fees count", error=error)

    def of(self, supplier: str, session_id: str) -> int:
        """Return what a session has cost so far, in upokt."""
        return self.audit.spent(supplier, session_id)


async def _included(chain: ChainClient, tx_hash: str) -> bool:
    try:
        await chain.transaction(tx_hash)
    except NotFound:
        return False
    return True
