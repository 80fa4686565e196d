"""How sessions end: the one place where an outcome is recorded and data is deleted (docs/fragile/evidence.md).

Nothing ends before its settlement block. The outcome is the settlement event of the chain. That there is none counts
once a second answer says so; that nobody keeps the events any more counts long after the settlement only. An outcome is
durable before anything of its session is deleted, and deleting waits for Redis without holding up anybody.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pocket.chain.client import ChainClient
from pocket.chain.model import Block, Event
from pocket.errors import ChainUnavailable, FailureClass
from pocket.redis_store.redis_errors import REDIS_ERRORS
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import RedisStoreError
from pocket.redis_store.stream_reader import StreamReader
from pocket_miner.ingest.peers import Peers
from pocket_miner.sessions.evidence import Fact, Statement
from pocket_miner.sessions.tracked_session import Skip, TrackedSession
from pocket_miner.settlement.event_reader import NotReadYet, SettlementReader
from pocket_miner.settlement.outcome_details import count_outcome, facts_of
from pocket_miner.settlement.verdict import SettlementResult, settled_as
from pocket_miner.status.report import SupplierReport
from pocket_miner.storage.audit import Audit, SessionOutcome
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.submission.fees import FeeTracker

_LOG = logging.getLogger("pocket_miner.settlement.concluding")
TOMBSTONE_BLOCKS: Final = 500
_UNSEEN_BLOCKS: Final = 100
"""For so long a node that lacks the events of a settlement may still get them."""


def without_event(session: TrackedSession) -> SettlementResult:
    """Return the outcome of a session that the chain did not settle, from what is known of it."""
    rejected = session.evidence.rejection()
    if session.skip in (Skip.EMPTY, Skip.UNPROFITABLE) and session.seal is None:
        return SettlementResult(session.skip.value, session.skip.value, {})
    if session.skip is Skip.UNITS_MISMATCH and session.seal is None:
        return SettlementResult("forfeited", session.skip.value, {})
    if rejected is not None and session.terms is None:
        reason = f"{rejected.finding.value}: {rejected.text}" if rejected.text else rejected.finding.value
        return SettlementResult("forfeited", reason, {})
    refusal = session.details.get("refusal")
    reason = f"the chain refused the claim: {refusal}" if refusal else "no claim was in a block in time"
    return SettlementResult("claim_missed", reason, {})


def stage_of(session: TrackedSession, outcome: str) -> str:
    """Return the stage at which a session ended."""
    if outcome in ("settled", "unseen", "claim_lost"):
        return "SETTLED"
    if outcome in ("proof_missed", "proof_invalid"):
        return "PROOFABLE"
    if session.seal is not None:
        return "SEALED"
    return "ACTIVE" if session.terms is None else "CLAIMABLE"


@dataclass(slots=True)
class Concluder:
    """Ends the sessions of one supplier."""

    supplier: str
    chain: ChainClient
    store: SealStore
    audit: Audit
    mirror: RelayStore
    fees: FeeTracker
    tail: StreamReader
    report: SupplierReport
    peers: Peers | None
    sessions: dict[str, TrackedSession]
    finished: dict[str, int] = field(default_factory=dict)
    """Session id → session end of what ended lately."""
    _to_drop: dict[str, TrackedSession] = field(default_factory=dict)
    _pruned_through: int = 0

    async def restore(self) -> None:
        """Take up the outcomes that the volume holds: what is left of their sessions is still to be dropped."""
        self.finished.update(await asyncio.to_thread(self.audit.ended, self.supplier, TOMBSTONE_BLOCKS))
        for session_id in await asyncio.to_thread(self.audit.with_outcome, self.supplier, list(self.sessions)):
            self._forget(self.sessions[session_id])

    async def conclude(self, group: Sequence[TrackedSession], block: Block, settlements: SettlementReader) -> None:
        """End those sessions of one settlement that can be; the others come again at the next block."""
        elsewhere = await self._ended_elsewhere(group)
        outcomes = []
        for session in group:
            if session.session_id in elsewhere or await self._ended_by_a_peer(session):
                self._forget(session)
                continue
            found = await self._verdict(session, block, settlements)
            if found is not None:
                outcomes.append((session, found, await self._outcome(session, found, block)))
        if outcomes:
            await self._record(outcomes)
        await self.drop_ended()

    async def drop_ended(self) -> None:
        """Delete stream, budget and copy of sessions whose outcome is recorded; what fails is tried again."""
        for session_id, session in list(self._to_drop.items()):
            try:
                await self.store.finish(session_id, session.end)
                if session.end > self._pruned_through:  # once for all that end together: there are thousands
                    await self.store.forget_before(session.end - TOMBSTONE_BLOCKS)
                    self._pruned_through = session.end
            except (*REDIS_ERRORS, RedisStoreError) as error:
                _LOG.info("ended sessions stay in Redis until it answers: %s", error)
                raise
            await asyncio.to_thread(self.mirror.remove, session.end, self.supplier, session_id)
            self._to_drop.pop(session_id, None)

    async def _verdict(
        self, session: TrackedSession, block: Block, settlements: SettlementReader
    ) -> SettlementResult | None:
        """Return how a session ended; None while that is not certain."""
        windows = session.windows
        if windows is None:
            return None
        try:
            events = await settlements.events(windows.settlement, self.supplier)
        except NotReadYet as error:
            _LOG.debug("%s", error)
            return None
        except ChainUnavailable as error:
            if error.failure is not FailureClass.PRUNED_NODE:
                raise
            return self._without_events(session, windows.settlement, block, str(error))
        found = settled_as(self.supplier, session, events, self.report.shareholders(session.header))
        if found is not None:
            session.evidence.add(Statement(Fact.SETTLEMENT_EVENT, "block_results", windows.settlement))
            return found
        return await self._second_answer(session, windows.settlement, block, settlements)

    async def _second_answer(
        self, session: TrackedSession, settlement: int, block: Block, settlements: SettlementReader
    ) -> SettlementResult | None:
        """Ask every node for the events: that there is none of ours is said by two, or by one at two blocks."""
        rows: dict[str, tuple[Event, ...]] = dict(
            await settlements.events_by_node(settlement, self.supplier, block.height)
        )
        for node, events in rows.items():
            found = settled_as(self.supplier, session, events, self.report.shareholders(session.header))
            if found is not None:
                session.evidence.retract(Fact.NO_SETTLEMENT_EVENT)
                session.evidence.add(Statement(Fact.SETTLEMENT_EVENT, node, settlement))
                return found
            session.evidence.add(Statement(Fact.NO_SETTLEMENT_EVENT, node, block.height))
        if not session.evidence.confirmed(Fact.NO_SETTLEMENT_EVENT):
            return None
        if session.terms is None and session.evidence.rejection() is None:
            return None  # nobody has said yet what was wrong with it
        return without_event(session)

    def _without_events(
        self, session: TrackedSession, settlement: int, block: Block, text: str
    ) -> SettlementResult | None:
        """What is concluded where every node says that it does not keep the settlement's events."""
        session.evidence.add(Statement(Fact.EVENTS_PRUNED, "every node", block.height, text))
        if block.height <= settlement + _UNSEEN_BLOCKS or not session.evidence.confirmed(Fact.EVENTS_PRUNED):
            return None
        if session.seal is None and session.claim_on_chain is None:
            return without_event(session)
        reason = f"no chain node has the events of its settlement at block {settlement} any more: {text}"
        return SettlementResult("unseen", reason, {})

    async def _ended_elsewhere(self, group: Sequence[TrackedSession]) -> set[str]:
        """Return the sessions whose outcome another owner has recorded, as its tombstones say."""
        try:
            return await self.tail.finished([session.session_id for session in group])
        except (*REDIS_ERRORS, RedisStoreError):
            return set()  # the chain tells the same; a second record is told apart by its owner

    async def _ended_by_a_peer(self, session: TrackedSession) -> bool:
        """Whether a former owner recorded the outcome of a session that a log brought back after Redis was lost."""
        if session.seal is not None or self.peers is None:
            return False
        return await self.peers.ended(self.supplier, session.session_id)

    async def _outcome(self, session: TrackedSession, found: SettlementResult, block: Block) -> SessionOutcome:
        header = session.header
        await self.fees.settle(self.store, header.session_id, self.chain)
        details = {
            "service_id": header.service_id, "application_address": header.application_address,
            "session_end_height": header.session_end_block_height, **session.details,
            **await asyncio.to_thread(self._facts, session), **found.details,
            "evidence": session.evidence.to_list(),
        }  # fmt: skip
        if fees := await asyncio.to_thread(self.fees.of, self.supplier, header.session_id):
            details["fees_upokt"] = fees
        return SessionOutcome(
            self.supplier, header.session_id, found.outcome, stage_of(session, found.outcome), found.reason,
            block.height, details,
        )  # fmt: skip

    def _facts(self, session: TrackedSession) -> dict[str, object]:
        leaves, file = 0, self.mirror.known(session.end)
        if session.seal is None and file is not None:
            leaves = file.count(self.supplier, session.session_id)
        return facts_of(session, leaves, self.audit.payments(self.supplier, session.session_id))

    async def _record(self, rows: Sequence[tuple[TrackedSession, SettlementResult, SessionOutcome]]) -> None:
        """Record outcomes in one durable step, and tell of those that are new."""
        added = await asyncio.to_thread(self.audit.record_all, [outcome for _, _, outcome in rows])
        for session, found, outcome in rows:
            if any(outcome is row for row in added):
                self._tell(session, found, outcome)
            self._forget(session)

    def _tell(self, session: TrackedSession, found: SettlementResult, outcome: SessionOutcome) -> None:
        body = json.loads(outcome.body())
        self.report.ended(body)
        count_outcome(body, self.report.earned_by)
        fields = {"supplier": self.supplier, "session": session.session_id, "reason": found.reason}
        stage = {"stage": outcome.stage, "height": outcome.height}
        _LOG.info("session %s", found.outcome, extra={"fields": {**fields, **stage}})

    def _forget(self, session: TrackedSession) -> None:
        """Stop mining a session whose outcome is recorded, here or elsewhere; its data is dropped next."""
        self.sessions.pop(session.session_id, None)
        self._to_drop[session.session_id] = session
        self.finished[session.session_id] = session.end
        for old in [i for i, end in self.finished.items() if end < session.end - TOMBSTONE_BLOCKS]:
            del self.finished[old]
