"""Define service level objectives.

They have recording rules of error ratios, and alerts on how fast these use up the budget. An alert needs a long and a
short window: the long one shows that it matters, the short one that it still goes on.
"""

from dataclasses import dataclass
from typing import Final

from pocket_operator.resources.context import Object

UNSERVED_REASONS: Final = (
    "backend_error", "backend_failed", "backend_missing", "backend_timeout", "backend_unhealthy", "chain_unavailable",
    "draining", "internal", "meter_unavailable", "not_recorded", "overloaded", "response_too_large",
    "signer_unavailable", "simulation_unavailable", "supplier_inactive", "supplier_not_found", "wrong_service",
)  # fmt: skip
"""Reasons of rejections that are not the client's fault: those with a status of 5xx."""
LOSSES: Final = ("claim_lost", "claim_missed", "expired", "forfeited", "proof_invalid", "proof_missed")
"""Outcomes of sessions whose relays are served but not paid."""


@dataclass(frozen=True, slots=True)
class BurnRate:
    """An alert on an objective.

    In both windows errors use up the budget `factor` times as fast as it allows.
    """

    name: str
    factor: float
    long: str
    short: str
    severity: str


@dataclass(frozen=True, slots=True)
class Objective:
    """A share of bad events that must not be exceeded over time.

    `bad` and `good` are PromQL with `{pods}` for the matcher of the RelayMiner's pods and `{window}`.
    """

    record: str
    budget: float
    bad: str
    good: str
    summary: str
    alerts: tuple[BurnRate, ...]


def _sum(family: str, matcher: str = "") -> str:
    return f"(sum(increase({family}{{{{{{pods}}{matcher}}}}}[{{window}}])) or vector(0))"


OBJECTIVES: Final = (
    Objective(
        "pocket:relays_unserved", 0.005,
        _sum("pocket_relayer_relays_rejected_total", f',reason=~"{"|".join(UNSERVED_REASONS)}"'),
        _sum("pocket_relayer_relays_served_total"), "Relays are not served, and not through the client's fault",
        (
            BurnRate("PocketServingBudgetBurnsFast", 14.4, "1h", "5m", "critical"),
            BurnRate("PocketServingBudgetBurns", 6, "6h", "30m", "warning"),
            BurnRate("PocketServingBudgetBurnsSlowly", 1, "3d", "6h", "warning"),
        ),
    ),
    Objective(
        "pocket:relays_unpaid", 0.001,
        f'({_sum("pocket_relayer_relays_not_recorded_total")} + {_sum("pocket_relayer_relays_unprovable_total")})',
        _sum("pocket_relayer_relays_mined_total"), "Relays are served but not recorded, so they are not paid",
        (
            BurnRate("PocketUnpaidRelaysBudgetBurnsFast", 14.4, "1h", "5m", "critical"),
            BurnRate("PocketUnpaidRelaysBudgetBurns", 6, "6h", "30m", "warning"),
        ),
    ),
    Objective(
        "pocket:sessions_unpaid", 0.001,
        _sum("pocket_miner_session_outcomes_total", f',outcome=~"{"|".join(LOSSES)}"'),
        _sum("pocket_miner_session_outcomes_total", ',outcome="settled"'),
        "Sessions are served but not paid",
        (
            BurnRate("PocketUnpaidSessionsBudgetBurnsFast", 6, "6h", "1h", "critical"),
            BurnRate("PocketUnpaidSessionsBudgetBurns", 1, "3d", "6h", "warning"),
        ),
    ),
)  # fmt: skip
"""The objectives of a RelayMiner: 99.5 % of relays served, 99.9 % of served relays and of sessions paid."""


def recording_rules(pods: str, labels: dict[str, str]) -> list[Object]:
    """Return the rules that record each objective's ratio over its windows."""
    rules = []
    for objective in OBJECTIVES:
        windows = {window for alert in objective.alerts for window in (alert.long, alert.short)}
        for window in sorted(windows):
            bad, good = (text.format(pods=pods, window=window) for text in (objective.bad, objective.good))
            row: Object = {
                "record": f"{objective.record}:ratio_increase{window}",
                "expr": f"{bad} / ({bad} + {good})",
                "labels": dict(labels),
            }
            rules.append(row)
    return rules


def burn_alerts(labels: dict[str, str], runbook: str) -> list[Object]:
    """Return the alerts on the recorded ratios."""
    matcher = ",".join(f'{name}="{value}"' for name, value in labels.items())
    alerts = []
    for objective in OBJECTIVES:
        for alert in objective.alerts:
            limit = f"> {alert.factor * objective.budget:g}"
            row: Object = {
                "alert": alert.name,
                "expr": " and ".join(
                    f"{objective.record}:ratio_increase{window}{{{matcher}}} {limit}"
                    for window in (alert.long, alert.short)
                ),
                "labels": {"severity": alert.severity, **labels},
                "annotations": {
                    "summary": f"{objective.summary}: {alert.factor:g} times the budget of {objective.budget:.1%}",
                    "runbook_url": f"{runbook}#{alert.name.lower()}",
                },
            }
            alerts.append(row)
    return alerts
