"""What claims and proofs cost: kept for each session until its outcome, and the measure for the next ones."""

import asyncio
import contextlib
import logging
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from pocket.chain.client import ChainClient
from pocket.errors import DecodingError, NotFound, PocketError
from pocket.protocol.transactions.build import GasPrice
from pocket.protocol.transactions.decode import contents
from pocket.redis_store.redis_errors import REDIS_ERRORS
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import RedisStoreError
from pocket_miner import miner_metrics
from pocket_miner.storage.audit import Audit

_LOG = logging.getLogger("pocket_miner.submission.fees")
_CLAIM_GAS: Final = 130_000
_PROOF_GAS: Final = 400_000
"""Gas of one message before any was sent."""
_MOST_OWED: Final = 1000


def shares(total: int, number: int) -> list[int]:
    """A fee over the messages that it paid for: whole upokt that add up to it."""
    whole, rest = divmod(total, number)
    return [whole + (index < rest) for index in range(number)]


@dataclass(slots=True)
class FeeTracker:
    """Of all suppliers of a process."""

    gas_price: GasPrice
    audit: Audit
    _last: dict[str, int] = field(default_factory=dict)
    _begun: dict[str, int] = field(default_factory=dict)
    """Transaction hash → upokt that are in the books and not in the metrics: nobody knows yet whether it was taken."""
    _owed: dict[tuple[str, str], tuple[str, dict[str, int]]] = field(default_factory=dict)
    """(supplier, transaction hash) → what the volume did not take."""

    def estimate_upokt(self) -> int:
        """Fees of one claim and one proof: as in the last transactions, by usual gas before there were any."""
        claim = self._last.get("claim", self.gas_price.fee_upokt(_CLAIM_GAS))
        return claim + self._last.get("proof", self.gas_price.fee_upokt(_PROOF_GAS))

    async def begun(self, store: SealStore, raw: bytes, proof_submission_fee_upokt: int = 0) -> None:
        """Keep what a transaction costs before it is handed to a node: whoever is killed then has it in the books.

        Never raises.
        """
        for what, tx_hash, costs in self._costs_of(raw, proof_submission_fee_upokt):
            new = await self._spend(store.supplier, what, tx_hash, costs)
            self._begun[tx_hash] = self._begun.get(tx_hash, 0) + new

    async def sent(self, store: SealStore, raw: bytes, proof_submission_fee_upokt: int = 0) -> None:
        """A transaction that a mempool took. The same bytes again cost nothing more; never raises."""
        for what, tx_hash, costs in self._costs_of(raw, proof_submission_fee_upokt):
            each = proof_submission_fee_upokt if what == "proof" else 0
            self._last[what] = -(-sum(costs.values()) // len(costs)) - each
            new = await self._spend(store.supplier, what, tx_hash, costs)
            miner_metrics.FEES.labels(what).inc(new + self._begun.pop(tx_hash, 0))
            with contextlib.suppress(*REDIS_ERRORS, RedisStoreError):
                await store.share_costs(tx_hash, what, costs)

    async def refused(self, store: SealStore, raw: bytes) -> None:
        """A transaction that no mempool took: it costs nothing. Never raises."""
        for _, tx_hash, costs in self._costs_of(raw, 0):
            self._begun.pop(tx_hash, None)
            self._owed.pop((store.supplier, tx_hash), None)
            try:
                for session_id in costs:
                    await asyncio.to_thread(self.audit.unspend, store.supplier, session_id, tx_hash)
            except sqlite3.Error as error:
                _LOG.warning("the fee of a refused transaction stays in the books: %s", error)

    def _costs_of(self, raw: bytes, submission_fee_upokt: int) -> list[tuple[str, str, dict[str, int]]]:
        """Return (claim or proof, transaction hash, upokt by session id) of what a transaction holds."""
        try:
            found = contents(raw)
        except DecodingError as error:
            _LOG.error("fees: %s", error)
            return []
        return [
            (what, found.tx_hash,
             {i: fee + each for i, fee in zip(sessions, shares(found.fee_upokt, len(sessions)), strict=True)})
            for what, sessions, each in (
                ("claim", found.claims, 0), ("proof", found.proofs, submission_fee_upokt),
            ) if sessions
        ]  # fmt: skip

    async def _spend(self, supplier: str, what: str, tx_hash: str, costs: dict[str, int]) -> int:
        """Keep costs on the volume; return how many upokt of them are new. What it does not take is owed to it."""
        try:
            new = await asyncio.to_thread(self.audit.spend, supplier, tx_hash, what, costs)
        except sqlite3.Error as error:
            miner_metrics.ERRORS.labels("volume").inc()
            _LOG.error("the volume took no fees: %s. Free space on it.", error)
            self._owed[supplier, tx_hash] = (what, costs)
            while len(self._owed) > _MOST_OWED:
                self._owed.pop(next(iter(self._owed)))
            return 0
        self._owed.pop((supplier, tx_hash), None)
        return new

    async def settle(self, store: SealStore, session_id: str, chain: ChainClient) -> None:
        """What a session has cost in the end: also what former owners paid, and only what the chain included.

        A claim or proof that was signed more than once cost the fee of those that were included, failed ones too. Where
        the node cannot tell, all of them count. Raises sqlite3.Error: a volume that takes no fees takes no outcome.
        """
        supplier = store.supplier
        try:
            told = await store.costs(session_id)
        except (*REDIS_ERRORS, RedisStoreError) as error:
            _LOG.warning("fees of former owners: %s", error)
            told = {}
        for (of, tx_hash), (what, costs) in list(self._owed.items()):
            if of == supplier and session_id in costs:
                told.setdefault(tx_hash, (what, costs[session_id]))
        for tx_hash, (what, upokt) in told.items():
            await asyncio.to_thread(self.audit.spend, supplier, tx_hash, what, {session_id: upokt})
        try:
            payments = await asyncio.to_thread(self.audit.payments, supplier, session_id)
            several = Counter(what for what, _ in payments)
            for what, number in several.items():
                hashes = [tx_hash for kind, tx_hash in payments if kind == what]
                missing = [tx_hash for tx_hash in hashes if number > 1 and not await _included(chain, tx_hash)]
                # A node without an index knows none of them.
                for tx_hash in missing if len(missing) < number else ():
                    await asyncio.to_thread(self.audit.unspend, supplier, session_id, tx_hash)
        except PocketError as error:
            _LOG.warning("fees: %s", error)

    def of(self, supplier: str, session_id: str) -> int:
        """What a session has cost so far, upokt."""
        return self.audit.spent(supplier, session_id)


async def _included(chain: ChainClient, tx_hash: str) -> bool:
    try:
        await chain.transaction(tx_hash)
    except NotFound:
        return False
    return True
