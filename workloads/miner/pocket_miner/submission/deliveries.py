"""Send claims and proofs to the chain's nodes.

Find out which of them the chain does not show yet.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Counter
from structlog.typing import FilteringBoundLogger

from pocket.chain.model import Block, TransactionResult
from pocket.errors import ChainError, DecodingError
from pocket.protocol.claims.proof_requirement import VALIDATED, Claim
from pocket.protocol.sessions.windows import Windows
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure
from pocket.protocol.transactions.build import transaction_hash
from pocket.redis_store.seals import SealStore, SignedGroup
from pocket.redis_store.store_errors import RedisStoreError
from pocket_miner import miner_metrics
from pocket_miner.sessions.submission import LAST_BLOCKS, Delivery, Submission
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.sender import Sender, SendError

_LOG: FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MessageKind:
    """The kind of a message: claim or proof, its `name`.

    `close` returns the height at which the window of such messages closes. `is_shown` returns True for a claim on chain
    that shows that the session's message arrived.
    """

    name: str
    sent_event: str
    counter: Counter
    delivery: Callable[[TrackedSession], Delivery]
    close: Callable[[Windows], int]
    record_refusal: Callable[[TrackedSession, str | None], None]
    is_shown: Callable[[TrackedSession, Claim], bool]
    decide: Callable[[Iterable[bool]], bool]
    """Merges what the nodes show: `any` where one node suffices, `all` where a wrong one would cost stake."""


def _record_claim_refusal(session: TrackedSession, text: str | None) -> None:
    session.details.refusal = text


def _record_proof_refusal(session: TrackedSession, text: str | None) -> None:
    session.details.proof_refusal = text


CLAIM = MessageKind(
    "claim", "claims sent", miner_metrics.CLAIMS, lambda session: session.claim, lambda windows: windows.claim_close,
    _record_claim_refusal,
    lambda session, claim: session.seal is not None and claim.root_hash == session.seal.root,
    any,
)  # fmt: skip
PROOF = MessageKind(
    "proof", "proofs sent", miner_metrics.PROOFS, lambda session: session.proof, lambda windows: windows.proof_close,
    _record_proof_refusal,
    lambda session, claim: claim.proof_validation_status == VALIDATED,
    all,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The deliveries of one supplier's messages of one kind."""

    kind: MessageKind
    store: SealStore
    sender: Sender
    fees: FeeTracker
    latest_height: Callable[[], int]
    """Returns the latest known height. The block being decided may be older."""

    def height(self, block: Block) -> int:
        """Return the latest known height."""
        return max(self.latest_height(), block.height)

    async def broadcast(
        self, raw: bytes, sessions: Sequence[TrackedSession], block: Block, *, timeout_ns: int = 0,
        submission_fee_upokt: int = 0,
    ) -> None:  # fmt: skip
        """Broadcast a transaction with the messages of sessions to all nodes.

        Raises SendError. If no node answered or their mempools are full, the same bytes are sent again at the next
        block.
        """
        kind, height = self.kind, self.height(block)
        deliveries = [kind.delivery(session) for session in sessions]
        submission = deliveries[0].sent
        again = submission is not None and submission.raw == raw
        if submission is None or not again:
            submission = Submission(raw, transaction_hash(raw), height, timeout_ns)
        for delivery in deliveries:
            delivery.sent = submission
        await self.fees.record_pending(self.store, raw, submission_fee_upokt)
        try:
            answer = await self.sender.broadcast(raw)
        except SendError as error:
            kind.counter.labels(error.refusal.name.lower()).inc(len(sessions))
            if not again or error.refusal is not BroadcastFailure.NEW_TIMESTAMP:
                await self._reject(raw, sessions, error)
                raise
            # A block that holds these bytes has used their timestamp: the chain is queried before others are signed.
            for delivery in deliveries:
                delivery.sent = submission.expired()
            return
        for session, delivery in zip(sessions, deliveries, strict=True):
            delivery.sent = submission.handed_over(height, answer.height, known_before=answer.known_before)
            kind.record_refusal(session, delivery.attempts.failed or None)
        kind.counter.labels("sent").inc(len(sessions))
        await self.fees.record_sent(self.store, raw, submission_fee_upokt)
        _LOG.info(
            kind.sent_event, session_end=sessions[0].end, sessions=len(sessions), tx=answer.tx_hash, height=height
        )

    async def _reject(self, raw: bytes, sessions: Sequence[TrackedSession], error: SendError) -> None:
        """Record why the nodes rejected a transaction: newly signed bytes may be accepted.

        Those that no node answered about, or that had no space for them, are kept: one may have them all the same.
        """
        if error.refusal in (BroadcastFailure.UNREACHABLE, BroadcastFailure.MEMPOOL_FULL):
            return
        for session in sessions:
            delivery = self.kind.delivery(session)
            self.kind.record_refusal(session, str(error)[:300])
            more_gas = error.refusal is BroadcastFailure.MORE_GAS
            delivery.attempts = delivery.attempts.refused(more_gas=more_gas, shared=len(sessions) > 1)
            delivery.sent = None
        await self.fees.record_rejected(self.store, raw)

    async def share(self, end: int, signed: SignedGroup) -> None:
        """Save a transaction on the volume and in Redis.

        Later owners, and this miner after a restart, find it there. They send the same bytes instead of paying a second
        fee. Never raises.
        """
        try:
            await asyncio.to_thread(self.fees.audit.save_signed, self.store.supplier, end, self.kind.name, signed)
        except sqlite3.Error as error:
            _LOG.error("a signed transaction not saved to the volume: free up space on it", error=error)
        try:
            await self.store.share_signed(end, self.kind.name, signed)
        except RedisStoreError as error:
            _LOG.info("a signed transaction not shared through Redis", error=error)

    async def results(self, sessions: Sequence[TrackedSession]) -> dict[str, TransactionResult]:
        """Return the results of the sessions' transactions that were included, by hash.

        Books those that failed.
        """
        sent = {last.tx_hash: last for session in sessions if (last := self.kind.delivery(session).sent) is not None}
        results = await self.sender.results_of(sent.values())
        for tx_hash, result in results.items():
            if result.code:
                await self.fees.record_failed(self.store, sent[tx_hash].raw, fee_paid=result.fee_paid)
        return results

    async def missing(
        self, sessions: Sequence[TrackedSession], block: Block, results: Mapping[str, TransactionResult]
    ) -> list[TrackedSession]:
        """Query the chain before a second fee is paid.

        Returns the sessions whose message it does not show: a former owner, or this miner before a restart, may have
        sent one. If no node answers, a message that was sent before waits for the next block, while there is one, and
        one in a transaction that `results` shows as included is not sent again.
        """
        if not sessions:
            return []
        windows, height = sessions[0].windows, self.height(block)
        try:
            claims = await self.sender.claims_at(height)
        except (ChainError, DecodingError, TimeoutError):
            last = windows is not None and self.kind.close(windows) - block.height <= LAST_BLOCKS
            waiting = [session for session in sessions if last or self.kind.delivery(session).sent is None]
            return [session for session in waiting if self._included_at(session, results) is None]
        by_session: dict[str, list[Claim]] = {}
        for claim in claims:
            by_session.setdefault(claim.header.session_id, []).append(claim)
        included = {session.session_id: self._included_at(session, results) for session in sessions}
        return [
            session
            for session in sessions
            if not self._is_shown(session, by_session.get(session.session_id, ()))
            and (included[session.session_id] or 0) <= height
        ]

    def _is_shown(self, session: TrackedSession, claims: Sequence[Claim]) -> bool:
        return bool(claims) and self.kind.decide(self.kind.is_shown(session, claim) for claim in claims)

    def _included_at(self, session: TrackedSession, results: Mapping[str, TransactionResult]) -> int | None:
        """Return the height of the block in which the session's transaction succeeded.

        The result is None if there is none.
        """
        last = self.kind.delivery(session).sent
        result = results.get(last.tx_hash) if last is not None else None
        return None if result is None or result.code else result.height
