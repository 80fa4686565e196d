"""Report the state of suppliers at /report.

The operator shows it in their status.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.miner_status import DayTotals
from pocket.api.recipients import added
from pocket.api.status import MOST_RECIPIENTS
from pocket.chain.model import ServiceConfig, StakedSupplier
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.session_id import config_active
from pocket_miner import miner_metrics
from pocket_miner.sessions.deadlines import Deadline
from pocket_miner.sessions.stages import Stage
from pocket_miner.status.history import (
    amounts,
    fees_by_day,
    fees_per_day_upokt,
    newest_day,
    restored_days,
    with_outcome,
)
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import corruption_in
from pocket_miner.storage.outcomes import LOSSES, SessionOutcome

_LOG: FilteringBoundLogger = structlog.get_logger()
_GROUPS = {
    Stage.ACTIVE: "active", Stage.GRACE: "active", Stage.CLAIMABLE: "claimable", Stage.SEALED: "claimable",
    Stage.CLAIMED: "claimed", Stage.PROOFABLE: "claimed", Stage.PROVEN: "proven",
    Stage.PROOF_NOT_REQUIRED: "proof_not_required",
}  # fmt: skip


def _mark(session_id: str, height: int) -> str:
    return f"{session_id[:16]} at {height}"


@dataclass(slots=True)
class SupplierReport:
    """Sessions by stage, the last event of each kind and the earnings of one supplier.

    `open` counts every session without an outcome, including those whose stage is not known yet. `earned_by` holds the
    upokt that operator, owner and shareholders received, by address.
    `closing` counts the sessions that owe a claim or proof in the last third of its window. `deadline` is the next
    close of a window by which a claim or proof must be on chain.
    """

    open: int = 0
    closing: int = 0
    sessions: Counter[str] = field(default_factory=Counter)
    last: dict[str, str] = field(default_factory=dict)
    earned_by: dict[str, int] = field(default_factory=dict)
    lost_recently: int = 0
    staked: bool | None = None
    stake: dict[str, Any] | None = None
    transports: dict[str, list[int]] = field(default_factory=dict)
    urls: list[str] = field(default_factory=list)
    endpoint_problems: list[str] = field(default_factory=list)
    balance_upokt: int | None = None
    public_key_on_chain: bool | None = None
    deadline: Deadline | None = None
    days: dict[str, DayTotals] = field(default_factory=dict)
    """Totals of the newest days, by date."""
    _stages: dict[str, str] = field(default_factory=dict)
    _history: tuple[ServiceConfig, ...] = ()

    @property
    def earned_upokt(self) -> int:
        """Return the upokt that the supplier's side received from all settled sessions."""
        return sum(self.earned_by.values())

    def stage(self, session_id: str) -> str:
        """Return the stage of an open session at the latest decision.

        The result is empty before the first one.
        """
        return self._stages.get(session_id, "")

    def record_stages(
        self, stages: Mapping[str, str], height: int, closing: int, deadline: Deadline | None = None
    ) -> None:
        """Record the stages of open sessions at a height, and what is due.

        `closing` is the number of those that are due soon, `deadline` the next one. A change of stage is an event.
        """
        self.closing, self.deadline = closing, deadline
        for session_id, stage in stages.items():
            before = self._stages.get(session_id)
            if stage == before:
                continue
            if stage == Stage.CLAIMED:
                self.last["claim"] = _mark(session_id, height)
            elif stage == Stage.PROVEN:
                self.last["proof"] = _mark(session_id, height)
        self._stages = dict(stages)
        self.sessions = Counter(_GROUPS[Stage(stage)] for stage in stages.values() if Stage(stage) in _GROUPS)

    def record_outcome(self, outcome: Mapping[str, Any]) -> None:
        """Record an outcome of the audit trail."""
        details = outcome.get("details") or {}
        self.earned_by = added(self.earned_by, amounts(details.get("earned_by")), MOST_RECIPIENTS)
        mark = _mark(str(outcome.get("session_id", "")), int(outcome.get("height", 0)))
        if outcome.get("outcome") == SessionOutcome.SETTLED:
            self.last["settlement"] = mark
            self.lost_recently = 0
        elif outcome.get("outcome") in LOSSES:
            self.last["loss"] = f"{mark}: {outcome.get('outcome')}: {outcome.get('reason', '')}"
            self.lost_recently += 1
        self.days = with_outcome(self.days, outcome)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore the totals that `to_dict` returned.

        Older versions saved no recipients but only the minted amount, which is ignored.
        """
        self.earned_by = amounts(saved.get("earned_by"))
        self.lost_recently = int(saved.get("lost_recently", 0))
        self.last = {str(event): str(mark) for event, mark in dict(saved.get("last", {})).items()}
        self.days = restored_days(saved.get("days"))

    def to_dict(self) -> dict[str, Any]:
        """Return the totals of outcomes as JSON, to be saved."""
        last = {event: mark for event, mark in self.last.items() if event in ("settlement", "loss")}
        days = {day: totals.model_dump(exclude_defaults=True) for day, totals in self.days.items()}
        return {"earned_by": dict(self.earned_by), "lost_recently": self.lost_recently, "last": last, "days": days}

    def shareholders(self, header: SessionHeader) -> frozenset[str]:
        """Return the addresses that share a session's revenue, by the known stake."""
        heights = (header.session_start_block_height, header.session_end_block_height)
        configs = [row for row in self._history if row.service_id == header.service_id]
        active = [
            row for row in configs
            if any(config_active(row.activation_height, row.deactivation_height, height) for height in heights)
        ]  # fmt: skip
        return frozenset(address for row in active or configs for address, _ in row.revenue_share)

    def record_stake(self, supplier: StakedSupplier | None) -> None:
        """Record the stake on chain, None if the supplier is not staked."""
        self.staked = supplier is not None
        if supplier is None:
            self.stake = None
            self.transports, self.urls = {}, []
            return
        self._history = supplier.history
        live = [config for config in supplier.history if not config.deactivation_height]
        self.urls = sorted({url for config in live for _, url in config.endpoints})
        self.transports = {config.service_id: sorted({kind for kind, _ in config.endpoints}) for config in live}
        self.stake = {
            "amount_upokt": supplier.stake_upokt,
            "services": sorted(supplier.service_ids),
            "unstake_session_end_height": supplier.unstake_session_end_height,
        }

    @property
    def keeps_stake(self) -> bool:
        """Return True if the supplier is staked and does not unstake."""
        return self.stake is not None and not self.stake["unstake_session_end_height"]

    def record_funds(self, balance_upokt: int, *, public_key: bool) -> None:
        """Record the balance for fees, and whether the public key is on chain.

        Gateways need the public key to verify responses.
        """
        self.balance_upokt = balance_upokt
        self.public_key_on_chain = public_key

    def row(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "open": self.open, "closing": self.closing, "sessions": dict(self.sessions), "last": dict(self.last),
            "earned_upokt": self.earned_upokt, "earned_by": dict(self.earned_by), "lost_recently": self.lost_recently,
            "staked": self.staked, "stake": self.stake, "transports": self.transports,
            "endpoint_problems": self.endpoint_problems,
            "balance_upokt": self.balance_upokt, "public_key_on_chain": self.public_key_on_chain,
            "deadline": None if self.deadline is None else asdict(self.deadline), "day": newest_day(self.days),
            "fees_per_day_upokt": fees_per_day_upokt(self.days), "fees_by_day": fees_by_day(self.days),
        }  # fmt: skip


