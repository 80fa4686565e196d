"""Everything the owner does for one supplier: tail continuously, decide at every block."""

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from ledger.errors import Fenced, StaleView, Unfenced
from ledger.seals import SealStore
from miner import metrics
from miner.audit import Audit, Outcome
from miner.claims import ClaimDesk
from miner.damage import damage_of
from miner.horizon import Horizon, horizon_at
from miner.mirror import Mirror
from miner.outcomes import count_outcome, facts_of
from miner.peers import Peers
from miner.proofs import ProofDesk
from miner.report import SupplierReport
from miner.sessions import TrackedSession
from miner.settlement import Verdict, verdict
from miner.settlements import NotReadYet, Settlements
from miner.stages import Action, ClaimState, Decision, Facts, Stage, decide
from miner.tailing import Tailer
from shannon.chain.client import ChainClient
from shannon.chain.model import Block
from shannon.claims.requirement import Claim, ProofParams
from shannon.errors import ChainRefusal, PocketError

_LOG = logging.getLogger("miner.supplier")
_TOMBSTONE_BLOCKS = 500
_UNSEEN_BLOCKS = 100
"""For so long a node that lacks the events of a settlement may still get them."""
_VALIDATED = 1  # of a claim's proof, as the chain says it


def claim_state(session: TrackedSession, claims: dict[str, Claim] | None) -> ClaimState:
    """What module state says of our claim."""
    if claims is None:
        return ClaimState.UNKNOWN
    claim = claims.get(session.header.session_id)
    if claim is None:
        return ClaimState.ABSENT
    if session.foreign:
        return ClaimState.FOREIGN
    if session.seal is not None and claim.root_hash != session.seal.root:
        return ClaimState.FOREIGN
    known = {_VALIDATED: ClaimState.VALIDATED, 2: ClaimState.INVALID}
    return known.get(claim.proof_validation_status, ClaimState.PENDING)


async def _confirmed() -> None:
    """Where there is one owner only."""


