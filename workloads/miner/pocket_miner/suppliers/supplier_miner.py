"""Everything the owner does for one supplier: tail continuously, decide at every block."""

import asyncio
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pocket.chain.client import ChainClient
from pocket.chain.model import Block
from pocket.errors import ChainError, PocketError
from pocket.protocol.claims.proof_requirement import Claim, ProofParams
from pocket.redis_store.redis_errors import REDIS_ERRORS, CommandRejected
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import (
    ConcurrentAppend,
    FenceMissing,
    RedisStoreError,
    RedisUnavailable,
    StaleEpoch,
)
from pocket_miner import miner_metrics
from pocket_miner.ingest.peers import Peers
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.sessions.claim_view import ClaimsAnswer, learn, surprising
from pocket_miner.sessions.cutoff import SessionCutoff, horizon_at
from pocket_miner.sessions.stages import Action, ClaimState, Decision, SessionSnapshot, Stage, decide, in_last_third
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.settlement.concluding import Concluder
from pocket_miner.settlement.event_reader import SettlementReader
from pocket_miner.status.report import SupplierReport
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import damage_of
from pocket_miner.storage.disk_reserve import VolumeFull
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.submission.claims import ClaimSubmitter, SealSource
from pocket_miner.submission.proofs import ProofSubmitter
from pocket_miner.submission.sender import SendError

_LOG = logging.getLogger("miner.supplier")
_REDIS_TROUBLE: Final = (*REDIS_ERRORS, RedisUnavailable)
_TROUBLE: Final = (PocketError, *REDIS_ERRORS, sqlite3.Error)
_COSTS: Final = (Action.SEND_CLAIM, Action.SEND_PROOF)
"""What costs a fee: a former owner that wakes up is stopped before, where Redis knows another one."""
_CONFIRMED_AT_ONCE: Final = 8
_OF_ONE: Final = (CommandRejected, PocketError, ValueError, KeyError, sqlite3.DataError)
"""Errors that one session of a group may cause."""
_OF_ALL: Final = (ChainError, RedisStoreError, SendError)
"""Those among them that concern the whole group, or that sending has tried in halves already."""


async def _confirmed() -> None:
    """Where there is one owner only."""


