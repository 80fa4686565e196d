"""Claims of one supplier: seal, then broadcast nothing but the seal (docs/fragile/seal.md)."""

import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from ledger.errors import Fenced, LedgerError, StaleView
from ledger.seals import Seal, SealStore, SignedGroup
from miner import metrics
from miner.audit import Audit
from miner.fees import FeeBook
from miner.mirror import Mirror
from miner.sender import Prepared, Sender, SendError, in_packs
from miner.sessions import RESEND_BLOCKS, TrackedSession, due
from miner.tailing import Tailer
from miner.trie_pool import SealedSet, TriePool
from miner.viability import tokenomics_or_unknown, viability
from shannon.chain.model import Block
from shannon.claims.amounts import Price
from shannon.claims.requirement import ProofParams
from shannon.claims.rewards import TokenomicsParams
from shannon.errors import DecodingError
from shannon.smst.digest import Root
from shannon.transactions.build import Message, create_claim_message
from shannon.transactions.contents import contents
from shannon.transactions.refusals import Refusal
from shannon.transactions.sizes import MAX_TRANSACTION_BYTES

_LOG = logging.getLogger("miner.claims")


def claim_problem(root: Root, compute_units_per_relay: int) -> str | None:
    """Why a root must not be claimed; one leaf of another weight kills the claim, an empty one is refused."""
    if root.count == 0:
        return "empty"
    if root.total != root.count * compute_units_per_relay:
        return "compute_units_mismatch"
    return None