def _totals(audit: Audit) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Return the last outcome's number, totals by address and any audit problem."""
    number, suppliers = audit.summary()
    reports: dict[str, SupplierReport] = {}
    for address, saved in suppliers.items():
        reports.setdefault(address, SupplierReport()).restore(saved)
    outcomes, problem, last = audit.after(number)
    for outcome in outcomes:
        reports.setdefault(str(outcome["supplier"]), SupplierReport()).record_outcome(outcome)
    return last, {address: report.to_dict() for address, report in reports.items()}, problem


class Reports:
    """The reports of all suppliers.

    Totals before a restart come from the audit trail.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._by_address: dict[str, SupplierReport] = {}
        self._loaded = False
        self._load()

    def _load(self) -> None:
        """Load the totals before the restart.

        If the volume cannot be read, `save` tries again.
        """
        try:
            self._audit.load_head()
            _, totals, problem = _totals(self._audit)
        except sqlite3.Error as error:
            if corruption_in(error) is not None:
                raise
            miner_metrics.ERRORS.labels("volume").inc()
            _LOG.warning("totals of ended sessions not read from the volume, retrying", error=error)
            return
        for address, saved in totals.items():
            self.of(address).restore(saved)
        self._loaded = True
        if problem:
            # An altered trail of ended sessions must not keep open ones from being paid.
            _LOG.error("audit trail damaged: run `relayctl ledger verify`", problem=problem)

    def save(self) -> None:
        """Save the totals of outcomes.

        They outlive the outcomes, and a start need not read all of these. They include only what is in the audit trail
        now. Raises sqlite3.Error.
        """
        if not self._loaded:
            self._load()
        number, totals, _ = _totals(self._audit)
        self._audit.save_summary(number, totals)

    def of(self, address: str) -> SupplierReport:
        """Return the report of one supplier."""
        return self._by_address.setdefault(address, SupplierReport())

    def rows(self) -> dict[str, Any]:
        """Return all reports as JSON, by address."""
        return {address: report.row() for address, report in sorted(self._by_address.items())}
