"""Mine one supplier: consume its relays and decide every session at every block."""

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain.client import ChainClient
from pocket.chain.model import Block
from pocket.protocol.claims.proof_requirement import ProofParams
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import (
    CommandRejected,
    ConcurrentAppend,
    FenceMissing,
    RedisUnavailable,
    StaleEpoch,
)
from pocket.runtime.concurrency import map_bounded
from pocket_miner import miner_metrics
from pocket_miner.ingest.consume_rounds import Check
from pocket_miner.ingest.peer_merge import PeerMerge
from pocket_miner.ingest.peers import Peers
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.sessions.claim_view import ClaimsAnswer
from pocket_miner.sessions.cutoff import SessionCutoff, cutoff_at
from pocket_miner.sessions.stages import Action, Decision, is_early_to_seal, is_late_to_seal
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.settlement.concluding import Concluder
from pocket_miner.settlement.event_reader import SettlementReader
from pocket_miner.status.report import SupplierReport
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.submission.claims import ClaimSubmitter, SealSource
from pocket_miner.submission.leaf_sets import VolumeFallback
from pocket_miner.submission.proofs import ProofSubmitter
from pocket_miner.suppliers.block_work import work_of
from pocket_miner.suppliers.claim_queries import query_claims
from pocket_miner.suppliers.error_scope import STEP_ERRORS, concerns_one, on_volume
from pocket_miner.suppliers.owed_relays import may_lack_relays
from pocket_miner.suppliers.quiet_sessions import QuietSessions, quiet_sessions
from pocket_miner.suppliers.session_decisions import decide_session
from pocket_miner.suppliers.terms_confirmation import confirm_due
from pocket_miner.suppliers.window_margins import observe_margin

_LOG: FilteringBoundLogger = structlog.get_logger()
_SCAN_SECONDS: Final = 4.0
_DECIDED_AT_ONCE: Final = 16  # sessions of a supplier, as each may wait for the chain


async def _confirmed() -> None:
    """Confirm ownership where there is only one possible owner."""


