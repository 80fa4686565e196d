"""Proofs of one supplier: which are required, built from the sealed set, sent in batches."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from ledger.seals import SealStore
from miner import metrics
from miner.fees import FeeBook
from miner.mirror import Mirror
from miner.sender import Sender, SendError, in_packs
from miner.sessions import TrackedSession, due
from miner.trie_pool import TriePool
from shannon.chain.client import ChainClient
from shannon.chain.feed import BlockSource
from shannon.chain.model import Block
from shannon.claims.amounts import Price, claimed_upokt
from shannon.claims.requirement import Claim, ProofParams, ProofRequirement, proof_path, proof_requirement
from shannon.errors import ChainError
from shannon.smst.digest import Root
from shannon.transactions.build import Message, submit_proof_message
from shannon.transactions.refusals import Refusal
from shannon.transactions.sizes import MAX_TRANSACTION_BYTES

_LOG = logging.getLogger("miner.proofs")
_Built = tuple[TrackedSession, Message]


def requirement_of(
    supplier: str, session: TrackedSession, seed_hash: bytes, params: ProofParams
) -> ProofRequirement | None:
    """The chain's decision, computed with claim status 0; None while a fact is missing."""
    if session.seal is None or session.terms is None or session.params is None:
        return None
    claim = Claim(supplier, session.header, session.seal.root)
    amount = claimed_upokt(Root(session.seal.root), session.terms.target_hash, Price.of(session.params))
    return proof_requirement(claim, amount, seed_hash, params)


@dataclass(slots=True)
class ProofDesk:
    """Builds and sends the proofs of one supplier."""

    supplier: str
    chain: ChainClient
    blocks: BlockSource
    mirror: Mirror
    pool: TriePool
    sender: Sender
    fees: FeeBook
    store: SealStore
    max_transaction_bytes: int = MAX_TRANSACTION_BYTES
    _seeds: dict[int, bytes] = field(default_factory=dict)

    async def seed_hash(self, height: int) -> bytes:
        """Hash of the block before the proof window; raises ChainError while it is unknown."""
        if height not in self._seeds:
            self._seeds[height] = await self._hash(height)
            for old in [h for h in self._seeds if h < height - 1000]:
                del self._seeds[old]
        return self._seeds[height]

    async def _hash(self, height: int) -> bytes:
        """From either interface of the nodes: without it nothing can be proven."""
        try:
            return (await self.blocks.block(height)).hash
        except ChainError:
            return (await self.chain.block(height)).hash

    async def decide(self, session: TrackedSession, params: ProofParams) -> None:
        """Sets the session's requirement once its seed block exists."""
        if session.requirement is not None or session.windows is None:
            return
        try:
            seed = await self.seed_hash(session.windows.proof_seed)
        except ChainError:
            return
        session.requirement = requirement_of(self.supplier, session, seed, params)
        if session.requirement is not None:
            required = session.requirement is not ProofRequirement.NOT_REQUIRED
            metrics.REQUIREMENTS.labels("yes" if required else "no").inc()

    async def prove(self, sessions: Sequence[TrackedSession], block: Block, params: ProofParams) -> None:
        """Sends the proofs of sessions with one end height, in as many transactions as their size takes.

        A bad one does not take the others with it. Raises the first error when all have been tried.
        """
        built: list[_Built] = []
        for session in (s for s in sessions if due(s.proof_sent, block.height)):
            message = await self._build(session)
            if message is not None:
                built.append((session, message))
        await in_packs(
            built, lambda row: row[1], self.max_transaction_bytes, lambda pack: self._send(pack, block, params)
        )

    async def _send(self, built: list[_Built], block: Block, params: ProofParams) -> None:
        """One transaction; what the chain says can never succeed is left out of it. Raises SendError."""
        windows = built[0][0].windows
        close = windows.proof_close if windows else block.height + 2
        sifted = await self.sender.sift([message for _, message in built], block, close)
        for position, error in sifted.refused.items():
            session, _ = built[position]
            if error.refusal is Refusal.NOT_REQUIRED:
                session.requirement = ProofRequirement.NOT_REQUIRED
            session.details["proof_refusal"] = str(error)[:300]
            metrics.PROOFS.labels(error.refusal.name.lower()).inc()
        if sifted.prepared is None:
            return
        raw = sifted.prepared.signed.raw
        built = [row for position, row in enumerate(built) if position not in sifted.refused]
        for session, _ in built:
            session.proof_sent = block.height
        try:
            result = await self.sender.broadcast(raw)
        except SendError as error:
            metrics.PROOFS.labels(error.refusal.name.lower()).inc(len(built))
            for session, _ in built:
                session.proof_sent = None
            raise
        metrics.PROOFS.labels("sent").inc(len(built))
        for session, _ in built:
            session.details.pop("proof_refusal", None)
        await self.fees.sent(self.store, raw, params.proof_submission_fee_upokt)
        _LOG.info(
            "proofs sent", extra={"fields": {"supplier": self.supplier, "session_end": built[0][0].end,
                                             "proofs": len(built), "tx": result.tx_hash, "height": block.height}}
        )  # fmt: skip

    async def _build(self, session: TrackedSession) -> Message | None:
        """The proof message; None when the mirror's root is not the sealed one (never a fabricated proof)."""
        windows = session.windows
        if windows is None or session.seal is None:
            return None
        path = proof_path(await self.seed_hash(windows.proof_seed), session.header.session_id)
        root, proof = await self.pool.proof(
            self.mirror.path(session.end), self.supplier, session.header.session_id, path
        )
        if root != session.seal.root:
            session.details["proof_problem"] = "the mirrored leaves have another root than the seal"
            metrics.PROOFS.labels("root_mismatch").inc()
            _LOG.error(
                "the mirrored leaves have another root than the seal",
                extra={"fields": {"supplier": self.supplier, "session": session.header.session_id}},
            )
            return None
        return submit_proof_message(self.supplier, session.header, proof)
