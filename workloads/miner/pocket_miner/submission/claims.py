"""Seal sessions and broadcast only sealed claims (docs/fragile/seal.md)."""

import asyncio
import contextlib
import enum
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain.model import Block
from pocket.protocol.claims.amounts import Price
from pocket.protocol.claims.proof_requirement import ProofParams
from pocket.protocol.claims.rewards import TokenomicsParams
from pocket.protocol.smst.digest import Root
from pocket.protocol.transactions.batches import MAX_TRANSACTION_BYTES
from pocket.protocol.transactions.build import Message, create_claim_message
from pocket.protocol.transactions.decode import DecodedTransaction
from pocket.redis_store.seals import SealStore, SessionSeal, SignedGroup
from pocket.redis_store.store_errors import ConcurrentAppend, RedisStoreError, RedisUnavailable, StaleEpoch
from pocket_miner import miner_metrics
from pocket_miner.sessions.relay_sources import RelaySource, SessionCopier
from pocket_miner.sessions.submission import (
    Attempts,
    at_last_chance,
    divide,
    highest_gas_factor,
)
from pocket_miner.sessions.tracked_session import Skip, TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.storage.disk_reserve import VolumeFull
from pocket_miner.storage.relay_store import RelayStore, largest_relay
from pocket_miner.storage.trie_pool import SealedSet, Tries
from pocket_miner.submission.deliveries import CLAIM, Deliveries
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.funds import Costs, balance_for, may_need_proof, owed_upokt, owes_proof, payable
from pocket_miner.submission.known_seals import KnownSeals
from pocket_miner.submission.leaf_sets import LeafSets, VolumeFallback
from pocket_miner.submission.sender import (
    PreparedBatch,
    Sender,
    SendError,
    send_in_batches,
    send_same_bytes,
    signed_before,
)
from pocket_miner.submission.viability import best_viability, tokenomics_by_node, tokenomics_or_unknown

_LOG: FilteringBoundLogger = structlog.get_logger()


def claim_problem(root: Root, compute_units_per_relay: int) -> Skip | None:
    """Return why a root must not be claimed, None if it may be.

    The chain rejects an empty claim, and one whose leaves do not all have the weight `compute_units_per_relay`.
    """
    if root.count == 0:
        return Skip.EMPTY
    if root.total != root.count * compute_units_per_relay:
        return Skip.UNITS_MISMATCH
    return None


class SealSource(enum.Enum):
    """The data from which a session is sealed."""

    STREAM = "stream"  # the stream in Redis, read to its end
    VOLUME = "volume"  # what is on the volume; so is the seal