@dataclass(slots=True)
class SupplierMiner:
    """Mines one supplier as its owner.

    Redis accepts writes only from the owner with the highest epoch. Without Redis or the Lease, the miner continues
    with the sessions that are sealed on its volume, which needs only the key and the chain.
    """

    supplier: str
    chain: ChainClient
    settlements: SettlementReader
    store: SealStore
    audit: Audit
    relay_store: RelayStore
    consumer: RelayConsumer
    claims: ClaimSubmitter
    proofs: ProofSubmitter
    sessions: dict[str, TrackedSession]
    seal_after_blocks: int
    redis_settled: Callable[[int], Awaitable[bool]]  # whether it has kept its data for so many blocks
    report: SupplierReport = field(default_factory=SupplierReport)
    peers: Peers | None = None
    confirm: Callable[[], Awaitable[None]] = _confirmed
    last_scan_at: float | None = None
    """When the latest scan of Redis began that found every session with relays (loop's clock)."""
    merge_seconds: float = 10.0  # for which decisions wait for peers, while copies of whole sessions may take longer
    detached: bool = False
    """True if the owner is unknown: the miner works with the volume, the key and the chain alone."""
    concluder: Concluder = field(init=False)
    _restored: bool = False  # the volume's sessions and seals are loaded
    _started: bool = False  # those in Redis are loaded too, and predecessors are fenced
    _needs_fence: bool = False
    _must_seal: bool = False
    _seals_due: bool = False
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _cutoff: SessionCutoff = field(default_factory=SessionCutoff)
    _peer_merge: PeerMerge = field(init=False)
    _quiet: QuietSessions | None = None

    def __post_init__(self) -> None:
        self._peer_merge = PeerMerge(self.consumer, self.relay_store, self.sessions, self.claims.sender.has_signed)
        self.concluder = Concluder(
            self.supplier, self.chain, self.store, self.audit, self.relay_store, self.claims.fees, self.consumer.tail,
            self.report, self.peers, self.sessions,
        )  # fmt: skip

    async def restore(self) -> None:
        """Load sessions, seals and outcomes from the volume. Raises its errors."""
        if self._restored:
            return
        await self.consumer.restore()
        await self.concluder.restore()
        await self.claims.seals.load_own(self.sessions)
        self._restored = True

    async def start(self) -> None:
        """Load the volume, fence predecessors and load Redis. Raises Redis's errors."""
        async with self._starting:
            if self._started:
                return
            await on_volume("restoring sessions", self.restore())
            await self._fence()
            for session_id in await self.consumer.ended_elsewhere():
                remove = self.concluder.remove(self.sessions.pop(session_id))
                await on_volume("deleting a session that ended elsewhere", remove)
            await self.consumer.discover(self.concluder.finished)
            await self.claims.seals.load(self.sessions)
            self._peer_merge.needed = True  # not here: a peer may hang, and what is sealed does not need it
            self._started = True

    async def _connect(self, height: int) -> bool:
        """Return True if Redis and the Lease let this owner write.

        Raises StaleEpoch if another miner owns the supplier.
        """
        if self.detached:
            await self.restore()
            return False
        self._must_seal = any(session.must_be_sealed(height) for session in self.sessions.values())
        try:
            if not self._started:
                await self.start()
            if not self._restored:
                await on_volume("restoring sessions", self.restore())
            if self._needs_fence:
                await self._fence()
            if self._seals_due or any(s.seal is None and s.end <= height for s in self.sessions.values()):
                # No owner seals a session before its end. What Redis lost with the fence is restored at once.
                due, self._seals_due = self._seals_due, False  # before the wait, in which they may become due again
                try:
                    await self.claims.seals.load(self.sessions)
                except BaseException:
                    self._seals_due = self._seals_due or due
                    raise
        except STEP_ERRORS as error:  # whatever it is, what is sealed needs only its key and the chain
            if isinstance(error, StaleEpoch) or corruption_in(error) is not None:
                raise
            await on_volume("restoring sessions", self.restore())
            _LOG.info("continuing with sealed sessions, Redis or Lease cannot be used", error=error)
            return False
        return True

    async def _merge_peers(self, *, patient: bool = False) -> None:
        """Copy what Redis has lost from peers that answer."""
        if self.peers is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if patient else self.merge_seconds):
                    await self._peer_merge.merge(self.peers, self.concluder.finished)

    async def _fence(self) -> None:
        await self.store.fence(self.confirm, urgent=self._must_seal)
        self._needs_fence, self._seals_due = False, True
        if self._cutoff.session_end:  # Redis may have lost it
            await self.store.advance_cutoff(self._cutoff.session_end, self._cutoff.height)

    def on_redis_restarted(self) -> None:
        """Read all streams again, renew fence and seals: Redis may hold others."""
        self.consumer.reread()
        self.store.doubt_fence()
        self._needs_fence = True

    async def tail(self, limit: asyncio.Semaphore | None = None) -> int:
        """Consume new relays once.

        Other suppliers that do so at the same time are read together with this one. All registered sessions are
        compared every few seconds, and their number each time. Where that shows something new, this supplier is read
        alone within `limit`. Returns the number of entries read.
        """
        begun = asyncio.get_running_loop().time()
        scan = self.last_scan_at is None or begun - self.last_scan_at >= _SCAN_SECONDS
        if self._started and not self._needs_fence and self.last_scan_at is not None:
            read = await self.consumer.poll(Check.IDS if scan else Check.NUMBER)
            if read is not None:
                self._scanned(begun if scan else self.last_scan_at)
                return read
        async with limit or contextlib.nullcontext():
            if not self._started:
                await self.start()
            await self._discover(patient=True)
            self._scanned(begun)
            return await self.consumer.consume_once()

    @property
    def behind(self) -> bool:
        """Return True if the latest read of a session did not reach the end of its stream."""
        return any(session.behind for session in self.sessions.values())

    def _scanned(self, at: float) -> None:
        self.report.open, self.last_scan_at = len(self.sessions), at

    async def _discover(self, *, patient: bool = False) -> None:
        finished = self.concluder.finished
        if await self.consumer.discover(finished):
            # Another, an emptied or an older Redis may hold no fence. Each step stays due until it was done.
            self._needs_fence = self._peer_merge.needed = True
        if self._needs_fence:
            with contextlib.suppress(RedisUnavailable):  # reading needs no fence
                await self._fence()
        if self._peer_merge.is_due(self.peers):
            await self._merge_peers(patient=patient)
        for session_id, end in () if self._needs_fence else self.consumer.revived(finished):
            # A write-ahead log that is replayed to an emptied Redis brings back sessions that ended long ago.
            await self.store.finish(session_id, end)

    async def _advance_cutoff(self, height: int) -> None:
        """Advance the session cut-off in Redis, then discover all sessions up to it.

        After that, every session up to the cut-off that has relays is known here. Raises StaleEpoch only.
        """
        if height < self._cutoff.changes_at:
            return
        try:
            due = await cutoff_at(height, self.seal_after_blocks, self.chain.shared_params)
            before, now = await self.store.advance_cutoff(due.session_end, height)
            if before > height:
                _LOG.error("chain reset? Sessions up to the known height are rejected", known_height=before, height=now)
            await self._discover()
            self._cutoff = due
        except StaleEpoch:
            raise
        except STEP_ERRORS as error:
            self._needs_fence = self._needs_fence or isinstance(error, FenceMissing)
            _LOG.info("advancing the session cut-off failed, retrying at the next block", error=error)

    def quiet_at(self, height: int) -> bool:
        """Return True if nothing is to be decided at a height.

        All sessions are known to be active until later. It is called for every supplier at every block, most of which
        have no relays most of the time.
        """
        quiet = self._quiet
        return (
            quiet is not None
            and height < quiet.until
            and quiet.session_ids == self.sessions.keys()
            and not (
                self._needs_fence or self._seals_due or self._peer_merge.is_due(self.peers) or self.concluder.is_pending
            )
        )

    async def on_block(self, block: Block, proof: ProofParams) -> dict[str, int]:
        """Decide every session and act.

        Returns the number of sessions by stage. The failure of one session never stops another.
        """
        self._quiet = None
        connected = await self._connect(block.height)
        if self._started:
            self.concluder.owner_since = self.concluder.owner_since or block.height
        sends_first = connected and self._peer_merge.is_due(self.peers)
        sent = await self._decide_and_act(block, proof, connected=True, sends_only=True) if sends_first else {}
        if connected:
            await self._advance_cutoff(block.height)
            await self._isolated("deleting ended sessions", block, self.concluder.drop_ended)
            if self._peer_merge.is_due(self.peers):
                await self._isolated("merging peers", block, self._merge_peers)
        seen = await self._decide_and_act(block, proof, connected=connected, sent=sent)
        self.report.open = len(self.sessions)
        if connected and self._started and self._restored:
            self._quiet = quiet_sessions(self.sessions.values(), seen, self._cutoff.changes_at)
        return Counter(seen.values())

    async def _decide_and_act(
        self, block: Block, proof: ProofParams, *, connected: bool, sends_only: bool = False, sent: Collection[str] = ()
    ) -> dict[str, str]:
        """Decide and act, and return known stages.

        With `sends_only` only for what is sealed, without sends for `sent`.
        """
        answers = await query_claims(self.chain, self.supplier, self.sessions.values(), block.height)
        due = functools.partial(confirm_due, self.consumer, self.sessions.values(), block.height)
        await self._isolated("confirming terms", block, due)
        sessions = [s for s in self.sessions.values() if s.seal is not None or not sends_only]
        decided = await map_bounded(lambda s: self._decided(s, answers, block, proof), sessions, _DECIDED_AT_ONCE)
        work = work_of(zip(sessions, decided, strict=True), block.height, sends_only=sends_only, sent=sent)
        for session, decision in work.decided:
            observe_margin(session, decision, block.height)
        if not sends_only:
            self.report.record_stages(work.stages, block.height, work.closing, work.deadline)
        if connected and work.needs_fence:
            await self._isolated("checking the fence", block, self.store.check_fence)
        for group in work.groups:
            await self._act_in_parts(group.action, group.sessions, block, proof, connected=connected)
        return work.stages

    async def _act_in_parts(
        self, action: Action, group: list[TrackedSession], block: Block, proof: ProofParams, *, connected: bool
    ) -> None:
        """Act for a group of sessions, and for its halves after a failure.

        A single session may be to blame. Raises StaleEpoch and VolumeCorrupted only.
        """
        try:
            await self._act(action, group, block, proof, connected=connected)
        except StaleEpoch:
            raise
        except ConcurrentAppend as error:
            self._needs_fence = self._needs_fence or isinstance(error, FenceMissing)
            _LOG.info("action postponed, retrying at the next block", error=error)
        except STEP_ERRORS as error:
            if corruption_in(error) is not None:
                raise
            if len(group) > 1 and concerns_one(error):
                half = len(group) // 2
                for part in (group[:half], group[half:]):
                    await self._act_in_parts(action, part, block, proof, connected=connected)
                return
            miner_metrics.ERRORS.labels(action.name.lower()).inc()
            _LOG.warning("action failed, retrying", action=action.value, session_end=group[0].end, error=error)

    async def _isolated(self, step: str, block: Block, work: Callable[[], Awaitable[None]]) -> None:
        """Run a step whose failure does not stop the others.

        Raises StaleEpoch and VolumeCorrupted only.
        """
        try:
            await work()
        except StaleEpoch:
            raise
        except STEP_ERRORS as error:
            if corruption_in(error) is not None:
                raise
            self._needs_fence = self._needs_fence or isinstance(error, FenceMissing)
            miner_metrics.ERRORS.labels(step).inc()
            _LOG.warning("step failed, retrying at the next block", step=step, error=error)

    async def _decided(
        self, session: TrackedSession, answers: Sequence[ClaimsAnswer], block: Block, proof: ProofParams
    ) -> Decision | None:
        """Decide one session, None if its windows are unknown or deciding failed."""
        try:
            return await decide_session(
                session, answers, block.height, proof, self.consumer, self.proofs, self.seal_after_blocks
            )
        except STEP_ERRORS as error:
            if isinstance(error, StaleEpoch) or corruption_in(error) is not None:
                raise
            miner_metrics.ERRORS.labels("decide").inc()
            _LOG.warning("deciding a session failed, retrying", session=session.session_id, error=error)
            return None

    async def _act(
        self, action: Action, group: list[TrackedSession], block: Block, proof: ProofParams, *, connected: bool
    ) -> None:
        match action:
            case Action.SEAL:
                if not self.detached:
                    await self._seal(group, block, proof, connected=connected)
            case Action.SEND_CLAIM:
                await self.claims.rebroadcast(group, block)
            case Action.SEND_PROOF:
                await self.proofs.prove(group, block, proof)
            case Action.ADOPT:
                self._seals_due = True  # Redis may lack those that are adopted
                if connected:
                    await self._isolated("merging peers", block, self._merge_peers)
                adopt = functools.partial(self.claims.adopt, block=block, connected=connected)
                for session in group:
                    await self._isolated("adopting a claim", block, functools.partial(adopt, session))
            case Action.CONCLUDE:
                if self._started:
                    await self.concluder.conclude(group, block, self.settlements)
            case Action.NOTHING:
                pass

    async def _seal(self, group: list[TrackedSession], block: Block, proof: ProofParams, *, connected: bool) -> None:
        """Seal and claim sessions of one end height.

        Sealing waits after a loss of entries, or a restart of Redis since the session began, until the second half of
        the claim window, so that relayers can replay their logs. Without the volume it waits as long, and then seals
        copies. Without Redis it waits until the last third, and then seals what the volume holds.
        """
        windows = group[0].windows
        if windows is None:
            return
        late, early = is_late_to_seal(windows, block.height), is_early_to_seal(windows, block.height)
        group = [session for session in group if session.terms_confirmed or late]
        waits = connected and early
        history = self.consumer.history_id() if waits else ""
        if not group or (waits and await may_lack_relays(group, block.height, self.consumer.tail, self.redis_settled)):
            return
        fallback = VolumeFallback.PARTIAL if late else VolumeFallback(not early)
        try:
            if not connected:
                raise RedisUnavailable("Redis or the Lease is unavailable")
            if any(session.other_seals for session in group):
                await self._isolated("merging peers", block, self._merge_peers)
            await self.claims.seal_and_claim(group, block, proof, fallback=fallback, history=history)
        except RedisUnavailable as error:
            if not late or (isinstance(error, CommandRejected) and len(group) > 1):
                raise
            _LOG.warning("sealing from the volume, the claim window closes", session_end=group[0].end, error=error)
            await self._seal_from_volume(group, block, proof)

    async def _seal_from_volume(self, group: list[TrackedSession], block: Block, proof: ProofParams) -> None:
        """Seal and claim without Redis, leaving out sessions with a claim on chain.

        Only the chain can show now whether another owner has claimed. Raises the errors of the chain, and those of
        `confirm` if the Lease is not ours.
        """
        await self.confirm()
        claimed = {claim.header.session_id for claim in await self.claims.sender.claims_at(0)}
        # Those that Redis sealed before it failed were sent with their seals.
        free = [session for session in group if session.seal is None and session.session_id not in claimed]
        await self._merge_peers()
        if free:
            self._seals_due = True  # Redis lacks them
            await self.claims.seal_and_claim(free, block, proof, source=SealSource.VOLUME)
