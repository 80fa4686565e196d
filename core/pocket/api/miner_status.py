"""Define the miner's status API.

It has typed, bounded pages of what a miner mines, has earned and has lost. Heights are in blocks, amounts in upokt,
times in RFC 3339 by the chain's clock. Readers ignore fields that they do not know, so that versions may differ. No
page holds a key or a credential.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from pocket.api.problems import Problem

PAGE_LIMIT: Final = 500
"""The largest number of rows in a page."""
STATE_PATH: Final = "/status/state"
SESSIONS_PATH: Final = "/status/sessions"
OUTCOMES_PATH: Final = "/status/outcomes"
OPERATOR_READER: Final = "operator"
"""The `reader` of outcomes that counts them for good. A miner that stops waits until it has the last ones."""
SUPPLIERS_PATH: Final = "/status/suppliers"
SESSION_PATH: Final = "/status/session"


class StatusModel(BaseModel):
    """Base of the models."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class NodeState(StatusModel):
    """The assessment of one chain node."""

    health: str
    lag_blocks: int = 0
    reason: str = ""


class VolumeState(StatusModel):
    """The volume of a miner. Sizes are in bytes, 0 before they are measured."""

    total: int = 0
    free: int = 0
    reserved: int = 0
    read_only: bool = False
    problem: str = ""


class RedisState(StatusModel):
    """Redis as a miner sees it. `max_memory` is 0 without a limit."""

    problem: str = ""
    used_memory: int = 0
    max_memory: int = 0


class ChainNote(StatusModel):
    """A finding about chain nodes, gas price or clock."""

    reason: str
    text: str


class MinerState(StatusModel):
    """The state of one miner.

    `relay_miner` is `<namespace>/<name>`. `shards` are the owned shards with their epochs, out of `shard_count`.
    `sessions` counts open sessions by stage. `last_outcome` is the number of the newest outcome, 0 without any.
    `block_age_seconds` is the time since the last block arrived.
    """

    relay_miner: str
    member: str = ""
    version: str = ""
    phase: str
    leader: bool = False
    members: tuple[str, ...] = ()
    shards: Mapping[int, int] = {}
    shard_count: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)
    block_time: str = ""
    block_seconds: float = Field(default=0.0, ge=0)
    block_age_seconds: float = 0.0
    suppliers: tuple[str, ...] = ()
    owned: tuple[str, ...] = ()
    sessions: Mapping[str, int] = {}
    last_outcome: int = Field(default=0, ge=0)
    problems: tuple[Problem, ...] = ()
    chain: tuple[ChainNote, ...] = ()
    nodes: Mapping[str, NodeState] = {}
    redis: RedisState = RedisState()
    volume: VolumeState = VolumeState()


class SessionWindows(StatusModel):
    """The heights at which a session's windows open and close."""

    grace_end: int
    claim_open: int
    claim_close: int
    proof_open: int
    proof_close: int


class OpenSession(StatusModel):
    """A session that is not settled yet.

    `value_upokt` is what its relays are worth so far, `earning_upokt` the expected part of the supplier's side, and
    `cost_upokt` the expected fees and cost of a proof. They are None while unknown. `owes` is the next message that
    must be on chain, `claim` or `proof`, and `due` the last block for it. `claimed_height` and `proven_height` are the
    heights at which the miner saw them on chain. `problem` is what may cost the session, and `skipped` the reason why
    it is not worth a claim.
    """

    supplier: str
    session_id: str
    service_id: str
    application: str
    start: int
    end: int
    stage: str
    windows: SessionWindows | None = None
    relays: int = Field(default=0, ge=0)
    compute_units: int = Field(default=0, ge=0)
    value_upokt: int | None = None
    earning_upokt: int | None = None
    cost_upokt: int | None = None
    sealed_height: int | None = None
    claimed_height: int | None = None
    proven_height: int | None = None
    proof_required: bool | None = None
    owes: str = ""
    due: int | None = None
    closing: bool = False
    problem: str = ""
    skipped: str = ""


class SessionPage(StatusModel):
    """A page of open sessions, ordered by supplier and session id.

    `next` continues after it and is empty at the end.
    """

    height: int
    rows: tuple[OpenSession, ...] = ()
    next: str = ""


class EndedSession(StatusModel):
    """A session with its outcome.

    `time` is empty for outcomes that were recorded without it.
    """

    number: int = Field(ge=0)
    supplier: str
    session_id: str
    outcome: str
    stage: str = ""
    reason: str = ""
    height: int
    time: str = ""
    service_id: str = ""
    application: str = ""
    start: int | None = None
    end: int | None = None
    windows: SessionWindows | None = None
    relays: int = 0
    compute_units: int = 0
    claimed_upokt: int = 0
    settled_upokt: int = 0
    earned_upokt: int = 0
    expected_earnings_upokt: int | None = None
    fees_upokt: int = 0
    earned_by: Mapping[str, int] = {}
    paid: bool = False
    lost: bool = False


class OutcomePage(StatusModel):
    """A page of outcomes in the order in which they were recorded.

    `next` is the number after which to continue. `more` is True if there are later ones. `first` is the number of the
    oldest one that the miner retains.
    """

    rows: tuple[EndedSession, ...] = ()
    next: int = 0
    more: bool = False
    first: int = 0


class DayTotals(StatusModel):
    """What the sessions that ended on one day brought, by the chain's clock (UTC)."""

    sessions: int = 0
    settled: int = 0
    lost: int = 0
    relays: int = 0
    claimed_upokt: int = 0
    lost_upokt: int = 0
    fees_upokt: int = 0
    earned_by: Mapping[str, int] = {}
    lost_by: Mapping[str, int] = {}

    @property
    def earned_upokt(self) -> int:
        """Return the upokt that reached the supplier's side."""
        return sum(self.earned_by.values())


class MinedSupplier(StatusModel):
    """One supplier as a miner knows it. `days` are the newest days, by date."""

    address: str
    owned: bool = False
    shard: int = 0
    open: int = 0
    closing: int = 0
    sessions: Mapping[str, int] = {}
    last: Mapping[str, str] = {}
    earned_by: Mapping[str, int] = {}
    lost_recently: int = 0
    staked: bool | None = None
    stake_upokt: int | None = None
    services: tuple[str, ...] = ()
    unstaking_at: int = 0
    endpoint_problems: tuple[str, ...] = ()
    balance_upokt: int | None = None
    public_key_on_chain: bool | None = None
    days: Mapping[str, DayTotals] = {}


class SupplierPage(StatusModel):
    """A page of suppliers, ordered by address.

    `next` continues after it and is empty at the end.
    """

    rows: tuple[MinedSupplier, ...] = ()
    next: str = ""


class Explanation(StatusModel):
    """Everything that one miner knows about a session.

    It has rows of (label, text), and the transactions by kind.
    """

    supplier: str
    session_id: str
    open: OpenSession | None = None
    ended: EndedSession | None = None
    facts: tuple[tuple[str, str], ...] = ()
    transactions: tuple[tuple[str, str], ...] = ()
