"""The sessions of one supplier as the owner knows them."""

from dataclasses import dataclass, field

from ledger.seals import Seal
from miner.gate import Terms
from shannon.claims.requirement import ProofRequirement
from shannon.relays.messages import SessionHeader
from shannon.relays.wire import HEADER, decode
from shannon.sessions.grid import SharedParams, Windows

RESEND_BLOCKS = 2


def due(sent_at: int | None, height: int) -> bool:
    """Whether it is sent (again) at this height: what was sent has two blocks to get into one."""
    return sent_at is None or height >= sent_at + RESEND_BLOCKS


def header_of(raw: bytes) -> SessionHeader:
    """Session header from its canonical bytes; raises DecodingError."""
    fields = decode(HEADER, raw)

    def text(name: str) -> str:
        value: bytes = fields.get(name, b"")
        return value.decode("utf-8", "surrogateescape")

    return SessionHeader(
        text("application_address"), text("service_id"), text("session_id"),
        fields.get("session_start_block_height", 0), fields.get("session_end_block_height", 0),
    )  # fmt: skip


@dataclass(slots=True)
class TrackedSession:
    """One unfinished session; terms are None until the chain has confirmed the header."""

    header: SessionHeader
    position: str = "0-0"
    incarnation: str = ""
    terms: Terms | None = None
    params: SharedParams | None = None
    refused: str = ""
    seal: Seal | None = None
    requirement: ProofRequirement | None = None
    lost: str = ""
    claimed_root: bytes = b""  # of the claim on chain, as last seen
    proven: bool = False  # the chain has a valid proof
    claim_seen: bool = False
    proof_seen: bool = False
    behind: bool = False  # the last read did not reach the end
    claim_sent: int | None = None  # height of the last sending
    proof_sent: int | None = None
    foreign: bool = False  # the claim on chain is of nobody that we know
    details: dict[str, object] = field(default_factory=dict)

    @property
    def windows(self) -> Windows | None:
        """Windows by the params at the session's start; None while unknown."""
        return None if self.params is None else self.params.windows(self.header.session_start_block_height)

    @property
    def end(self) -> int:
        """Session end height."""
        return self.header.session_end_block_height