@dataclass(slots=True)
class SupplierMiner:
    """Owns one supplier; only the holder of the highest epoch gets its writes through."""

    supplier: str
    chain: ChainClient
    settlements: Settlements
    store: SealStore
    audit: Audit
    mirror: Mirror
    tailer: Tailer
    claims: ClaimDesk
    proofs: ProofDesk
    sessions: dict[str, TrackedSession]
    seal_after_blocks: int
    redis_settled: Callable[[], bool]
    report: SupplierReport = field(default_factory=SupplierReport)
    peers: Peers | None = None
    confirm: Callable[[], Awaitable[None]] = _confirmed
    looked_at: float | None = None
    """When the latest look at Redis began after which every session that has relays there was known (loop's clock)."""
    _finished: dict[str, int] = field(default_factory=dict)
    _forgotten: int = 0
    _started: bool = False
    _unfenced: bool = False
    _horizon: Horizon = field(default_factory=Horizon)
    _unmerged: bool = False  # a peer or the chain did not answer: what peers hold is asked for again

    async def start(self) -> None:
        """Fences predecessors, takes up the mirror and the seals; raises what Redis raises."""
        await self._fence()
        self.tailer.restore()
        for session_id in [i for i in self.sessions if self.audit.outcome(self.supplier, i)]:
            await self._drop(self.sessions.pop(session_id))
        self._finished |= self.audit.ended(self.supplier, _TOMBSTONE_BLOCKS)
        for session_id in await self.tailer.ended_elsewhere():
            session = self.sessions.pop(session_id)
            self.mirror.remove(session.end, self.supplier, session_id)
        await self.tailer.discover(self._finished)
        if self.peers is not None:
            await self.claims.learn_seals(await self.peers.seals(self.supplier))
        await self.claims.load_seals(self.sessions)
        await self._merge_peers()
        self._started = True

    async def _merge_peers(self) -> None:
        """Takes from peers' volumes what Redis does not have any more; peers that do not answer are left out."""
        self._unmerged = self.peers is not None and not await self.tailer.merge(self.peers, self._finished)

    async def _fence(self) -> None:
        await self.store.fence(self.confirm)
        self._unfenced = False
        if self._horizon.session_end:
            # Redis may have lost it.
            await self.store.raise_horizon(self._horizon.session_end, self._horizon.height)

    def meet_redis_anew(self) -> None:
        """After a restart of Redis: it may hold other content under known ids, and an older fence."""
        self.tailer.reread()
        self._unfenced = True

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
        lost = await self.tailer.discover(self._finished)
        if lost or self._unfenced:
            # Another Redis, an emptied one, or one that went back in time: it may know no fence.
            await self._fence()
        if lost:
            await self._merge_peers()
        for session_id, end in self.tailer.revived(self._finished):
            # A log that was appended again to an emptied Redis brings back what is long over.
            await self.store.finish(session_id, end)

    async def _raise_horizon(self, height: int) -> None:
        """Once it is raised, every session up to it that has relays is known here. Raises Fenced only."""
        if height < self._horizon.changes_at:
            return
        try:
            due = await horizon_at(height, self.seal_after_blocks, self.chain.shared_params)
            before, now = await self.store.raise_horizon(due.session_end, height)
            if before > height:
                _LOG.error(
                    "Redis knows this chain at a height of %d or more, it is at %d: was it started anew? First relays "
                    "of sessions that end up to %d are refused", before, height, now,
                    extra={"fields": {"supplier": self.supplier}},
                )  # fmt: skip
            await self._discover()
            self._horizon = due
        except Fenced:
            raise
        except (RedisError, OSError, TimeoutError, PocketError, sqlite3.Error) as error:
            self._unfenced = self._unfenced or isinstance(error, Unfenced)
            _LOG.info("the horizon is raised at the next block: %s", error)

    async def on_block(self, block: Block, proof: ProofParams) -> dict[str, int]:
        """Decides every session and acts; sessions by stage. One group's failure never stops another."""
        if not self._started:
            await self.start()
        if self._unfenced:
            await self._fence()
        await self._raise_horizon(block.height)
        if any(s.seal is None for s in self.sessions.values()):
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self.claims.load_seals(self.sessions)
        if self._unmerged and any(s.seal is None for s in self.sessions.values()):
            await self._merge_peers()
        claims = await self._claims(block.height)
        stages: dict[str, int] = defaultdict(int)
        seen: dict[str, str] = {}
        groups: dict[tuple[Action, int], list[TrackedSession]] = defaultdict(list)
        for session in list(self.sessions.values()):
            decision = await self._decide(session, claims, block, proof)
            if decision is None:
                continue
            stages[decision.stage.value] += 1
            self._margin(session, decision, block.height)
            seen[session.header.session_id] = decision.stage.value
            groups[decision.action, session.end].append(session)
            if decision.lost:
                session.lost = session.lost or decision.lost
        self.report.saw(seen, block.height)
        await self._act_on(groups, block, proof)
        self.report.open = len(self.sessions)
        return stages

    async def _act_on(
        self, groups: Mapping[tuple[Action, int], list[TrackedSession]], block: Block, proof: ProofParams
    ) -> None:
        # What has windows comes before what is over.
        for (action, _), group in sorted(groups.items(), key=lambda row: (row[0][0] is Action.CONCLUDE, row[0][1])):
            try:
                await self._act(action, group, block, proof)
            except Fenced:
                raise
            except StaleView as error:
                self._unfenced = self._unfenced or isinstance(error, Unfenced)
                _LOG.info("%s, again at the next block", error)
            except (RedisError, OSError, TimeoutError, PocketError, sqlite3.Error) as error:
                if damage_of(error) is not None:
                    raise
                metrics.ERRORS.labels(action.name.lower()).inc()
                _LOG.warning(
                    "%s did not work and is tried again: %s", action.value, error,
                    extra={"fields": {"supplier": self.supplier, "session_end": group[0].end, "height": block.height}},
                )  # fmt: skip

    @staticmethod
    def _margin(session: TrackedSession, decision: Decision, height: int) -> None:
        """How close to the end of its window a claim or proof came; once for each."""
        windows, proven = session.windows, decision.stage is Stage.PROVED and session.proven
        if windows is None or decision.stage not in (Stage.CLAIMED, Stage.PROVED):
            return
        if not session.claim_seen:
            session.claim_seen = True
            metrics.MARGIN.labels("claim").observe(max(0, windows.claim_close - height))
        if proven and not session.proof_seen:
            session.proof_seen = True
            metrics.MARGIN.labels("proof").observe(max(0, windows.proof_close - height))

    async def _claims(self, height: int) -> dict[str, Claim] | None:
        """Claims on chain by session as of a height; None: unknown. Nobody asks before a claim can be there.

        Later than that height a claim may have been settled and removed: it would look as if it had never been there.
        """
        if not any(
            s.seal is not None or (s.windows is not None and height >= s.windows.claim_open)
            for s in self.sessions.values()
        ):
            return {}
        try:
            found = await self.chain.claims_of(self.supplier, height)
        except PocketError:
            return None
        return {claim.header.session_id: claim for claim in found}

    async def _decide(
        self, session: TrackedSession, claims: dict[str, Claim] | None, block: Block, proof: ProofParams
    ) -> Decision | None:
        if session.refused:
            await self._finish(session, Verdict("forfeited", session.refused, {}), "ACTIVE", block)
            return None
        if not await self.tailer.learn_terms(session) or session.windows is None:
            return None
        windows = session.windows
        if session.lost in ("empty", "unprofitable", "forfeited"):
            reason = str(session.details.get("reason") or session.lost)
            await self._finish(session, Verdict(session.lost, reason, {}), "CLAIMABLE", block)
            return None
        if block.height >= windows.proof_seed:
            await self.proofs.decide(session, proof)
        claim = (claims or {}).get(session.header.session_id)
        session.claimed_root = claim.root_hash if claim is not None else session.claimed_root
        session.proven = claim is not None and claim.proof_validation_status == _VALIDATED
        facts = Facts(
            windows, session.seal is not None, claim_state(session, claims), session.requirement, self.seal_after_blocks
        )
        return decide(facts, block.height)

    async def _act(self, action: Action, group: list[TrackedSession], block: Block, proof: ProofParams) -> None:
        match action:
            case Action.SEAL:
                await self._seal(group, block, proof)
            case Action.SEND_CLAIM:
                await self.claims.send_again(group, block)
            case Action.SEND_PROOF:
                await self.proofs.prove(group, block, proof)
            case Action.ADOPT:
                await self._merge_peers()
                for session in group:
                    await self.claims.adopt(session, block)
            case Action.CONCLUDE:
                for session in group:
                    await self._conclude(session, block)
            case Action.NOTHING:
                pass

    async def _seal(self, group: list[TrackedSession], block: Block, proof: ProofParams) -> None:
        """Seals; after a restart of Redis in the second half of the window, without Redis in its last third."""
        windows = group[0].windows
        if windows is None:
            return
        length, left = windows.claim_close - windows.claim_open, windows.claim_close - block.height
        if not self.redis_settled() and 2 * left > length:
            _LOG.info("Redis was restarted: sealing waits until relayers have appended their logs again")
            return
        try:
            await self.claims.seal_and_claim(group, block, proof)
        except (RedisError, OSError, TimeoutError):
            if 3 * left > length and left > 1:
                raise
            _LOG.warning("Redis is away and the claim window closes: sealing what is mirrored")
            await self._seal_from_mirrors(group, block, proof)

    async def _seal_from_mirrors(self, group: list[TrackedSession], block: Block, proof: ProofParams) -> None:
        """Nothing but the chain can tell now whether another owner has claimed: what is claimed is never sealed again.

        Raises what the chain raises.
        """
        claimed = {claim.header.session_id for claim in await self.chain.claims_of(self.supplier)}
        free = [session for session in group if session.header.session_id not in claimed]
        await self._merge_peers()
        if free:
            await self.claims.seal_and_claim(free, block, proof, mirror_only=True)

    async def _conclude(self, session: TrackedSession, block: Block) -> None:
        windows = session.windows
        if windows is None:
            return
        if session.lost == "claim_missed" or block.height < windows.settlement:
            refusal = session.details.get("refusal")
            reason = f"the chain refused the claim: {refusal}" if refusal else "no claim was in a block in time"
            stage = "SEALED" if session.seal else "CLAIMABLE"
            await self._finish(session, Verdict("claim_missed", reason, {}), stage, block)
            return
        try:
            events = await self.settlements.events(windows.settlement, self.supplier)
        except NotReadYet as error:
            _LOG.debug("%s", error)
            return
        except ChainRefusal as error:
            if block.height <= windows.settlement + _UNSEEN_BLOCKS:
                raise
            reason = f"no chain node has the events of its settlement at block {windows.settlement} any more: {error}"
            await self._finish(session, Verdict("unseen", reason, {}), "SETTLED", block)
            return
        found = verdict(self.supplier, session, events, self.report.shareholders(session.header))
        await self._finish(session, found, "SETTLED" if found.outcome == "settled" else "PROOFABLE", block)

    async def _finish(self, session: TrackedSession, found: Verdict, stage: str, block: Block) -> None:
        """Exactly one outcome per session, durable before anything of it is deleted."""
        header = session.header
        if session.seal is None and self.peers and await self.peers.ended(self.supplier, header.session_id):
            # Brought back by a log after Redis was lost; its outcome is in the audit trail of a former owner.
            await self._drop(session)
            self.sessions.pop(header.session_id, None)
            return
        await self.proofs.fees.settle(self.store, header.session_id, self.chain)
        sealed = session.seal is not None
        leaves = 0 if sealed else self.mirror.file(session.end).count(self.supplier, header.session_id)
        facts = facts_of(session, leaves, self.audit.payments(self.supplier, header.session_id))
        details = {
            "service_id": header.service_id, "application_address": header.application_address,
            "session_end_height": header.session_end_block_height, **session.details, **facts, **found.details,
        }  # fmt: skip
        if fees := self.proofs.fees.of(self.supplier, header.session_id):
            details["fees_upokt"] = fees
        outcome = Outcome(self.supplier, header.session_id, found.outcome, stage, found.reason, block.height, details)
        if self.audit.record(outcome):
            body = json.loads(outcome.body())
            self.report.ended(body)
            count_outcome(body, self.report.earned_by)
            fields = {"supplier": self.supplier, "session": header.session_id, "reason": found.reason, "stage": stage}
            _LOG.info("session %s", found.outcome, extra={"fields": {**fields, "height": block.height}})
        await self._drop(session)
        self.sessions.pop(header.session_id, None)

    async def _drop(self, session: TrackedSession) -> None:
        session_id = session.header.session_id
        await self.store.finish(session_id, session.end)
        if session.end > self._forgotten:  # once for all sessions that end together: there are thousands of tombstones
            await self.store.forget_before(session.end - _TOMBSTONE_BLOCKS)
            self._forgotten = session.end
        self.mirror.remove(session.end, self.supplier, session_id)
        self._finished[session_id] = session.end
        for old in [i for i, end in self._finished.items() if end < session.end - _TOMBSTONE_BLOCKS]:
            del self._finished[old]