@dataclass(slots=True)
class SupplierMiner:
    """Owns one supplier; only the holder of the highest epoch gets its writes through.

    Without Redis, and without the Lease, it goes on with what is sealed on its volume: that takes key and chain.
    """

    supplier: str
    chain: ChainClient
    settlements: SettlementReader
    store: SealStore
    audit: Audit
    mirror: RelayStore
    tailer: RelayConsumer
    claims: ClaimSubmitter
    proofs: ProofSubmitter
    sessions: dict[str, TrackedSession]
    seal_after_blocks: int
    redis_settled: Callable[[], bool]
    report: SupplierReport = field(default_factory=SupplierReport)
    peers: Peers | None = None
    confirm: Callable[[], Awaitable[None]] = _confirmed
    looked_at: float | None = None
    """When the latest look at Redis began after which every session that has relays there was known (loop's clock)."""
    detached: bool = False
    """Whether it works with the volume, the key and the chain alone: nobody has said who owns the supplier."""
    concluder: Concluder = field(init=False)
    _restored: bool = False  # the volume's sessions and seals are known
    _started: bool = False  # Redis's are, too, and predecessors are fenced
    _unfenced: bool = False
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _horizon: SessionCutoff = field(default_factory=SessionCutoff)
    _unmerged: bool = False  # a peer or the chain did not answer: what peers hold is asked for again

    def __post_init__(self) -> None:
        self.concluder = Concluder(
            self.supplier, self.chain, self.store, self.audit, self.mirror, self.claims.fees, self.tailer.tail,
            self.report, self.peers, self.sessions,
        )  # fmt: skip

    async def restore(self) -> None:
        """Take up what the volume holds: sessions, seals and outcomes. Raises what the volume raises."""
        if self._restored:
            return
        await self.tailer.restore()
        await self.concluder.restore()
        await self.claims.load_own_seals(self.sessions)
        self._restored = True

    async def start(self) -> None:
        """Take up the volume, fence predecessors, take up Redis; raises what Redis raises."""
        async with self._starting:
            if self._started:
                return
            await self.restore()
            await self._fence()
            for session_id in await self.tailer.ended_elsewhere():
                session = self.sessions.pop(session_id)
                await asyncio.to_thread(self.mirror.remove, session.end, self.supplier, session_id)
            await self.tailer.discover(self.concluder.finished)
            if self.peers is not None:
                await self.claims.learn_seals(await self.peers.seals(self.supplier))
            await self.claims.load_seals(self.sessions)
            await self._merge_peers()
            self._started = True

    async def _connect(self) -> bool:
        """Return whether Redis and the Lease let this owner write; raises Fenced where another one does."""
        if self.detached:
            await self.restore()
            return False
        try:
            if not self._started:
                await self.start()
            if self._unfenced:
                await self._fence()
            if self._unsealed():
                await self.claims.load_seals(self.sessions)
        except StaleEpoch:
            raise
        except (*_REDIS_TROUBLE, ConcurrentAppend) as error:
            await self.restore()
            fields = {"supplier": self.supplier, "error": str(error) or type(error).__name__}
            _LOG.info("going on with what is sealed, Redis or the Lease cannot be used", extra={"fields": fields})
            return False
        return True

    async def _merge_peers(self) -> None:
        """Takes from peers' volumes what Redis does not have any more; peers that do not answer are left out."""
        self._unmerged = self.peers is not None and not await self.tailer.merge(self.peers, self.concluder.finished)

    async def _fence(self) -> None:
        await self.store.fence(self.confirm)
        self._unfenced = False
        if self._horizon.session_end:
            # Redis may have lost it.
            await self.store.advance_cutoff(self._horizon.session_end, self._horizon.height)

    def meet_redis_anew(self) -> None:
        """After a restart of Redis: it may hold other content under known ids, and an older fence."""
        self.tailer.reread()
        self._unfenced = True

    def _unsealed(self) -> bool:
        return any(session.seal is None for session in self.sessions.values())

    async def tail(self) -> int:
        """One round of tailing; the number of entries read."""
        begun = asyncio.get_running_loop().time()
        if not self._started:
            await self.start()
        await self._discover()
        self.report.open = len(self.sessions)
        self.looked_at = begun
        return await self.tailer.tail_once()

    async def _discover(self) -> None:
        finished = self.concluder.finished
        lost = await self.tailer.discover(finished)
        if lost or self._unfenced:
            # Another Redis, an emptied one, or one that went back in time: it may know no fence.
            await self._fence()
        if lost:
            await self._merge_peers()
        for session_id, end in self.tailer.revived(finished):
            # A log that was appended again to an emptied Redis brings back what is long over.
            await self.store.finish(session_id, end)

    async def _raise_horizon(self, height: int) -> None:
        """Once it is raised, every session up to it that has relays is known here. Raises Fenced only."""
        if height < self._horizon.changes_at:
            return
        try:
            due = await horizon_at(height, self.seal_after_blocks, self.chain.shared_params)
            before, now = await self.store.advance_cutoff(due.session_end, height)
            if before > height:
                _LOG.error(
                    "Redis knows this chain at a height of %d or more, it is at %d: was it started anew? First relays "
                    "of sessions that end up to %d are refused", before, height, now,
                    extra={"fields": {"supplier": self.supplier}},
                )  # fmt: skip
            await self._discover()
            self._horizon = due
        except StaleEpoch:
            raise
        except _TROUBLE as error:
            self._unfenced = self._unfenced or isinstance(error, FenceMissing)
            _LOG.info("the horizon is raised at the next block: %s", error)

    async def on_block(self, block: Block, proof: ProofParams) -> dict[str, int]:
        """Decide every session and act; return sessions by stage. One session's failure never stops another."""
        connected = await self._connect()
        if connected:
            await self._raise_horizon(block.height)
            await self._isolated("deleting ended sessions", block, self.concluder.drop_ended)
            if self._unmerged and self._unsealed():
                await self._isolated("merging peers", block, self._merge_peers)
        answers = await self._claims(block.height)
        await self._confirm_terms(block)
        stages: dict[str, int] = defaultdict(int)
        seen: dict[str, str] = {}
        groups: dict[tuple[Action, int], list[TrackedSession]] = defaultdict(list)
        closing = 0
        for session in list(self.sessions.values()):
            decision = await self._decided(session, answers, block, proof)
            if decision is None:
                continue
            stages[decision.stage.value] += 1
            self._margin(session, decision, block.height)
            seen[session.session_id] = decision.stage.value
            windows = session.windows
            closing += windows is not None and in_last_third(windows, decision.stage, block.height)
            groups[decision.action, session.end].append(session)
        self.report.saw(seen, block.height)
        self.report.closing = closing
        if connected and any(action in _COSTS for action, _ in groups):
            await self._isolated("checking the fence", block, self.store.check_fence)
        await self._act_on(groups, block, proof, connected=connected)
        self.report.open = len(self.sessions)
        return stages

    async def _act_on(
        self, groups: Mapping[tuple[Action, int], list[TrackedSession]], block: Block, proof: ProofParams, *,
        connected: bool,
    ) -> None:  # fmt: skip
        # What has windows comes before what is over.
        for (action, _), group in sorted(groups.items(), key=lambda row: (row[0][0] is Action.CONCLUDE, row[0][1])):
            await self._act_in_parts(action, group, block, proof, connected=connected)

    async def _act_in_parts(
        self, action: Action, group: list[TrackedSession], block: Block, proof: ProofParams, *, connected: bool
    ) -> None:
        """Act for a group, and for its halves where one of them may be to blame. Raises Fenced and damage only."""
        try:
            await self._act(action, group, block, proof, connected=connected)
        except StaleEpoch:
            raise
        except ConcurrentAppend as error:
            self._unfenced = self._unfenced or isinstance(error, FenceMissing)
            _LOG.info("%s, again at the next block", error)
        except (*_TROUBLE, ValueError, KeyError) as error:
            if damage_of(error) is not None:
                raise
            if len(group) > 1 and isinstance(error, _OF_ONE) and not isinstance(error, _OF_ALL):
                half = len(group) // 2
                for part in (group[:half], group[half:]):
                    await self._act_in_parts(action, part, block, proof, connected=connected)
                return
            miner_metrics.ERRORS.labels(action.name.lower()).inc()
            _LOG.warning(
                "%s did not work and is tried again: %s", action.value, error or type(error).__name__,
                extra={"fields": {"supplier": self.supplier, "session_end": group[0].end, "height": block.height}},
            )  # fmt: skip

    async def _isolated(self, what: str, block: Block, work: Callable[[], Awaitable[None]]) -> None:
        """Run a step that nothing else waits for. Raises Fenced and damage only."""
        try:
            await work()
        except StaleEpoch:
            raise
        except _TROUBLE as error:
            if damage_of(error) is not None:
                raise
            self._unfenced = self._unfenced or isinstance(error, FenceMissing)
            miner_metrics.ERRORS.labels(what).inc()
            fields = {"supplier": self.supplier, "height": block.height, "error": str(error) or type(error).__name__}
            _LOG.warning("%s failed, trying again at the next block", what, extra={"fields": fields})

    @staticmethod
    def _margin(session: TrackedSession, decision: Decision, height: int) -> None:
        """How close to the end of its window a claim or proof came; once for each."""
        windows, proven = session.windows, decision.stage is Stage.PROVED and session.proven
        if windows is None or decision.stage not in (Stage.CLAIMED, Stage.PROVED):
            return
        for what, came, close in (("claim", True, windows.claim_close), ("proof", proven, windows.proof_close)):
            if came and what not in session.measured:
                session.measured.add(what)
                miner_metrics.MARGIN.labels(what).observe(max(0, close - height))

    async def _claims(self, height: int) -> list[ClaimsAnswer]:
        """Return what the chain says of our claims as of a height; nothing where nobody could be asked.

        Later than that height a claim may have been settled and removed: it would look as if it had never been there.
        What is surprising is asked of every node.
        """
        if not any(
            s.seal is not None or (s.windows is not None and height >= s.windows.claim_open)
            for s in self.sessions.values()
        ):
            return []
        try:
            found = await self.chain.claims_of(self.supplier, height)
        except (PocketError, TimeoutError):
            return []
        answers = [ClaimsAnswer("a node", height, _by_session(found))]
        if any(surprising(session, answers[0]) for session in self.sessions.values()):
            rows = (await self.chain.claims_by_node(self.supplier, height)).items()
            told = [ClaimsAnswer(n, height, _by_session(row)) for n, row in rows if not isinstance(row, ChainError)]
            answers = told or answers
        return answers

    async def _confirm_terms(self, block: Block) -> None:
        """Ask for a second answer about the terms of sessions that are over and not sealed, some at a time."""
        room = asyncio.Semaphore(_CONFIRMED_AT_ONCE)

        async def confirm(session: TrackedSession) -> None:
            async with room:
                await self.tailer.confirm_terms(session, block.height)

        def due(session: TrackedSession) -> bool:
            windows = session.windows
            open_ = windows is not None and windows.session_end < block.height < windows.claim_close
            return open_ and session.seal is None and session.terms is not None and not session.terms_confirmed

        async def confirm_all() -> None:
            found = await asyncio.gather(*map(confirm, filter(due, self.sessions.values())), return_exceptions=True)
            for error in found:
                if isinstance(error, BaseException):
                    raise error

        await self._isolated("confirming terms", block, confirm_all)

    async def _decided(
        self, session: TrackedSession, answers: Sequence[ClaimsAnswer], block: Block, proof: ProofParams
    ) -> Decision | None:
        """Decide one session; None while the chain has not told its windows, or where deciding failed."""
        try:
            return await self._decide(session, answers, block, proof)
        except (PocketError, *REDIS_ERRORS, ValueError, KeyError) as error:
            if isinstance(error, StaleEpoch) or damage_of(error) is not None:
                raise
            miner_metrics.ERRORS.labels("decide").inc()
            fields = {"supplier": self.supplier, "session": session.session_id, "height": block.height}
            _LOG.warning("deciding a session failed, trying again: %s", error, extra={"fields": fields})
            return None

    async def _decide(
        self, session: TrackedSession, answers: Sequence[ClaimsAnswer], block: Block, proof: ProofParams
    ) -> Decision | None:
        known = await self.tailer.learn_terms(session, block.height)
        windows = session.windows
        if windows is None:
            return None
        over = block.height >= windows.settlement
        claim = ClaimState.ABSENT
        if block.height >= windows.claim_open and not over:
            claim = learn(session, list(answers))
        if not known:
            # It cannot be claimed, as far as is known: it is asked about until it settles.
            return Decision(Stage.SETTLED, Action.CONCLUDE) if over else Decision(Stage.ACTIVE, Action.NOTHING)
        if block.height >= windows.proof_seed and not over:
            await self.proofs.decide(session, proof, block.height)
        facts = SessionSnapshot(windows, session.seal is not None, claim, session.requirement, self.seal_after_blocks)
        return decide(facts, block.height)

    async def _act(
        self, action: Action, group: list[TrackedSession], block: Block, proof: ProofParams, *, connected: bool
    ) -> None:
        match action:
            case Action.SEAL:
                if not self.detached:
                    await self._seal(group, block, proof, connected=connected)
            case Action.SEND_CLAIM:
                await self.claims.send_again(group, block)
            case Action.SEND_PROOF:
                await self.proofs.prove(group, block, proof)
            case Action.ADOPT:
                if connected:
                    await self._merge_peers()
                    for session in group:
                        await self.claims.adopt(session, block)
            case Action.CONCLUDE:
                if self._started:
                    await self.concluder.conclude(group, block, self.settlements)
            case Action.NOTHING:
                pass

    async def _seal(self, group: list[TrackedSession], block: Block, proof: ProofParams, *, connected: bool) -> None:
        """Seals; after a restart of Redis in the second half of the window, without Redis in its last third."""
        windows = group[0].windows
        if windows is None:
            return
        length, left = windows.claim_close - windows.claim_open, windows.claim_close - block.height
        late = 3 * left <= length or left <= 1
        group = [session for session in group if session.terms_confirmed or late]
        if not group:
            return
        if connected and not self.redis_settled() and 2 * left > length:
            _LOG.info("Redis was restarted: sealing waits until relayers have appended their logs again")
            return
        try:
            if not connected:
                raise RedisUnavailable("Redis or the Lease cannot be used")
            await self.claims.seal_and_claim(group, block, proof)
        except _REDIS_TROUBLE:
            if not late:
                raise
            _LOG.warning("Redis is away and the claim window closes: sealing what is mirrored")
            await self._seal_from_volume(group, block, proof)
        except (sqlite3.Error, VolumeFull) as error:
            if not late or damage_of(error) is not None:
                raise
            await self.claims.seal_and_claim(group, block, proof, source=SealSource.VOLUME_AND_STREAM)

    async def _seal_from_volume(self, group: list[TrackedSession], block: Block, proof: ProofParams) -> None:
        """Nothing but the chain can tell now whether another owner has claimed: what is claimed is never sealed again.

        Raises what the chain raises, and what `confirm` raises where the Lease is not ours.
        """
        await self.confirm()
        claimed = {claim.header.session_id for claim in await self.chain.claims_of(self.supplier)}
        free = [session for session in group if session.session_id not in claimed]
        await self._merge_peers()
        if free:
            await self.claims.seal_and_claim(free, block, proof, source=SealSource.VOLUME)


def _by_session(claims: Sequence[Claim]) -> dict[str, Claim]:
    return {claim.header.session_id: claim for claim in claims}
