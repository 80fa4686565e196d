"""Record the outcomes of sessions and delete their data.

Source: docs/fragile/evidence.md. This is the only place that does either. No session ends before its settlement block,
and its outcome is the chain's settlement event. The absence of an event counts only after a second answer, and never
for a claim that was on chain. That no node retains the events any more counts only long after the settlement. An
outcome is durable before any data of its session is deleted, and deleting waits for Redis without delaying other
sessions.
"""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain.client import ChainClient
from pocket.chain.model import Block, Event
from pocket.errors import ChainError, ChainUnavailable, DecodingError, FailureClass
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import RedisStoreError, StaleEpoch
from pocket.redis_store.stream_reader import StreamReader
from pocket_miner import miner_metrics
from pocket_miner.sessions.evidence import Fact, Statement
from pocket_miner.sessions.stages import Stage
from pocket_miner.sessions.tracked_session import Skip, TrackedSession
from pocket_miner.settlement.collaborators import OtherMiners, OutcomeReport, SessionFees
from pocket_miner.settlement.event_reader import NotReadYet, SettlementReader
from pocket_miner.settlement.outcome_details import count_outcome, details_of, heights_of
from pocket_miner.settlement.verdict import SettlementResult, settled_as
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.ended_sessions import remove_ended
from pocket_miner.storage.outcomes import OutcomeRecord, SessionOutcome
from pocket_miner.storage.relay_store import RelayStore

_LOG: FilteringBoundLogger = structlog.get_logger()
TOMBSTONE_BLOCKS: Final = 500
_UNSEEN_BLOCKS: Final = 100
"""Blocks after a settlement during which a node that lacks its events may still receive them."""
_MISSED: Final = {SessionOutcome.CLAIM_MISSED: ("claim", "proof"), SessionOutcome.PROOF_MISSED: ("proof",)}
"""The messages of a session that were in no block by its outcome, or failed there."""
_SKIPPED: Final = {Skip.EMPTY: SessionOutcome.EMPTY, Skip.UNPROFITABLE: SessionOutcome.UNPROFITABLE}
_FORMER_OWNER_BLOCKS: Final = 5
"""Blocks of waiting for Redis and peers that may know of an outcome which a former owner has recorded."""
_CHECKED_SECONDS: Final = 1.0
"""Seconds for which a check of ownership counts when outcomes are recorded."""
_Ended = tuple[TrackedSession, SettlementResult, OutcomeRecord]


def without_event(session: TrackedSession) -> SettlementResult:
    """Return the outcome of a session without a settlement event."""
    rejected = session.evidence.rejection()
    if session.skip in _SKIPPED and session.seal is None:
        return SettlementResult(_SKIPPED[session.skip], session.skip.value, {})
    if session.skip is Skip.UNITS_MISMATCH and session.seal is None:
        return SettlementResult(SessionOutcome.FORFEITED, session.skip.value, {})
    if rejected is not None and session.terms is None:
        reason = f"{rejected.fact.value}: {rejected.text}" if rejected.text else rejected.fact.value
        return SettlementResult(SessionOutcome.FORFEITED, reason, {})
    refusal = session.details.refusal
    reason = f"the claim was refused: {refusal}" if refusal else "no claim was in a block in time"
    return SettlementResult(SessionOutcome.CLAIM_MISSED, reason, {})


def stage_of(session: TrackedSession, outcome: SessionOutcome) -> Stage:
    """Return the stage that a session had reached when it ended."""
    if outcome in (SessionOutcome.SETTLED, SessionOutcome.UNSEEN, SessionOutcome.CLAIM_LOST):
        return Stage.SETTLED
    if outcome in (SessionOutcome.PROOF_MISSED, SessionOutcome.PROOF_INVALID):
        return Stage.PROOFABLE
    if session.seal is not None:
        return Stage.SEALED
    return Stage.ACTIVE if session.terms is None else Stage.CLAIMABLE


