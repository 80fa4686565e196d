"""What claims and proofs cost: kept for each session until its outcome, and the measure for the next ones."""

import asyncio
import contextlib
import logging
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from ledger.errors import LedgerError
from ledger.seals import SealStore
from miner import metrics
from miner.audit import Audit
from shannon.chain.client import ChainClient
from shannon.errors import DecodingError, NotFound, PocketError
from shannon.transactions.build import GasPrice
from shannon.transactions.contents import contents

_LOG = logging.getLogger("miner.fees")
_CLAIM_GAS: Final = 130_000
_PROOF_GAS: Final = 400_000
"""Gas of one message before any was sent."""


def shares(total: int, number: int) -> list[int]:
    """A fee over the messages that it paid for: whole upokt that add up to it."""
    whole, rest = divmod(total, number)
    return [whole + (index < rest) for index in range(number)]


@dataclass(slots=True)
class FeeBook:
    """Of all suppliers of a process."""

    gas_price: GasPrice
    audit: Audit
    _last: dict[str, int] = field(default_factory=dict)

    def estimate_upokt(self) -> int:
        """Fees of one claim and one proof: as in the last transactions, by usual gas before there were any."""
        claim = self._last.get("claim", self.gas_price.fee_upokt(_CLAIM_GAS))
        return claim + self._last.get("proof", self.gas_price.fee_upokt(_PROOF_GAS))

    async def sent(self, store: SealStore, raw: bytes, proof_submission_fee_upokt: int = 0) -> None:
        """A transaction that a mempool took. The same bytes again cost nothing more; never raises."""
        try:
            found = contents(raw)
        except DecodingError as error:
            _LOG.error("fees: %s", error)
            return
        for what, sessions, each in (
            ("claim", found.claims, 0), ("proof", found.proofs, proof_submission_fee_upokt)
        ):  # fmt: skip
            if not sessions:
                continue
            self._last[what] = -(-found.fee_upokt // len(sessions))
            costs = {i: fee + each for i, fee in zip(sessions, shares(found.fee_upokt, len(sessions)), strict=True)}
            try:
                new = await asyncio.to_thread(self.audit.spend, store.supplier, found.tx_hash, what, costs)
            except sqlite3.Error as error:
                metrics.ERRORS.labels("volume").inc()
                _LOG.error("the volume took no fees: %s. Free space on it.", error)
                continue
            metrics.FEES.labels(what).inc(new)
            with contextlib.suppress(RedisError, OSError, TimeoutError, LedgerError):
                await store.share_costs(found.tx_hash, what, costs)

    async def settle(self, store: SealStore, session_id: str, chain: ChainClient) -> None:
        """What a session has cost in the end: also what former owners paid, and only what the chain included.

        A claim or proof that was signed more than once cost the fee of those that were included, failed ones too. Where
        the node cannot tell, all of them count. Never raises.
        """
        supplier = store.supplier
        try:
            for tx_hash, (what, upokt) in (await store.costs(session_id)).items():
                await asyncio.to_thread(self.audit.spend, supplier, tx_hash, what, {session_id: upokt})
        except (RedisError, OSError, TimeoutError, LedgerError, sqlite3.Error) as error:
            _LOG.warning("fees of former owners: %s", error)
        try:
            payments = await asyncio.to_thread(self.audit.payments, supplier, session_id)
            several = Counter(what for what, _ in payments)
            for what, number in several.items():
                hashes = [tx_hash for kind, tx_hash in payments if kind == what]
                missing = [tx_hash for tx_hash in hashes if number > 1 and not await _included(chain, tx_hash)]
                # A node without an index knows none of them.
                for tx_hash in missing if len(missing) < number else ():
                    await asyncio.to_thread(self.audit.unspend, supplier, session_id, tx_hash)
        except (PocketError, sqlite3.Error) as error:
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
