"""Decide whether a claim needs a proof, and for which path.

Sources: docs/protocol/claims-and-proofs.md, section 4, and docs/protocol/smst.md, section 3.
"""

import enum
import hashlib
from dataclasses import dataclass
from typing import Final

from pocket.protocol.claims.go_rand import first_float64, varint_seed
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.relays.wire import bytes_field, int_field

VALIDATED: Final = 1
INVALID: Final = 2
"""Proof status of a claim on chain. 0 means pending."""


class ProofRequirement(enum.IntEnum):
    """The chain's reasons."""

    NOT_REQUIRED = 0
    PROBABILISTIC = 1
    THRESHOLD = 2


@dataclass(frozen=True, slots=True)
class ProofParams:
    """The proof module's parameters, with amounts in upokt."""

    proof_request_probability: float = 0.25
    proof_requirement_threshold_upokt: int = 20_000_000
    proof_missing_penalty_upokt: int = 320_000_000
    proof_submission_fee_upokt: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as the chain stores it.

    The status is 0 (pending), 1 (validated) or 2 (invalid).
    """

    supplier_operator_address: str
    header: SessionHeader
    root_hash: bytes
    proof_validation_status: int = 0

    def encode(self) -> bytes:
        """Return the canonical bytes.

        The requirement hashes them with status 0 for a first proof.
        """
        return (
            bytes_field(1, self.supplier_operator_address.encode())
            + bytes_field(2, self.header.encode())
            + bytes_field(3, self.root_hash)
            + int_field(4, self.proof_validation_status)
        )


def requirement_sample(claim: Claim, seed_block_hash: bytes) -> float:
    """Return the pseudo-random sample in [0, 1] of a claim."""
    claim_hash = hashlib.sha256(claim.encode()).digest()
    return first_float64(varint_seed(hashlib.sha256(claim_hash + seed_block_hash).digest()))


def proof_requirement(
    claim: Claim, claimed_upokt: int, seed_block_hash: bytes, params: ProofParams
) -> ProofRequirement:
    """Return why the claim needs a proof, or that it needs none.

    `seed_block_hash` is the hash of block proof window open − 1.
    """
    return requirement_by(requirement_sample(claim, seed_block_hash), claimed_upokt, params)


def requirement_by(sample: float, claimed_upokt: int, params: ProofParams) -> ProofRequirement:
    """Return the requirement of a claim whose sample is known.

    The params may change until the proof window closes.
    """
    if claimed_upokt >= params.proof_requirement_threshold_upokt:
        return ProofRequirement.THRESHOLD
    drawn = sample <= params.proof_request_probability
    return ProofRequirement.PROBABILISTIC if drawn else ProofRequirement.NOT_REQUIRED


def proof_path(seed_block_hash: bytes, session_id: str) -> bytes:
    """Return the 32-byte path that must be proven."""
    return hashlib.sha256(seed_block_hash + session_id.encode("utf-8", "surrogateescape")).digest()
