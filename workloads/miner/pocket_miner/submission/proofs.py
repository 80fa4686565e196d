"""Decide which proofs are required, build them and send them in batches.

They are those of one supplier.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain.client import ChainClient
from pocket.chain.model import Block
from pocket.errors import ChainError, DecodingError, PocketError
from pocket.protocol.claims.amounts import Price, claimed_upokt
from pocket.protocol.claims.proof_requirement import (
    INVALID,
    Claim,
    ProofParams,
    ProofRequirement,
    proof_path,
    requirement_by,
    requirement_sample,
)
from pocket.protocol.smst.digest import Root
from pocket.protocol.transactions.batches import MAX_TRANSACTION_BYTES
from pocket.protocol.transactions.build import Message, submit_proof_message
from pocket.redis_store.seals import SealStore, SignedGroup
from pocket.redis_store.store_errors import RedisStoreError
from pocket_miner import miner_metrics
from pocket_miner.sessions.relay_sources import SessionCopier
from pocket_miner.sessions.submission import LAST_BLOCKS, Attempts, at_last_chance, divide, highest_gas_factor
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.storage.trie_pool import UNREADABLE, Tries
from pocket_miner.submission.deliveries import PROOF, Deliveries
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.seeds import HashSource, SeedHashes
from pocket_miner.submission.sender import Sender, SendError, send_in_batches, send_same_bytes, signed_before

_LOG: FilteringBoundLogger = structlog.get_logger()
_Built = tuple[TrackedSession, Message]


def _invalid(session: TrackedSession) -> bool:
    """Return True if the chain found the submitted proof invalid."""
    return session.claim_on_chain is not None and session.claim_on_chain.proof_validation_status == INVALID


def _may_be_judged(session: TrackedSession, height: int) -> bool:
    """Return True if a height's state may be about the proof that was sent last.

    Else it is about one before it.
    """
    return session.proof.sent is not None and height > session.proof.sent.height


def requirement_of(
    supplier: str, session: TrackedSession, seed_hash: bytes, params: ProofParams
) -> ProofRequirement | None:
    """Return the chain's proof requirement, None while a parameter is missing.

    The claim is hashed with status 0, as the chain does.
    """
    if session.seal is None or session.terms is None or session.params is None:
        return None
    amount = claimed_upokt(Root(session.seal.root), session.terms.target_hash, Price.of(session.params))
    if session.sample is None or session.sample[0] != seed_hash:
        claim = Claim(supplier, session.header, session.seal.root)
        session.sample = (seed_hash, requirement_sample(claim, seed_hash))
    return requirement_by(session.sample[1], amount, params)


SignedProofs = MutableMapping[tuple[str, int], tuple[SignedGroup, ...]]
"""Supplier and session end → proofs that this process signed. They outlast a shard that is lost and taken again."""


@dataclass(slots=True)
class ProofSubmitter:
    """Builds and submits the proofs of one supplier."""

    supplier: str
    chain: ChainClient
    blocks: HashSource
    relay_store: RelayStore
    pool: Tries
    sender: Sender
    fees: FeeTracker
    store: SealStore
    max_transaction_bytes: int = MAX_TRANSACTION_BYTES
    latest_height: Callable[[], int] = lambda: 0
    """Returns the latest known height. The block being decided may be older."""
    seeds: SeedHashes | None = None
    """Shared by all suppliers of a process. Created here if not given."""
    copies: SessionCopier | None = None
    signed: SignedProofs = field(default_factory=dict)
    """Shared by all suppliers of a process."""
    deliveries: Deliveries = field(init=False)

    def __post_init__(self) -> None:
        self.deliveries = Deliveries(PROOF, self.store, self.sender, self.fees, self.latest_height)

    def _seeds(self) -> SeedHashes:
        if self.seeds is None:
            self.seeds = SeedHashes(self.blocks, self.chain)
        return self.seeds

    async def decide(self, session: TrackedSession, params: ProofParams, height: int) -> None:
        """Decide by the params of this block whether a proof is required.

        Earlier decisions do not count.
        """
        windows = session.windows
        if windows is None or session.seal is None:
            return
        try:
            seed, confirmed = await self._seeds().hash_of(windows.proof_seed, height)
        except ChainError:
            session.requirement = None
            return
        requirement = requirement_of(self.supplier, session, seed, params)
        certain = confirmed and session.params_confirmed and session.terms_confirmed
        if requirement is ProofRequirement.NOT_REQUIRED and not certain:
            requirement = None  # stake must not depend on a single answer about the seed block, the price or the target
        session.requirement = requirement
        if requirement is not None and "requirement" not in session.measured:
            session.measured.add("requirement")
            miner_metrics.REQUIREMENTS.labels("no" if requirement is ProofRequirement.NOT_REQUIRED else "yes").inc()

    async def prove(self, sessions: Sequence[TrackedSession], block: Block, params: ProofParams) -> None:
        """Send the proofs of one session end in as few transactions as possible.

        An invalid proof does not stop the others. Raises the first error after all have been tried.
        """
        await self._load_signed(sessions, block)
        invalid = [session for session in sessions if _invalid(session) and _may_be_judged(session, block.height)]
        for session in invalid:
            self._doubt(session)
        repaired = {session.session_id for session in invalid}
        others = [session for session in sessions if session.session_id not in repaired]
        results = await self.deliveries.results(others)
        close, shared = sessions[0].windows.proof_close if sessions[0].windows else block.height, len(sessions) > 1
        same, signed_anew = divide(
            ((s, s.proof.sent, s.proof.attempts) for s in others), results, block.height, block.time.nanoseconds,
            shared=shared, left=close - block.height,
        )  # fmt: skip
        attempts = {session.session_id: session.proof.attempts for session in invalid}
        attempts |= {session.session_id: tried for session, tried in signed_anew}
        anew = [session for session in sessions if session.session_id in attempts]
        failure = await send_same_bytes(
            ((session, session.proof.sent) for session in same),
            lambda raw, group: self._broadcast(raw, group, block, params),
        )
        kept = ((session, session.proof.sent, session.proof.attempts) for session in same)
        for session, tried in at_last_chance(kept, block.height, close, shared=shared):
            anew.append(session)
            attempts[session.session_id] = tried
        missing = await self.deliveries.missing(anew, block, results)
        built = [(session, message) for session in missing if (message := await self._built(session, block))]
        try:
            await send_in_batches(
                built,
                lambda row: row[1],
                self.max_transaction_bytes,
                lambda pack: self._send(pack, block, params, attempts),
                lambda row: attempts[row[0].session_id].alone,
            )
        except SendError as error:
            failure = failure or error
        if failure is not None:
            raise failure

    async def _load_signed(self, sessions: Sequence[TrackedSession], block: Block) -> None:
        """Load proofs that this miner signed before a restart, or a former owner.

        The same bytes cost no second fee.
        """
        waiting = {
            session.session_id: session
            for session in sessions
            if session.proof.sent is None and not session.proof.attempts.number and not _invalid(session)
        }
        windows = sessions[0].windows
        if not waiting or windows is None:
            return
        groups = list(self.signed.get((self.supplier, sessions[0].end), ()))
        with contextlib.suppress(sqlite3.Error):  # signed again then
            groups += await asyncio.to_thread(self.fees.audit.signed, self.supplier, sessions[0].end, "proof")
        try:
            groups += await self.store.signed(sessions[0].end, "proof")
        except (RedisStoreError, DecodingError) as error:
            _LOG.info("signed proofs not read from Redis", own=len(groups), error=error)
        newest_first = sorted(groups, key=lambda group: -group.height)
        submissions = signed_before(newest_first, block.time.nanoseconds, lambda transaction: transaction.proofs)
        if windows.proof_close - block.height <= LAST_BLOCKS:
            # Nodes may know bytes that they dropped: too late to find out, a second fee is less than the stake.
            results = await self.sender.results_of(submissions.values())
            submissions = {i: last for i, last in submissions.items() if last.tx_hash in results}
        for session_id, session in waiting.items():
            session.proof.sent = submissions.get(session_id)

    def _doubt(self, session: TrackedSession) -> None:
        """Query the hash of the seed block again.

        The chain found the proof invalid.
        """
        proof, windows = session.proof.sent, session.windows
        if windows is not None and proof is not None and f"doubted {proof.tx_hash}" not in session.measured:
            session.measured.add(f"doubted {proof.tx_hash}")
            self._seeds().doubt(windows.proof_seed, session.proof_message[0] if session.proof_message else None)
        session.details.proof_refusal = "the chain found the proof invalid"

    async def _send(
        self, built: list[_Built], block: Block, params: ProofParams, attempts: Mapping[str, Attempts]
    ) -> None:
        """Send one transaction without the messages that the chain rejects by index.

        Raises SendError.
        """
        windows = built[0][0].windows
        close = windows.proof_close if windows else block.height + 2
        factor = highest_gas_factor([attempts[session.session_id] for session, _ in built])
        sifted = await self.sender.prepare_skipping_rejected([message for _, message in built], block, close, factor)
        for position, error in sifted.refused.items():
            session, _ = built[position]
            # "Not required" counts for this block only: the proof may be required at the next one.
            session.details.proof_refusal = str(error)[:300]
            miner_metrics.PROOFS.labels(error.refusal.name.lower()).inc()
        if sifted.prepared is None:
            return
        good = [session for position, (session, _) in enumerate(built) if position not in sifted.refused]
        for session in good:
            session.proof.attempts, session.proof.sent = attempts[session.session_id], None
        raw, timeout = sifted.prepared.signed.raw, sifted.prepared.timeout.nanoseconds
        shared, group = SignedGroup(raw, timeout, self.deliveries.height(block)), (self.supplier, good[0].end)
        self.signed[group] = (*self.signed.get(group, ()), shared)
        await self.deliveries.share(good[0].end, shared)
        await self._broadcast(raw, good, block, params, timeout)

    async def _broadcast(
        self, raw: bytes, sessions: Sequence[TrackedSession], block: Block, params: ProofParams, timeout_ns: int = 0
    ) -> None:
        fee = params.proof_submission_fee_upokt
        await self.deliveries.broadcast(raw, sessions, block, timeout_ns=timeout_ns, submission_fee_upokt=fee)

    async def _built(self, session: TrackedSession, block: Block) -> Message | None:
        """Build the proof message, or return None if it cannot be sent now.

        A failure concerns only its session.
        """
        try:
            return await self._build(session, block)
        except (PocketError, OSError, sqlite3.Error, KeyError, ValueError) as error:
            if corruption_in(error) is not None:
                raise
            session.details.proof_problem = str(error)[:300]
            miner_metrics.ERRORS.labels("trie").inc()
            _LOG.error("building the proof of a session failed, retrying", session=session.session_id, error=error)
            return None

    async def _build(self, session: TrackedSession, block: Block) -> Message | None:
        """Build the proof message.

        Returns None if the leaves on the volume do not have the sealed root.
        """
        windows = session.windows
        if windows is None or session.seal is None:
            return None
        # A proof for a wrong hash is found invalid, and replaced while the window is open.
        seed, _ = await self._seeds().hash_of(windows.proof_seed, block.height)
        before = session.proof_message
        if before is not None and before[0] == seed:
            # The chain found this very proof invalid: sending it again would only cost the submission fee.
            return None if _invalid(session) and session.proof.sent is not None else before[1]
        path = proof_path(seed, session.session_id)
        root, proof = await self._proof(session, path, session.seal.root)
        if root != session.seal.root:
            session.details.proof_problem = "the stored leaves have another root than the seal"
            miner_metrics.PROOFS.labels("root_mismatch").inc()
            _LOG.error("proof not built, the leaves have another root than the seal", session=session.session_id)
            return None
        message = submit_proof_message(self.supplier, session.header, proof)
        session.proof_message = (seed, message)
        return message

    async def _proof(self, session: TrackedSession, path: bytes, sealed: bytes) -> tuple[bytes, bytes]:
        """Return root and proof of the sealed leaves.

        They come from the volume, or from a copy if the volume does not have these. Raises the errors of the trie pool
        and of copying.
        """
        session_id = session.session_id
        try:
            root, proof = await self.pool.proof(
                self.relay_store.path(session.end), self.supplier, session_id, path, sealed
            )
            if root == sealed or self.copies is None:
                return root, proof
        except UNREADABLE as error:
            if corruption_in(error) is not None or self.copies is None:
                raise
            _LOG.error("the leaves of a session cannot be read from the volume", session=session_id, error=error)
        async with self.copies.of(session, root=sealed, nearest=path) as copy:
            return await self.pool.proof(copy, self.supplier, session_id, path, sealed)