@dataclass(slots=True)
class ClaimDesk:
    """Seals and sends the claims of one supplier."""

    supplier: str
    store: SealStore
    audit: Audit
    mirror: Mirror
    pool: TriePool
    sender: Sender
    tailer: Tailer
    fees: FeeBook
    max_transaction_bytes: int = MAX_TRANSACTION_BYTES

    async def seal_and_claim(
        self, sessions: Sequence[TrackedSession], block: Block, proof: ProofParams, *, mirror_only: bool = False
    ) -> None:
        """Closes, reads to the end, seals and sends the claims of sessions with one end height.

        `mirror_only` seals what is mirrored, for a Redis that is away when the window closes; the seal then
        lies on the volume and is put back into Redis later. Raises what Redis and the chain raise; every
        step can be repeated from the start.
        """
        end = sessions[0].end
        by_id = {s.header.session_id: s for s in sessions}
        last_ids = {} if mirror_only else await self._close_and_read(by_id, end)
        sets = {i: await self.pool.root(self.mirror.path(end), self.supplier, i) for i in by_id}
        tokenomics = await tokenomics_or_unknown(self.sender.chain)
        rows = [(by_id[i], sets[i]) for i in self._worthy(by_id, sets, proof, tokenomics)]
        await in_packs(
            rows, lambda row: self._message(row[0], row[1].root), self.max_transaction_bytes,
            lambda pack: self._seal(pack, last_ids, block, mirror_only=mirror_only),
        )  # fmt: skip

    async def _seal(
        self, rows: Sequence[tuple[TrackedSession, SealedSet]], last_ids: Mapping[str, str], block: Block, *,
        mirror_only: bool,
    ) -> None:  # fmt: skip
        """Seals and sends what goes into one transaction. Raises SendError and what Redis raises."""
        prepared, sessions = await self._prepare([(session, found.root) for session, found in rows], block)
        if prepared is None:
            return
        sets, end = {session.header.session_id: found for session, found in rows}, sessions[0].end
        ids = [session.header.session_id for session in sessions]
        seals = [Seal(i, sets[i].root, sets[i].leaf_digest, block.height, self.store.epoch) for i in ids]
        signed = SignedGroup(prepared.signed.raw, prepared.timeout.nanoseconds, block.height)
        if not mirror_only and not await self._store(seals, last_ids, f"{end}/claim/{ids[0][:16]}", signed):
            # Sealed before, by a predecessor: its seals count, not ours.
            await self.load_seals({session.header.session_id: session for session, _ in rows})
            return
        for session, seal in zip(sessions, seals, strict=True):
            self._keep(seal, end, signed.encode(), needed=mirror_only)
            session.seal = seal
        await self._broadcast(signed.tx_raw, sessions, block)

    def _keep(self, seal: Seal, end: int, signed: str, *, needed: bool) -> None:
        """Keeps a seal on the volume. A full volume stops no claim whose seal is in Redis; raises where it is not."""
        try:
            self.audit.keep_seal(self.supplier, end, seal, signed)
        except sqlite3.Error as error:
            if needed:
                raise
            metrics.ERRORS.labels("volume").inc()
            _LOG.error("the volume took no seal: %s. Free space on it.", error)

    async def _store(self, seals: list[Seal], last_ids: Mapping[str, str], group: str, signed: SignedGroup) -> bool:
        """Whether the seals are ours; raises StaleView, Fenced and what Redis raises."""
        try:
            await self.store.seal(seals, last_ids, group, signed)
        except (StaleView, Fenced):  # Unfenced among them
            raise
        except LedgerError:
            return False
        return True

    async def _close_and_read(self, by_id: Mapping[str, TrackedSession], end: int) -> dict[str, str]:
        """Closes the sessions and mirrors their streams to the end; raises StaleView where that did not work."""
        last_ids = await self.store.close(dict.fromkeys(by_id, end))
        while any(last_ids[i] != "0-0" and s.position != last_ids[i] for i, s in by_id.items()):
            if not await self.tailer.tail_once():
                break
        if behind := [i for i, s in by_id.items() if last_ids[i] != "0-0" and s.position != last_ids[i]]:
            raise StaleView(f"{len(behind)} sessions are not read to their end")
        return last_ids

    async def _prepare(
        self, rows: Sequence[tuple[TrackedSession, bytes]], block: Block
    ) -> tuple[Prepared | None, list[TrackedSession]]:
        """The signed claims of roots with one session end, and whose they are. Raises SendError.

        One that the chain refuses by name is left out, this time: it may have been wrong.
        """
        if not rows:
            return None, []
        windows = rows[0][0].windows
        close = windows.claim_close if windows else block.height + 2
        sifted = await self.sender.sift([self._message(session, root) for session, root in rows], block, close)
        sessions = [session for session, _ in rows]
        for position, error in sifted.refused.items():
            sessions[position].details["refusal"] = str(error)[:300]
            metrics.CLAIMS.labels(error.refusal.name.lower()).inc()
        good = [session for position, session in enumerate(sessions) if position not in sifted.refused]
        for session in good:
            session.details.pop("refusal", None)
        return sifted.prepared, good

    def _worthy(
        self,
        by_id: Mapping[str, TrackedSession],
        sets: Mapping[str, SealedSet],
        proof: ProofParams,
        tokenomics: TokenomicsParams | None,
    ) -> list[str]:
        worthy = []
        fees = self.fees.estimate_upokt()
        for session_id, session in by_id.items():
            if session.terms is None or session.params is None:
                continue
            root = sets[session_id].root
            problem = claim_problem(Root(root), session.terms.compute_units_per_relay)
            if problem:
                session.lost = "empty" if problem == "empty" else "forfeited"
                session.details["reason"] = problem
                continue
            price = Price.of(session.params)
            expected = viability(root, session.terms.target_hash, price, proof, tokenomics, fees)
            if not expected.viable:
                session.lost = "unprofitable"
                session.details.update(expected.details())
                continue
            worthy.append(session_id)
        return worthy

    def _message(self, session: TrackedSession, root: bytes) -> Message:
        return create_claim_message(self.supplier, session.header, root)

    async def learn_seals(self, seals: Mapping[str, tuple[int, Seal]]) -> None:
        """Keeps what peers had sealed, so that nothing else is ever claimed for these sessions."""
        known = self.audit.seals(self.supplier)
        for session_id, (end, seal) in seals.items():
            if session_id not in known and self.audit.outcome(self.supplier, session_id) is None:
                self._keep(seal, end, "", needed=False)

    async def adopt(self, session: TrackedSession, block: Block) -> None:
        """A claim on chain that no seal is known of: ours if our leaves have its root, a stranger's otherwise.

        A stranger's claim is neither replaced nor proven. Raises what Redis raises.
        """
        session_id, end = session.header.session_id, session.end
        await self._close_and_read({session_id: session}, end)
        found = await self.pool.root(self.mirror.path(end), self.supplier, session_id)
        if found.root != session.claimed_root:
            session.foreign = True
            metrics.FOREIGN.inc()
            session.details["foreign_root"] = session.claimed_root.hex()
            _LOG.error(
                "a claim on chain has a root that is not ours: does another miner use this supplier's key?",
                extra={"fields": {"supplier": self.supplier, "session": session_id, "height": block.height}},
            )
            return
        seal = Seal(session_id, found.root, found.leaf_digest, block.height, self.store.epoch)
        await self.store.restore({session_id: seal}, {session_id: end})
        self._keep(seal, end, "", needed=False)
        session.seal = seal
        _LOG.info("claim adopted", extra={"fields": {"supplier": self.supplier, "session": session_id}})

    async def load_seals(self, sessions: Mapping[str, TrackedSession]) -> None:
        """Takes over existing seals, from Redis and from the mirror; Redis gets back what it lost."""
        kept = self.audit.seals(self.supplier)
        for session_id, (_, seal) in kept.items():
            if session_id in sessions:
                sessions[session_id].seal = seal
        seals = await self.store.load()
        missing = {i: seal for i, (_, seal) in kept.items() if i not in seals and i in sessions}
        if missing:
            await self.store.restore(missing, {i: kept[i][0] for i in missing})
        for session_id, seal in seals.items():
            session = sessions.get(session_id)
            if session is not None and session.seal is None:
                session.seal = seal
                self._keep(seal, session.end, "", needed=False)

    async def send_again(self, sessions: Sequence[TrackedSession], block: Block) -> None:
        """Sends sealed claims that the chain does not show: the same bytes first, then the same roots signed anew.

        Raises the first error when all have been tried.
        """
        waiting = {s.header.session_id: s for s in sessions if due(s.claim_sent, block.height)}
        failure: SendError | None = None
        if any(session.claim_sent is None for session in waiting.values()):
            for raw, claimed in await self._signed_before(sessions[0].end, block):
                same = [i for i in claimed if i in waiting and waiting[i].claim_sent is None]
                try:
                    if same:
                        await self._broadcast(raw, [waiting.pop(i) for i in same], block)
                except SendError as error:
                    failure = failure or error
        rows = [(session, session.seal.root) for session in waiting.values() if session.seal is not None]
        try:
            await in_packs(
                rows,
                lambda row: self._message(*row),
                self.max_transaction_bytes,
                lambda pack: self._resend(pack, block),
            )
        except SendError as error:
            failure = failure or error
        if failure is not None:
            raise failure

    async def _resend(self, rows: Sequence[tuple[TrackedSession, bytes]], block: Block) -> None:
        prepared, good = await self._prepare(rows, block)
        if prepared is not None:
            metrics.CLAIMS.labels("resent").inc(len(good))
            await self._broadcast(prepared.signed.raw, good, block)

    async def _signed_before(self, end: int, block: Block) -> list[tuple[bytes, tuple[str, ...]]]:
        """Transactions that were signed with the seals of a session end and may still be included; their sessions."""

        def fresh(groups: Iterable[SignedGroup]) -> list[bytes]:
            return [group.tx_raw for group in groups if group.timeout_ns > block.time.nanoseconds]

        found = []
        signed = fresh(self.audit.signed(self.supplier, end)) or fresh(await self._signed_in_redis(end))
        for raw in dict.fromkeys(signed):
            try:
                found.append((raw, contents(raw).claims))
            except DecodingError as error:
                _LOG.error("claims that were signed before are signed anew: %s", error)
        return found

    async def _signed_in_redis(self, end: int) -> list[SignedGroup]:
        """What a predecessor signed; nothing while Redis is away: the same roots are then signed anew."""
        try:
            return await self.store.signed(end)
        except (RedisError, OSError, TimeoutError):
            return []

    async def _broadcast(self, raw: bytes, sessions: Sequence[TrackedSession], block: Block) -> None:
        for session in sessions:
            session.claim_sent = block.height
        try:
            result = await self.sender.broadcast(raw)
        except SendError as error:
            metrics.CLAIMS.labels(error.refusal.name.lower()).inc(len(sessions))
            if error.refusal in (Refusal.NEW_TIMESTAMP, Refusal.TOO_LARGE):
                # What is signed anew may go out at the next block.
                for session in sessions:
                    session.claim_sent = block.height - RESEND_BLOCKS
            raise
        metrics.CLAIMS.labels("sent").inc(len(sessions))
        await self.fees.sent(self.store, raw)
        _LOG.info(
            "claims sent", extra={"fields": {"supplier": self.supplier, "session_end": sessions[0].end,
                                             "claims": len(sessions), "tx": result.tx_hash, "height": block.height}}
        )  # fmt: skip