@dataclass(slots=True)
class Concluder:
    """Concludes the sessions of one supplier."""

    supplier: str
    chain: ChainClient
    store: SealStore
    audit: Audit
    relay_store: RelayStore
    fees: SessionFees
    tail: StreamReader
    report: OutcomeReport
    peers: OtherMiners | None
    sessions: dict[str, TrackedSession]
    owner_since: int = 0
    """Height at which this owner first decided, 0 before. A former one may have concluded what settled until then."""
    finished: dict[str, int] = field(default_factory=dict)
    """Session id → session end height of recently ended sessions."""
    _to_drop: dict[str, TrackedSession] = field(default_factory=dict)
    _pruned_through: int = 0

    @property
    def is_pending(self) -> bool:
        """Return True if sessions with a recorded outcome are still to be deleted."""
        return bool(self._to_drop)

    async def restore(self) -> None:
        """Load recorded outcomes and schedule what is left of their sessions for deletion."""
        self.finished.update(await asyncio.to_thread(self.audit.ended, self.supplier, TOMBSTONE_BLOCKS))
        for session_id in await asyncio.to_thread(self.audit.with_outcome, self.supplier, list(self.sessions)):
            self._stop_mining(self.sessions[session_id])

    async def conclude(self, group: Sequence[TrackedSession], block: Block, settlements: SettlementReader) -> None:
        """Conclude the sessions of one settlement.

        Uncertain ones are retried at the next block.
        """
        outcomes = []
        for session in await self._not_ended_elsewhere(group, block):
            result = await self._result(session, block, settlements)
            if result is not None:
                outcomes.append((session, result, await self._outcome(session, result, block)))
        if outcomes:
            await self._record(outcomes)
        await self.drop_ended()

    async def drop_ended(self) -> None:
        """Delete streams, budgets and copies of sessions with a recorded outcome.

        Failures are retried. Raises those of Redis, and the first one of the volume after all have been tried: a file
        that cannot be used is of one session end.
        """
        failure: Exception | None = None
        for session_id, session in list(self._to_drop.items()):
            try:
                await self.store.finish(session_id, session.end)
                if session.end > self._pruned_through:  # once for the thousands of sessions that end together
                    await self.store.forget_before(session.end - TOMBSTONE_BLOCKS)
                    self._pruned_through = session.end
            except RedisStoreError as error:
                _LOG.info("deleting ended sessions from Redis failed, retrying", error=error)
                raise
            try:
                await asyncio.to_thread(self.relay_store.remove, session.end, self.supplier, session_id)
            except (sqlite3.Error, OSError) as error:
                failure = failure or error
                continue
            self._to_drop.pop(session_id, None)
        if failure is not None:
            raise failure

    async def remove(self, session: TrackedSession) -> None:
        """Delete what the volume holds of a session that ended elsewhere.

        Raises the errors of the volume.
        """
        where = (self.relay_store, self.audit, session.end, self.supplier, session.session_id)
        await asyncio.to_thread(remove_ended, *where)

    async def _result(
        self, session: TrackedSession, block: Block, settlements: SettlementReader
    ) -> SettlementResult | None:
        """Return how a session ended, None while that is not certain."""
        windows = session.windows
        if windows is None:
            return None
        try:
            events = await settlements.events(windows.settlement, self.supplier)
        except NotReadYet as error:
            _LOG.debug("settlement not read yet", error=error)
            return None
        except ChainUnavailable as error:
            if error.failure is not FailureClass.PRUNED_NODE:
                raise
            return self._without_events(session, windows.settlement, block, str(error))
        result = settled_as(self.supplier, session, events, self.report.shareholders(session.header))
        if result is not None:
            session.evidence.add(Statement(Fact.SETTLEMENT_EVENT, "block_results", windows.settlement))
            return result
        return await self._second_answer(session, windows.settlement, block, settlements)

    async def _second_answer(
        self, session: TrackedSession, settlement: int, block: Block, settlements: SettlementReader
    ) -> SettlementResult | None:
        """Query every node for the events of the settlement block.

        The absence of an event is confirmed by two nodes, or by one node at two blocks.
        """
        rows: dict[str, tuple[Event, ...]] = dict(
            await settlements.events_by_node(settlement, self.supplier, block.height)
        )
        for node, events in rows.items():
            result = settled_as(self.supplier, session, events, self.report.shareholders(session.header))
            if result is not None:
                session.evidence.retract(Fact.NO_SETTLEMENT_EVENT)
                session.evidence.add(Statement(Fact.SETTLEMENT_EVENT, node, settlement))
                return result
            session.evidence.add(Statement(Fact.NO_SETTLEMENT_EVENT, node, block.height))
        if not session.evidence.confirmed(Fact.NO_SETTLEMENT_EVENT):
            return None
        if session.terms is None and session.evidence.rejection() is None:
            return None  # the reason why it cannot be claimed is not known yet
        if session.claim_on_chain is not None or await self._was_claimed(session):
            # The chain emits an event for each claim: nodes without one have lost their events.
            return self._without_events(session, settlement, block, "nodes have no event of a claim that was on chain")
        return without_event(session)

    async def _was_claimed(self, session: TrackedSession) -> bool:
        """Return True if a node knows an included transaction with the claim.

        This or a former owner sent it.
        """
        paid = set(await asyncio.to_thread(self.audit.payments, self.supplier, session.session_id))
        with contextlib.suppress(RedisStoreError):
            costs = await self.store.costs(session.session_id)
            paid |= {(kind, tx_hash) for tx_hash, (kind, _) in costs.items()}
        for kind, tx_hash in sorted(paid):
            if kind == "claim":
                with contextlib.suppress(ChainError, DecodingError, TimeoutError):
                    if not (await self.chain.transaction(tx_hash)).code:
                        return True
        return False

    def _without_events(
        self, session: TrackedSession, settlement: int, block: Block, text: str
    ) -> SettlementResult | None:
        """Return the outcome if no node retains the settlement's events.

        The result is None while uncertain.
        """
        session.evidence.add(Statement(Fact.EVENTS_PRUNED, "every node", block.height, text))
        if block.height <= settlement + _UNSEEN_BLOCKS or not session.evidence.confirmed(Fact.EVENTS_PRUNED):
            return None
        if session.seal is None and session.claim_on_chain is None:
            return without_event(session)
        reason = f"no chain node has the events of its settlement at block {settlement} any more: {text}"
        return SettlementResult(SessionOutcome.UNSEEN, reason, {})

    async def _not_ended_elsewhere(self, group: Sequence[TrackedSession], block: Block) -> list[TrackedSession]:
        """Return the sessions to conclude.

        Those whose outcome another owner has recorded are no longer mined. A tombstone shows it, and a peer's audit
        trail where the tombstone may be deleted or lost: of a session that settled before this owner began. Such a
        session waits some blocks for Redis and for peers that do not answer.
        """
        ids = [session.session_id for session in group]
        try:
            ended, answered = await self.tail.finished(ids), True
        except RedisStoreError:
            ended, answered = set[str](), False
        earlier = [s.session_id for s in group if s.session_id not in ended and self._may_have_ended_before(s)]
        if earlier and self.peers is not None:
            all_answered, at_peers = await self.peers.ended(self.supplier, earlier)
            ended, answered = ended | at_peers, answered and all_answered
        waiting = set[str]()
        if not answered and block.height < self.owner_since + _FORMER_OWNER_BLOCKS:
            waiting = set(earlier) - ended
            _LOG.info("concluding postponed, a former owner may have done so", sessions=len(waiting))
        if ended:
            await asyncio.to_thread(self.audit.forget, self.supplier, sorted(ended))
        for session in group:
            if session.session_id in ended:
                self._stop_mining(session)
        return [s for s in group if s.session_id not in ended and s.session_id not in waiting]

    def _may_have_ended_before(self, session: TrackedSession) -> bool:
        """Return True if a session settled before this owner began."""
        return session.windows is not None and session.windows.settlement <= self.owner_since

    async def _outcome(self, session: TrackedSession, result: SettlementResult, block: Block) -> OutcomeRecord:
        header, missed = session.header, _MISSED.get(result.outcome, ())
        if missed:
            await self._book_failed(session)
        await self.fees.settle(self.store, header.session_id, self.chain, missed)
        details = {
            "service_id": header.service_id, "application_address": header.application_address,
            **heights_of(session, block), **session.details.to_dict(),
            **await asyncio.to_thread(self._facts, session), **result.details,
            "evidence": session.evidence.to_list(),
        }  # fmt: skip
        if fees := await asyncio.to_thread(self.fees.of, self.supplier, header.session_id):
            details["fees_upokt"] = fees
        return OutcomeRecord(
            self.supplier, header.session_id, result.outcome, stage_of(session, result.outcome), result.reason,
            block.height, details,
        )  # fmt: skip

    async def _book_failed(self, session: TrackedSession) -> None:
        """Book the last claim and proof of a session as failed, if a block shows that."""
        for sent in filter(None, (session.claim.sent, session.proof.sent)):
            with contextlib.suppress(ChainError, DecodingError, TimeoutError):
                result = await self.chain.transaction(sent.tx_hash)
                if result.code:
                    await self.fees.record_failed(self.store, sent.raw, fee_paid=result.fee_paid)

    def _facts(self, session: TrackedSession) -> dict[str, object]:
        leaves, file = 0, self.relay_store.known(session.end)
        if session.seal is None and file is not None:
            leaves = file.count(self.supplier, session.session_id)
        return details_of(session, leaves, self.audit.payments(self.supplier, session.session_id))

    async def _record(self, rows: Sequence[_Ended]) -> None:
        """Record outcomes in one durable step and publish those that are new.

        The chain was queried since ownership was checked, and a process that was stopped meanwhile may have lost it: a
        session must not have outcomes of two owners. So it is checked again, and nothing is recorded until the next
        block if the process was stopped even since then. Raises StaleEpoch if another owner is known.
        """
        now = asyncio.get_running_loop().time
        checked_at = now()
        try:
            await self.store.check_fence()
        except StaleEpoch:
            raise
        except RedisStoreError:
            checked_at = now()

        def record() -> tuple[list[dict[str, int]], list[OutcomeRecord]] | None:
            if now() - checked_at > _CHECKED_SECONDS:
                return None
            fees = [self.audit.spent_by_kind(self.supplier, session.session_id) for session, _, _ in rows]
            return fees, self.audit.record_all([outcome for _, _, outcome in rows])

        recorded = await asyncio.to_thread(record)
        if recorded is None:
            _LOG.info("outcomes not recorded, ownership was not checked recently enough", sessions=len(rows))
            return
        fees, added = recorded
        for (session, result, outcome), spent in zip(rows, fees, strict=True):
            if any(outcome is row for row in added):
                self._publish(session, result, outcome)
                for message, upokt in spent.items():
                    miner_metrics.FEES.labels(message).inc(upokt)
            self._stop_mining(session)

    def _publish(self, session: TrackedSession, result: SettlementResult, outcome: OutcomeRecord) -> None:
        body = json.loads(outcome.body())
        self.report.record_outcome(body)
        count_outcome(body, self.report.earned_by)
        _LOG.info(
            "session ended",
            outcome=result.outcome,
            session=session.session_id,
            reason=result.reason,
            stage=outcome.stage,
            height=outcome.height,
        )

    def _stop_mining(self, session: TrackedSession) -> None:
        """Stop mining a session whose outcome is recorded.

        Its data is deleted next.
        """
        self.sessions.pop(session.session_id, None)
        self._to_drop[session.session_id] = session
        self.finished[session.session_id] = session.end
        for old in [i for i, end in self.finished.items() if end < session.end - TOMBSTONE_BLOCKS]:
            del self.finished[old]
