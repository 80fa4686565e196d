"""What a miner tells of its suppliers: the operator shows it in their status, people read it at /report."""

import logging
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocket.api.status import MOST_RECIPIENTS
from pocket.chain.model import ServiceConfig, StakedSupplier
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.session_id import config_active
from pocket_miner import miner_metrics
from pocket_miner.sessions.recipients import added
from pocket_miner.sessions.stages import Stage
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.corruption import damage_of

_LOG = logging.getLogger("pocket_miner.status.report")
_GROUPS = {
    Stage.ACTIVE: "active", Stage.GRACE: "active", Stage.CLAIMABLE: "claimable", Stage.SEALED: "claimable",
    Stage.CLAIMED: "claimed", Stage.PROOFABLE: "claimed", Stage.PROVED: "proved",
}  # fmt: skip
_LOST = frozenset({"claim_missed", "claim_lost", "proof_missed", "proof_invalid", "expired", "forfeited"})


def _mark(session_id: str, height: int) -> str:
    return f"{session_id[:16]} at {height}"


@dataclass(slots=True)
class SupplierReport:
    """One supplier: sessions by where they are, the last of each event, what was paid.

    `open` counts every session that has no outcome, also those of which the chain has not told yet where they are.
    `closing` counts those that owe a claim or proof in the last third of its window.
    `earned_by` is what reached operator, owner and shareholders, by address, upokt.
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
    _stages: dict[str, str] = field(default_factory=dict)
    _history: tuple[ServiceConfig, ...] = ()

    @property
    def earned_upokt(self) -> int:
        """What reached the supplier's side by all settled sessions."""
        return sum(self.earned_by.values())

    def saw(self, stages: Mapping[str, str], height: int) -> None:
        """The stages of open sessions at a height; a session that moved on is an event."""
        for session_id, stage in stages.items():
            before = self._stages.get(session_id)
            if stage == before:
                continue
            if stage == Stage.CLAIMED:
                self.last["claim"] = _mark(session_id, height)
            elif stage == Stage.PROVED:
                self.last["proof"] = _mark(session_id, height)
        self._stages = dict(stages)
        self.sessions = Counter(_GROUPS[Stage(stage)] for stage in stages.values() if Stage(stage) in _GROUPS)

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """An outcome of the audit trail."""
        details = outcome.get("details") or {}
        self.earned_by = added(self.earned_by, _amounts(details.get("earned_by")), MOST_RECIPIENTS)
        mark = _mark(str(outcome.get("session_id", "")), int(outcome.get("height", 0)))
        if outcome.get("outcome") == "settled":
            self.last["settlement"] = mark
            self.lost_recently = 0
        elif outcome.get("outcome") in _LOST:
            self.last["loss"] = f"{mark}: {outcome.get('outcome')}: {outcome.get('reason', '')}"
            self.lost_recently += 1

    def resume(self, kept: Mapping[str, Any]) -> None:
        """Restore what `kept` had saved of outcomes; older versions kept no recipients, but all that was minted."""
        self.earned_by = _amounts(kept.get("earned_by"))
        self.lost_recently = int(kept.get("lost_recently", 0))
        self.last = {str(event): str(mark) for event, mark in dict(kept.get("last", {})).items()}

    def kept(self) -> dict[str, Any]:
        """What outcomes come to."""
        last = {event: mark for event, mark in self.last.items() if event in ("settlement", "loss")}
        return {"earned_by": dict(self.earned_by), "lost_recently": self.lost_recently, "last": last}

    def shareholders(self, header: SessionHeader) -> frozenset[str]:
        """Return the addresses that share the revenue of a session, as far as the chain was asked for the supplier."""
        heights = (header.session_start_block_height, header.session_end_block_height)
        configs = [row for row in self._history if row.service_id == header.service_id]
        active = [
            row for row in configs
            if any(config_active(row.activation_height, row.deactivation_height, height) for height in heights)
        ]  # fmt: skip
        return frozenset(address for row in active or configs for address, _ in row.revenue_share)

    def knows(self, supplier: StakedSupplier | None) -> None:
        """What the chain says; None: it is not staked."""
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

    def funded(self, balance_upokt: int, *, public_key: bool) -> None:
        """What the supplier's account has: for fees, and for whoever verifies its answers."""
        self.balance_upokt = balance_upokt
        self.public_key_on_chain = public_key

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "open": self.open, "closing": self.closing, "sessions": dict(self.sessions), "last": dict(self.last),
            "earned_upokt": self.earned_upokt, "earned_by": dict(self.earned_by), "lost_recently": self.lost_recently,
            "staked": self.staked, "stake": self.stake, "transports": self.transports,
            "endpoint_problems": self.endpoint_problems,
            "balance_upokt": self.balance_upokt, "public_key_on_chain": self.public_key_on_chain,
        }  # fmt: skip


def _amounts(told: object) -> dict[str, int]:
    """Return amounts by address out of stored JSON; anything else is left out."""
    rows = told.items() if isinstance(told, Mapping) else ()
    return {str(address): upokt for address, upokt in rows if isinstance(upokt, int)}


def _figures(audit: Audit) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Return what the outcomes up to a number come to, by address, and what is wrong with the trail."""
    number, suppliers = audit.summary()
    reports: dict[str, SupplierReport] = {}
    for address, kept in suppliers.items():
        reports.setdefault(address, SupplierReport()).resume(kept)
    outcomes, problem, last = audit.after(number)
    for outcome in outcomes:
        reports.setdefault(str(outcome["supplier"]), SupplierReport()).ended(outcome)
    return last, {address: report.kept() for address, report in reports.items()}, problem


class Reports:
    """Reports of all suppliers; figures of earlier lives come from the audit trail."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._by_address: dict[str, SupplierReport] = {}
        self._known = False
        self._learn()

    def _learn(self) -> None:
        """Take up the figures of earlier lives. A volume that cannot be read is asked again by `keep`."""
        try:
            _, found, problem = _figures(self._audit)
        except sqlite3.Error as error:
            if damage_of(error) is not None:
                raise
            miner_metrics.ERRORS.labels("volume").inc()
            _LOG.warning("the figures of earlier sessions cannot be read: %s", error)
            return
        for address, kept in found.items():
            self.of(address).resume(kept)
        self._known = True
        if problem:
            # Whoever altered what is over must not keep what is open from being paid.
            _LOG.error("%s: see `relayctl ledger verify`", problem)

    def keep(self) -> None:
        """Keep the figures, so that they outlive the outcomes and a start does not read all of them.

        They are those of the audit trail alone: what is recorded meanwhile is in the next ones. Raises sqlite3.Error.
        """
        if not self._known:
            self._learn()
        number, found, _ = _figures(self._audit)
        self._audit.keep_summary(number, found)

    def of(self, address: str) -> SupplierReport:
        """The report of one supplier."""
        return self._by_address.setdefault(address, SupplierReport())

    def rows(self) -> dict[str, Any]:
        """As JSON, by address."""
        return {address: report.row() for address, report in sorted(self._by_address.items())}
