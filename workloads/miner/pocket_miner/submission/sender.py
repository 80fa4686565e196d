"""Sign and send one supplier's transactions.

Every rejection is classified.
"""

import sqlite3
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain.client import ChainClient
from pocket.chain.model import Block, TransactionResult
from pocket.errors import ChainError, ChainQueryRejected, ChainUnavailable, DecodingError, PocketError
from pocket.keys.remote_signer import SignerRefused, SignerUnavailable, SigningKey, sign_document
from pocket.keys.signer_protocol import DocumentType
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.transactions.batches import batch_by_size
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure, classify, failed_message_index
from pocket.protocol.transactions.build import (
    GasPrice,
    Message,
    SignedTransaction,
    Timestamp,
    TransactionPlan,
    adjusted_gas,
    unsigned_transaction,
)
from pocket.protocol.transactions.decode import DecodedTransaction, decode_tx, is_signed_by
from pocket.protocol.transactions.timeouts import UnorderedNonceAllocator, timeout_duration_seconds
from pocket.redis_store.seals import SignedGroup
from pocket.redis_store.store_errors import StaleEpoch
from pocket.runtime.concurrency import map_bounded
from pocket_miner import miner_metrics
from pocket_miner.sessions.submission import LAST_BLOCKS, Submission
from pocket_miner.storage.account_numbers import AccountNumbers
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.submission.account import SupplierAccount
from pocket_miner.submission.gas import believed_gas, typical_gas

T = TypeVar("T")
_LOG: FilteringBoundLogger = structlog.get_logger()