@dataclass(slots=True)
class ClaimSubmitter:
    """Seals sessions and submits the claims of one supplier."""

    supplier: str
    store: SealStore
    audit: Audit
    relay_store: RelayStore
    pool: Tries
    sender: Sender
    consumer: RelaySource
    fees: FeeTracker
    max_transaction_bytes: int = MAX_TRANSACTION_BYTES
    latest_height: Callable[[], int] = lambda: 0
    """Returns the latest known height. The block being decided may be older."""
    copies: SessionCopier | None = None
    open_sessions: Mapping[str, TrackedSession] = field(default_factory=dict)
    """The supplier's unfinished sessions, whose proofs its account has to pay, too."""
    seals: KnownSeals = field(init=False)
    deliveries: Deliveries = field(init=False)

    def __post_init__(self) -> None:
        self.deliveries = Deliveries(CLAIM, self.store, self.sender, self.fees, self.latest_height)
        self.seals = KnownSeals(self.supplier, self.store, self.audit)

    @property
    def _leaf_sets(self) -> LeafSets:
        return LeafSets(self.supplier, self.relay_store, self.pool, self.copies)

    async def seal_and_claim(
        self, sessions: Sequence[TrackedSession], block: Block, proof: ProofParams, *,
        source: SealSource = SealSource.STREAM, fallback: VolumeFallback = VolumeFallback.RETRY, history: str = "",
    ) -> None:  # fmt: skip
        """Close, read to the end, seal and claim the sessions of one end height.

        With a `history`, sessions are closed only in that history of Redis. A session that fails is retried at the next
        block without affecting the others. Every step can be repeated from the start. Raises the errors of Redis and of
        the chain that concern all of them, and without a fallback those of the volume.
        """
        end = sessions[0].end
        by_id = {s.session_id: s for s in sessions}
        last_ids: dict[str, str] = {}
        unread: Collection[str] = ()
        if source is not SealSource.VOLUME:
            last_ids, unread = await self._close_and_read(by_id, end, fallback, history)
            by_id = {i: session for i, session in by_id.items() if i in last_ids}
        awaited = source is not SealSource.VOLUME and fallback is VolumeFallback.RETRY
        sets = await self._leaf_sets.to_seal(by_id, unread, fallback, peers_awaited=awaited)
        rows = [(by_id[i], sets[i]) for i in await self._profitable(by_id, sets, proof)]
        rows = await self._payable(rows, block, proof)
        await send_in_batches(
            rows, lambda row: self._message(row[0], row[1].root), self.max_transaction_bytes,
            lambda pack: self._seal(pack, last_ids, block, source),
        )  # fmt: skip

    async def _seal(
        self, rows: Sequence[tuple[TrackedSession, SealedSet]], last_ids: Mapping[str, str], block: Block,
        source: SealSource,
    ) -> None:  # fmt: skip
        """Seal and send the claims of one transaction.

        Raises SendError and the errors of Redis.
        """
        prepared, sessions = await self._prepare([(session, leaf_set.root) for session, leaf_set in rows], block)
        if prepared is None:
            return
        sets, end = {session.session_id: leaf_set for session, leaf_set in rows}, sessions[0].end
        ids = [session.session_id for session in sessions]
        seals = [SessionSeal(i, sets[i].root, sets[i].leaf_digest, block.height, self.store.epoch) for i in ids]
        signed = SignedGroup(prepared.signed.raw, prepared.timeout.nanoseconds, block.height)
        on_volume = source is SealSource.VOLUME
        if not on_volume and not await self._store(seals, last_ids, f"{end}/claim/{ids[0][:16]}", signed):
            # A predecessor has sealed them before: its seals count, not ours.
            await self.seals.load({session.session_id: session for session, _ in rows})
            return
        await self.seals.save(seals, end, signed.encode(), needed=on_volume)
        for session, seal in zip(sessions, seals, strict=True):
            session.seal = seal
        await self.deliveries.broadcast(signed.tx_raw, sessions, block, timeout_ns=signed.timeout_ns)

    async def _store(
        self, seals: list[SessionSeal], last_ids: Mapping[str, str], group: str, signed: SignedGroup
    ) -> bool:
        """Store the seals in Redis.

        Returns False if a predecessor has sealed these sessions. Raises ConcurrentAppend, StaleEpoch and the errors of
        Redis.
        """
        try:
            await self.store.seal(seals, last_ids, group, signed)
        except (ConcurrentAppend, StaleEpoch, RedisUnavailable):  # includes FenceMissing
            raise
        except RedisStoreError:
            return False
        return True

    async def _close_and_read(
        self, by_id: Mapping[str, TrackedSession], end: int, fallback: VolumeFallback, history: str = ""
    ) -> tuple[dict[str, str], Collection[str]]:
        """Close sessions and store their streams to the end.

        Returns the last entry ids, and the sessions whose relays the volume could not store. Without a fallback its
        error is raised. Incomplete sessions are left out and retried at the next block. Raises ConcurrentAppend if none
        is complete.
        """
        last_ids = await self.store.close(dict.fromkeys(by_id, end), history)

        def behind() -> list[str]:
            return [i for i, s in by_id.items() if last_ids[i] != "0-0" and s.position != last_ids[i]]

        try:
            await self.consumer.register_missing(by_id.values())
            tries = 2  # a stream that has lost entries may end before the position, and is read once more
            while (late := behind()) and tries:
                if not await self.consumer.consume_once():
                    tries -= 1
                    self.consumer.reread(late)
        except (sqlite3.Error, VolumeFull) as error:
            if fallback is VolumeFallback.RETRY or corruption_in(error) is not None:
                raise
            _LOG.error("relays not stored on the volume: free up space on it", error=error)
            return last_ids, behind()
        late = behind()
        if late and len(late) == len(by_id):
            raise ConcurrentAppend(f"{len(late)} sessions are not read to their end yet")
        return {i: last for i, last in last_ids.items() if i not in late}, ()

    async def _prepare(
        self, rows: Sequence[tuple[TrackedSession, bytes]], block: Block, gas_factor: float = 1.0
    ) -> tuple[PreparedBatch | None, list[TrackedSession]]:
        """Sign the claims of roots with one session end.

        Returns them with their sessions. A claim that the chain rejects by its index is skipped until the next block,
        because that answer may be wrong. Raises SendError.
        """
        if not rows:
            return None, []
        windows = rows[0][0].windows
        close = windows.claim_close if windows else block.height + 2
        sessions = [session for session, _ in rows]
        messages = [self._message(session, root) for session, root in rows]
        sifted = await self.sender.prepare_skipping_rejected(messages, block, close, gas_factor)
        for position, error in sifted.refused.items():
            sessions[position].details.refusal = str(error)[:300]
            miner_metrics.CLAIMS.labels(error.refusal.name.lower()).inc()
        good = [session for position, session in enumerate(sessions) if position not in sifted.refused]
        return sifted.prepared, good

    async def _profitable(
        self, by_id: Mapping[str, TrackedSession], sets: Mapping[str, SealedSet], proof: ProofParams
    ) -> list[str]:
        """Return the ids of sessions to claim.

        For the others the reason is recorded until the next block. A session is unprofitable only by the answers of
        all nodes: a claim that is not sent earns nothing.
        """
        worthy = []
        fees = self.fees.estimate_upokt()
        answers: list[TokenomicsParams | None] = [await tokenomics_or_unknown(self.sender.chain)]
        every_node_asked = False
        for session_id, leaf_set in sets.items():
            session = by_id[session_id]
            if session.terms is None or session.params is None:
                continue
            session.skip = claim_problem(Root(leaf_set.root), session.terms.compute_units_per_relay)
            if session.skip is not None:
                session.details.reason = session.skip.value
                continue
            session.details.reason = None
            price, target = Price.of(session.params), session.terms.target_hash
            expected = best_viability(leaf_set.root, target, price, proof, answers, fees)
            if not expected.viable and not every_node_asked:
                every_node_asked = True
                answers += await tokenomics_by_node(self.sender.chain)
                expected = best_viability(leaf_set.root, target, price, proof, answers, fees)
            expected.record(session.details)
            if not expected.viable:
                session.skip = Skip.UNPROFITABLE
                continue
            worthy.append(session_id)
        return worthy

    async def _payable(
        self, rows: list[tuple[TrackedSession, SealedSet]], block: Block, proof: ProofParams
    ) -> list[tuple[TrackedSession, SealedSet]]:
        """Return the claims that the account's balance pays with their proofs.

        The dearest ones come first. The others wait for the next block.
        """
        fees, submission = self.fees, proof.proof_submission_fee_upokt
        costs = Costs(fees.highest_claim_upokt(), lambda size: fees.highest_proof_upokt(size) + submission)

        def wanted_and_needed() -> tuple[list[int], int]:
            wanted = [
                costs.claim + costs.proof(session.largest_relay) * may_need_proof(session, leaf_set.root, proof)
                for session, leaf_set in rows
            ]
            return wanted, sum(wanted) + owed_upokt(self.open_sessions.values(), block.height, costs)

        wanted, needed = wanted_and_needed()
        highest = needed + costs.proof(self.max_transaction_bytes) * (len(rows) + len(self.open_sessions))
        balance = await balance_for(self.sender.chain, self.supplier, highest) if rows else None
        if balance is None or balance >= highest:
            return rows
        await self._measure_relays([row[0] for row in rows])
        wanted, needed = wanted_and_needed()
        if balance >= needed:
            return rows
        earned = [row[0].details.expected_earnings_upokt or 0 for row in rows]
        order = sorted(range(len(rows)), key=lambda position: -earned[position])
        chosen = {order[i] for i in payable([wanted[i] for i in order], balance - (needed - sum(wanted)))}
        for position, (session, _) in enumerate(rows):
            if position not in chosen:
                text = f"the account's {balance} upokt do not pay its claim and proof: add funds"
                session.details.refusal = f"not sent, {text}"
                miner_metrics.CLAIMS.labels("no_funds").inc()
                _LOG.error("claim held back", session=session.session_id, problem=text)
        return [row for position, row in enumerate(rows) if position in chosen]

    async def _measure_relays(self, sessions: Sequence[TrackedSession]) -> None:
        """Find the largest relays of sessions with a proof to pay.

        Any of a session's relays may have to be proven.
        """
        for session in {s.session_id: s for s in (*sessions, *self.open_sessions.values())}.values():
            if owes_proof(session) and (session.seal is None or not session.largest_relay):
                where = self.relay_store.path(session.end), self.supplier, session.session_id
                with contextlib.suppress(sqlite3.Error):
                    session.largest_relay = await asyncio.to_thread(largest_relay, *where)

    def _message(self, session: TrackedSession, root: bytes) -> Message:
        return create_claim_message(self.supplier, session.header, root)

    async def adopt(self, session: TrackedSession, block: Block, *, connected: bool) -> None:
        """Adopt a claim on chain without a known seal, if our leaves have its root.

        The leaves on the volume may be enough. If not, the stream is read, once Redis is `connected`. If the claim has
        another root then, it conflicts with ours, and is neither replaced nor proven. Raises the errors of Redis.
        """
        root, session_id = session.claimed_root, session.session_id
        leaf_set = await self._leaf_sets.of_claim_on_volume(session)
        if leaf_set is None or leaf_set.root != root:
            if not connected:
                return
            _, unread = await self._close_and_read({session_id: session}, session.end, VolumeFallback.COPY)
            if leaf_set is None or unread or await self._leaf_sets.has_other_count(session, leaf_set.count):
                leaf_set = await self._leaf_sets.of(session, VolumeFallback.COPY, on_volume=not unread, known=root)
        if leaf_set.root != root:
            if any(seal.root == root for seal in session.other_seals):
                return  # a peer's claim, whose relays may still come
            if not session.conflicting:
                miner_metrics.FOREIGN.inc()
                _LOG.error(
                    "conflicting claim, its root on chain is not ours: does another miner use this supplier's key?",
                    session=session.session_id,
                    height=block.height,
                )
            session.details.foreign_root = session.claimed_root.hex()
            session.conflicting = True
            return
        session.conflicting = False
        session.details.foreign_root = None
        session.seal = SessionSeal(
            session.session_id, leaf_set.root, leaf_set.leaf_digest, block.height, self.store.epoch
        )
        await self.seals.save([session.seal], session.end, "", needed=False)
        _LOG.info("claim on chain has the root of our relays, continuing with it", session=session.session_id)
        if connected:
            await self.store.restore({session.session_id: session.seal}, {session.session_id: session.end})

    async def rebroadcast(self, sessions: Sequence[TrackedSession], block: Block) -> None:
        """Send sealed claims again that the chain does not show.

        The same bytes are sent first, then the same roots signed again. Raises the first error after all have been
        tried.
        """
        await self._load_signed(sessions, block)
        shared = len(sessions) > 1
        results = await self.deliveries.results(sessions)
        close = sessions[0].windows.claim_close if sessions[0].windows else 0
        same, signed_anew = divide(
            ((s, s.claim.sent, s.claim.attempts) for s in sessions), results, block.height, block.time.nanoseconds,
            shared=shared, left=close - block.height,
        )  # fmt: skip
        attempts = {session.session_id: tried for session, tried in signed_anew}
        anew = [session for session, _ in signed_anew]
        failure = await send_same_bytes(
            ((session, session.claim.sent) for session in same),
            lambda raw, group: self.deliveries.broadcast(raw, group, block),
        )
        kept = ((session, session.claim.sent, session.claim.attempts) for session in same)
        for session, tried in at_last_chance(kept, block.height, close, shared=shared):
            anew.append(session)
            attempts[session.session_id] = tried
        try:
            if any(session.claim.sent is not None for session in anew):
                anew = await self.deliveries.missing(anew, block, results)
            await send_in_batches(
                [(session, session.seal.root) for session in anew if session.seal is not None],
                lambda row: self._message(*row),
                self.max_transaction_bytes,
                lambda pack: self._resend(pack, block, attempts),
                lambda row: attempts[row[0].session_id].alone,
            )
        except SendError as error:
            failure = failure or error
        if failure is not None:
            raise failure

    async def _load_signed(self, sessions: Sequence[TrackedSession], block: Block) -> None:
        """Load transactions that were signed with the seals.

        They were signed before a restart, or by a predecessor.
        """
        waiting = {s.session_id: s for s in sessions if s.claim.sent is None and not s.claim.attempts.number}
        if not waiting:
            return
        roots = {session_id: s.seal.root for session_id, s in waiting.items() if s.seal is not None}

        def of_our_roots(transaction: DecodedTransaction) -> Iterable[str]:
            rows = zip(transaction.claims, transaction.roots, strict=True)
            return (session_id for session_id, root in rows if roots.get(session_id) == root)

        end = sessions[0].end
        groups = [*await self.seals.signed_on_volume(end), *await self.seals.signed_in_redis(end)]
        newest_first = sorted(groups, key=lambda group: -group.height)
        submissions = signed_before(newest_first, block.time.nanoseconds, of_our_roots)
        for session_id, session in waiting.items():
            session.claim.sent = submissions.get(session_id)

    async def _resend(
        self, rows: Sequence[tuple[TrackedSession, bytes]], block: Block, attempts: Mapping[str, Attempts]
    ) -> None:
        factor = highest_gas_factor([attempts[session.session_id] for session, _ in rows])
        prepared, good = await self._prepare(rows, block, factor)
        if prepared is None:
            return
        for session in good:
            session.claim.attempts = attempts[session.session_id]
            session.claim.sent = None
            if session.claim.attempts.failed:
                session.details.refusal = session.claim.attempts.failed
        miner_metrics.CLAIMS.labels("resent").inc(len(good))
        raw, timeout = prepared.signed.raw, prepared.timeout.nanoseconds
        await self.deliveries.share(good[0].end, SignedGroup(raw, timeout, self.deliveries.height(block)))
        await self.deliveries.broadcast(raw, good, block, timeout_ns=timeout)
