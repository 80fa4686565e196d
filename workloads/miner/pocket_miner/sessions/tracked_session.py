"""The state of an unfinished session as its owner knows it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pocket.errors import DecodingError
from pocket.protocol.claims.proof_requirement import VALIDATED, Claim, ProofRequirement
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.relays.wire import HEADER, decode
from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket.protocol.transactions.build import Message
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.evidence import REJECTIONS, Evidence
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.session_details import SessionDetails
from pocket_miner.sessions.stages import is_late_to_seal
from pocket_miner.sessions.submission import Delivery

_FARTHEST_HEIGHT: Final = 2**53  # heights are transported as JSON numbers
_LONGEST_SESSION: Final = 100_000  # blocks
_MAX_PEER_SEALS: Final = 4  # of one session: the roots of each are computed


def header_of(raw: bytes) -> SessionHeader:
    """Decode a session header from its canonical bytes.

    Raises DecodingError.
    """
    fields = decode(HEADER, raw)

    def text(name: str) -> str:
        value: bytes = fields.get(name, b"")
        return value.decode("utf-8", "surrogateescape")

    header = SessionHeader(
        text("application_address"), text("service_id"), text("session_id"),
        fields.get("session_start_block_height", 0), fields.get("session_end_block_height", 0),
    )  # fmt: skip
    start, end = header.session_start_block_height, header.session_end_block_height
    if not 0 < start <= end <= _FARTHEST_HEIGHT or end - start > _LONGEST_SESSION:
        raise DecodingError(f"a session cannot reach from block {start} to {end}")
    if not header.session_id.isprintable() or not header.session_id.isascii():
        raise DecodingError("the session id is not printable ASCII")
    return header


class Skip(StrEnum):
    """The reason not to claim a session.

    It is decided again at every block of the claim window.
    """

    EMPTY = "empty"
    UNPROFITABLE = "unprofitable"
    UNITS_MISMATCH = "compute_units_mismatch"


@dataclass(slots=True)
class TrackedSession:
    """One unfinished session.

    Terms are None until the chain has confirmed the header.
    """

    header: SessionHeader
    position: str = "0-0"
    origin: str = ""  # of `position`
    terms: LeafTerms | None = None
    terms_confirmed: bool = False  # a second answer agreed
    doubted_terms: LeafTerms | None = None  # what a second answer stated instead
    params: SharedParams | None = None
    params_confirmed: bool = False  # a second answer agreed, so that windows and price are certain
    evidence: Evidence = field(default_factory=Evidence)
    seal: SessionSeal | None = None
    other_seals: list[SessionSeal] = field(default_factory=list)
    """Seals of other owners, made while they could not see this one, or stated by peers.

    The claim on chain decides which one counts. Without `seal`, one counts if the relays here have its root.
    """
    signed_roots: set[bytes] = field(default_factory=set)
    """Roots of `other_seals` for which a peer has a claim that was signed with the supplier's key."""
    skip: Skip | None = None
    requirement: ProofRequirement | None = None
    claim_on_chain: Claim | None = None  # as last seen
    claim_seen_at: int = 0  # height at which it was last seen, 0: never
    claim_confirmed: bool = False  # two nodes returned it, or one at two heights
    measured: set[str] = field(default_factory=set)  # metrics already counted for this session
    first_seen: dict[str, int] = field(default_factory=dict)
    """Height at which this owner first saw the "claim" and the "proof" on chain."""
    behind: bool = False  # the last read did not reach the end of the stream
    claim: Delivery = field(default_factory=Delivery)
    proof: Delivery = field(default_factory=Delivery)
    sample: tuple[bytes, float] | None = None  # seed hash, and the sample drawn with it
    proof_message: tuple[bytes, Message] | None = None  # seed hash, and the message built with it
    largest_relay: int = 0  # bytes, 0 while not needed
    conflicting: bool = False  # the claim on chain has a root that is not ours
    details: SessionDetails = field(default_factory=SessionDetails)

    @property
    def session_id(self) -> str:
        """Return the session id."""
        return self.header.session_id

    @property
    def windows(self) -> Windows | None:
        """Return the windows by the params at the session's start, None while unknown."""
        return None if self.params is None else self.params.windows(self.header.session_start_block_height)

    @property
    def end(self) -> int:
        """Return the session end height."""
        return self.header.session_end_block_height

    def must_be_sealed(self, height: int) -> bool:
        """Return True if the session is not sealed and its claim window closes soon."""
        windows = self.windows if self.seal is None else None
        return windows is not None and height <= windows.claim_close and is_late_to_seal(windows, height)

    def meet_seal(self, seal: SessionSeal, *, from_redis: bool) -> None:
        """Take a seal that Redis holds or a peer states.

        Redis accepts one seal only, so its seal replaces one that was made without Redis, unless the claim of that one
        is on chain or was sent by this process. Only some of those that peers state are kept.
        """
        known = [other.root for other in self.other_seals] + ([] if self.seal is None else [self.seal.root])
        if from_redis and self.seal is None:
            self.seal = seal
        elif seal.root not in known and (from_redis or len(known) < _MAX_PEER_SEALS):
            self.other_seals.append(seal)
            if from_redis and self.seal and self.claim.sent is None and self.claimed_root != self.seal.root:
                self.use_seal_of(seal.root)

    def use_seal_of(self, root: bytes) -> bool:
        """Use the known seal with this root. Returns True if there is one."""
        chosen = next((seal for seal in self.other_seals if seal.root == root), None)
        if chosen is None or self.seal is None:
            return False
        self.other_seals.remove(chosen)
        self.other_seals.append(self.seal)
        self.seal, self.claim, self.proof = chosen, Delivery(), Delivery()
        self.requirement = self.sample = self.proof_message = None
        return True

    @property
    def rejected(self) -> bool:
        """Return True if an uncontradicted answer forbids to claim the session."""
        return self.terms is None and any(self.evidence.of(fact) for fact in REJECTIONS)

    @property
    def claimed_root(self) -> bytes:
        """Return the root of the claim on chain as last seen, empty without one."""
        return self.claim_on_chain.root_hash if self.claim_on_chain is not None else b""

    @property
    def proven(self) -> bool:
        """Return True if the chain had a valid proof when last seen."""
        return self.claim_on_chain is not None and self.claim_on_chain.proof_validation_status == VALIDATED