class SendError(PocketError):
    """A transaction was not accepted.

    `refusal` is the reason, `index` the position of the message at fault, if known.
    """

    def __init__(self, refusal: BroadcastFailure, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.index = index


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A signed transaction with its timeout."""

    signed: SignedTransaction
    timeout: Timestamp


@dataclass(frozen=True, slots=True)
class BroadcastAnswer:
    """The answer of the nodes' mempools: they accepted the bytes, or already had them.

    `height` is the height of the node that answered, 0 if unknown: its next block may include the bytes.
    """

    tx_hash: str
    known_before: bool
    height: int = 0


@dataclass(frozen=True, slots=True)
class SkippedMessages:
    """A transaction of the accepted messages, and the errors of the rejected ones.

    `prepared` is None if all were rejected. `refused` maps positions among the given messages to errors.
    """

    prepared: PreparedBatch | None
    refused: Mapping[int, SendError]


_ASKED_AT_ONCE = 8
_ANY_SIGNATURE = bytes(64)
"""A simulation checks no signature. Its size counts, since each byte of a transaction costs gas."""
_OF_ONE_MESSAGE = (
    BroadcastFailure.POISON, BroadcastFailure.NOT_REQUIRED, BroadcastFailure.RETRY, BroadcastFailure.NOT_SIGNED,
)  # fmt: skip
"""Rejections for which the chain or the signer names the message. RETRY covers texts of later chain versions."""


_OF_FEWER_MESSAGES = frozenset({
    BroadcastFailure.TOO_LARGE, BroadcastFailure.POISON, BroadcastFailure.RETRY, BroadcastFailure.PROGRAMMING,
    BroadcastFailure.MORE_GAS, BroadcastFailure.NOT_SIGNED, BroadcastFailure.NO_FUNDS,
})  # fmt: skip
"""Rejections after which half of the messages may be accepted: too large or too dear, or the message is unknown."""


class Sender:
    """Signs and broadcasts the transactions of one supplier."""

    def __init__(
        self,
        chain: ChainClient,
        supplier: str,
        key: SigningKey,
        *,
        chain_id: str,
        gas_price: GasPrice,
        gas_adjustment: float,
        block_seconds: float,
        nonces: UnorderedNonceAllocator,
        clock: Callable[[], float] = time.monotonic,
        numbers: AccountNumbers | None = None,
    ) -> None:
        self._chain = chain
        self._supplier = supplier
        self._key = key
        self._chain_id = chain_id
        self._gas_price = gas_price
        self._gas_adjustment = Decimal(str(gas_adjustment))
        self._block_seconds = block_seconds
        self._nonces = nonces
        self._clock = clock
        self.measured_block_seconds: Callable[[], float] = lambda: block_seconds
        """Returns the measured time between blocks. A transaction must not time out before the next one."""
        self._account = SupplierAccount(chain, supplier, numbers)

    @property
    def chain(self) -> ChainClient:
        """Return the client of the chain that transactions are sent to."""
        return self._chain

    async def has_signed(self, raw: bytes) -> bool:
        """Return True if a transaction was signed with the supplier's key.

        Raises ChainError.
        """
        return is_signed_by(raw, self._key.public_key, self._chain_id, (await self._account.get()).number)

    async def prepare(
        self, messages: Sequence[Message], block: Block, close_height: int, gas_factor: float = 1.0
    ) -> PreparedBatch:
        """Simulate and sign a transaction.

        Raises SendError with the index of the message at fault. `gas_factor` multiplies the simulated gas in addition
        to the adjustment, after it was too low.
        """
        remaining = close_height - block.height
        seconds = max(self._block_seconds, self.measured_block_seconds())
        try:
            number = (await self._account.get()).number
            timeout = self._nonces.next_timeout(
                self._supplier, block.time, timeout_duration_seconds(remaining, seconds)
            )
            plan = self._plan(messages, number, timeout, close_height, 0, None)
            trial = unsigned_transaction(plan, self._key.public_key).with_signature(_ANY_SIGNATURE)
            used = await self._gas_used(trial.raw, remaining)
        except ChainQueryRejected as refusal:
            text = str(refusal)
            self._account.forget()  # its number may be the cause
            raise SendError(classify(1, "undefined", text), text, failed_message_index(text)) from refusal
        except (ChainError, DecodingError, TimeoutError) as error:
            raise SendError(BroadcastFailure.UNREACHABLE, f"no node simulated the transaction: {error}") from error
        gas = adjusted_gas(used, self._gas_adjustment * Decimal(str(gas_factor)))
        fee = self._gas_price.fee_upokt(gas)
        plan = self._plan(messages, number, timeout, close_height, gas, fee)
        return PreparedBatch(await self._sign(plan), timeout)

    async def _gas_used(self, raw: bytes, remaining: int) -> int:
        """Return the gas that a transaction uses. Raises the errors of the chain.

        Simulating takes a node more than broadcasting, and may be blocked on its own. In the last blocks of a window
        the typical gas is returned then.
        """
        try:
            return believed_gas(await self._chain.simulate(raw), raw)
        except ChainQueryRejected:
            raise
        except (ChainError, DecodingError, TimeoutError) as error:
            if remaining > LAST_BLOCKS:
                raise
            _LOG.warning("no node simulated the transaction, sending it with typical gas", error=error)
            return typical_gas(raw)

    async def _sign(self, plan: TransactionPlan) -> SignedTransaction:
        unsigned = unsigned_transaction(plan, self._key.public_key)
        try:
            signature = await sign_document(self._key, DocumentType.TRANSACTION, unsigned.sign_doc_bytes)
        except SignerUnavailable as error:
            raise SendError(BroadcastFailure.UNSIGNED, str(error)) from error
        except SignerRefused as error:
            raise SendError(BroadcastFailure.NOT_SIGNED, str(error), error.index) from error
        return unsigned.with_signature(signature)

    async def prepare_skipping_rejected(
        self, messages: Sequence[Message], block: Block, close_height: int, gas_factor: float = 1.0
    ) -> SkippedMessages:
        """Prepare a transaction without the messages that the chain rejects by index.

        Raises SendError.
        """
        left, refused = list(range(len(messages))), {}
        while left:
            try:
                prepared = await self.prepare([messages[i] for i in left], block, close_height, gas_factor)
            except SendError as error:
                if error.refusal not in _OF_ONE_MESSAGE or error.index is None or error.index >= len(left):
                    raise
                refused[left.pop(error.index)] = error
                continue
            return SkippedMessages(prepared, refused)
        return SkippedMessages(None, refused)

    def _plan(
        self, messages: Sequence[Message], account_number: int, timeout: Timestamp, close_height: int, gas: int,
        fee: int | None,
    ) -> TransactionPlan:  # fmt: skip
        """Plan a transaction that cannot be included after its window.

        A node that was disconnected may forward it late, and it would then fail and still cost its fee.
        """
        return TransactionPlan(
            tuple(messages), self._chain_id, account_number, gas, fee, timeout, timeout_height=close_height
        )  # fmt: skip

    async def broadcast(self, raw: bytes) -> BroadcastAnswer:
        """Broadcast bytes to all nodes.

        Raises SendError. Bytes that a node already has count as accepted.
        """
        began = self._clock()
        miner_metrics.TRANSACTION_BYTES.observe(len(raw))
        try:
            answer = await self._broadcast(raw)
        except SendError as error:
            miner_metrics.BROADCASTS.labels(error.refusal.name.lower()).observe(self._clock() - began)
            raise
        result = "known" if answer.known_before else "accepted"
        miner_metrics.BROADCASTS.labels(result).observe(self._clock() - began)
        return answer

    async def _broadcast(self, raw: bytes) -> BroadcastAnswer:
        try:
            result = await self._chain.broadcast(raw)
        except (ChainError, DecodingError, TimeoutError) as error:
            raise SendError(BroadcastFailure.UNREACHABLE, f"no node took the transaction: {error}") from error
        if result.code == 0:
            await self._account.accepted()
            return BroadcastAnswer(result.tx_hash, known_before=False, height=result.height)
        refusal = classify(result.code, result.codespace, result.log)
        if refusal is BroadcastFailure.ACCEPTED_BEFORE:
            return BroadcastAnswer(result.tx_hash, known_before=True, height=result.height)
        if refusal is BroadcastFailure.ACCOUNT:
            await self._account.refute()
        raise SendError(
            refusal, f"code {result.code} ({result.codespace}): {result.log[:300]}", failed_message_index(result.log)
        )

    async def claims_at(self, height: int) -> list[Claim]:
        """Return the supplier's claims at a height by each usable node.

        Height 0 is the latest. An empty answer of one node proves nothing while another one shows the claim. Raises the
        ChainError of a node if none answered. A lagging node does not have that height, and its answer would prove
        nothing either.
        """
        by_node = (await self._chain.claims_by_node(self._supplier, height)).values()
        answers = [answer for answer in by_node if not isinstance(answer, ChainError)]
        if not answers:
            errors = [error for error in by_node if isinstance(error, ChainError)]
            raise errors[0] if errors else ChainUnavailable("no chain node may be queried for claims")
        return [claim for claims in answers for claim in claims]

    async def results_of(self, submissions: Iterable[Submission | None]) -> dict[str, TransactionResult]:
        """Return the results of transactions that were included, by hash.

        Bytes that no node is known to have taken are asked for, too: they may be those of a former process.
        """
        hashes = sorted({last.tx_hash for last in submissions if last is not None})
        results = zip(hashes, await map_bounded(self.result_of, hashes, _ASKED_AT_ONCE), strict=True)
        return {tx_hash: result for tx_hash, result in results if result is not None}

    async def result_of(self, tx_hash: str) -> TransactionResult | None:
        """Return the result of a transaction.

        The result is None if it is not included or no node can answer.
        """
        try:
            return await self._chain.transaction(tx_hash)
        except (ChainError, DecodingError, TimeoutError):
            return None


def signed_before(
    groups: Iterable[SignedGroup], block_nanoseconds: int, sessions_in: Callable[[DecodedTransaction], Iterable[str]]
) -> dict[str, Submission]:
    """Return by session id the transaction that a block may still include.

    It is the first one of `groups` that holds the session.

    `sessions_in` picks the sessions of a transaction: those of its claims or of its proofs.
    """
    submissions: dict[str, Submission] = {}
    for group in groups:
        if group.timeout_ns <= block_nanoseconds:
            continue
        try:
            transaction = decode_tx(group.tx_raw)
        except DecodingError as error:
            _LOG.error("a saved transaction cannot be decoded, signing it again", error=error)
            continue
        submission = Submission(group.tx_raw, transaction.tx_hash, group.height, group.timeout_ns)
        for session_id in sessions_in(transaction):
            submissions.setdefault(session_id, submission)
    return submissions


async def send_same_bytes(
    items: Iterable[tuple[T, Submission | None]], broadcast: Callable[[bytes, list[T]], Awaitable[None]]
) -> SendError | None:
    """Send signed transactions again, each once for all items in it.

    Returns the first error.
    """
    by_raw: dict[bytes, list[T]] = defaultdict(list)
    for item, last in items:
        if last is not None:
            by_raw[last.raw].append(item)
    failure: SendError | None = None
    for raw, group in by_raw.items():
        try:
            await broadcast(raw, group)
        except SendError as error:
            failure = failure or error
    return failure


async def send_in_batches(
    items: Sequence[T],
    message_of: Callable[[T], Message],
    max_transaction_bytes: int,
    send: Callable[[list[T]], Awaitable[None]],
    alone: Callable[[T], bool] = lambda item: False,
) -> None:
    """Send items in as many transactions as their size needs.

    A rejected one is retried in halves, except for lack of funds once a single item could not be paid. Items for which
    `alone` returns True get a transaction of their own. A failed transaction does not stop the others: the first error
    is raised after all have been tried.
    """
    together = [item for item in items if not alone(item)]
    waiting = batch_by_size(together, message_of, max_transaction_bytes) + [[item] for item in items if alone(item)]
    failure: Exception | None = None
    fewer = _OF_FEWER_MESSAGES
    while waiting:
        pack = waiting.pop(0)
        try:
            await send(pack)
        except SendError as error:
            if error.refusal in fewer and len(pack) > 1:
                half = len(pack) // 2
                waiting[:0] = [pack[:half], pack[half:]]
                continue
            if error.refusal is BroadcastFailure.NO_FUNDS:
                fewer = _OF_FEWER_MESSAGES - {BroadcastFailure.NO_FUNDS}
            failure = failure or error
        except (PocketError, OSError, sqlite3.Error) as error:
            if isinstance(error, StaleEpoch) or corruption_in(error) is not None:
                raise
            failure = failure or error
    if failure is not None:
        raise failure
