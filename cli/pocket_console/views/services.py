"""Show services with traffic, latency, errors and backends.

The applications that use them are shown, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pocket.api.miner_status import OpenSession
from pocket_console.snapshot import BudgetLimit, ConsoleSnapshot, UnhealthyEndpoint
from pocket_console.views.charts import Chart
from pocket_console.views.merged import Merged
from pocket_console.views.rates import Increase, increases, quantile, rates_over_time, totals

_OVER_BUDGET: Final = "over_budget"
_MOST_LINES: Final = 6
_MOST_APPLICATIONS: Final = 100
_NEARLY_USED: Final = 0.9


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One service with its rates, latencies and counts.

    Rates and latencies are of the last minute, counts since the relayers' start.

    `rejected_share` is of the relays that were served or rejected.
    """

    name: str
    per_second: float | None
    served: float
    mined: float
    rejected: float
    rejected_share: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    backend_p95: float | None
    errors: tuple[tuple[str, float], ...]
    backend_errors: tuple[tuple[str, float], ...]
    over_budget: float
    unhealthy: tuple[UnhealthyEndpoint, ...]
    sessions: int
    value_upokt: int


@dataclass(frozen=True, slots=True)
class ApplicationRow:
    """An application's open sessions of one service, and its budget.

    `limit_upokt` is what it may spend per supplier and session, None if no relayer charged it yet. `used_share` is how
    much of it the fullest open session is worth. `over_budget` counts relays above it since the relayers' start.
    """

    application: str
    service: str
    sessions: int
    relays: int
    value_upokt: int
    limit_upokt: int | None = None
    used_share: float | None = None
    over_budget: int = 0

    @property
    def nearly_used(self) -> bool:
        """True if little of the budget is left in the fullest session."""
        return (self.used_share or 0.0) >= _NEARLY_USED


@dataclass(frozen=True, slots=True)
class ServicesView:
    """All services. `window` is the number of seconds that rates are taken over."""

    rows: tuple[ServiceRow, ...]
    applications: tuple[ApplicationRow, ...]
    more_applications: int
    chart: Chart
    window: float
    relayers: int


def services_view(snapshot: ConsoleSnapshot, picture: Merged, now: float) -> ServicesView:
    """Return the services that relayers serve or that have sessions."""
    recent, since_start = increases(snapshot.relayers, now), totals(snapshot.relayers)
    sessions: dict[str, list[int]] = {}
    for session in picture.open:
        sessions.setdefault(session.service_id, []).append(session.value_upokt or 0)
    unhealthy: dict[str, list[UnhealthyEndpoint]] = {}
    for relayer in snapshot.relayers:
        for endpoint in relayer.state.unhealthy if relayer.state is not None else ():
            if endpoint not in unhealthy.setdefault(endpoint.service, []):
                unhealthy[endpoint.service].append(endpoint)
    names = sorted({*since_start, *sessions, *unhealthy} - {""})
    rows = tuple(
        _row(name, recent.get(name), since_start.get(name, Increase()), sessions.get(name, []),
             tuple(unhealthy.get(name, ())))
        for name in names
    )  # fmt: skip
    busiest = tuple(row.name for row in sorted(rows, key=lambda row: (-row.served, row.name))[:_MOST_LINES])
    applications = _applications(picture, _budgets(snapshot))
    return ServicesView(
        rows=rows,
        applications=applications[:_MOST_APPLICATIONS],
        more_applications=max(0, len(applications) - _MOST_APPLICATIONS),
        chart=Chart(
            "relays-per-second", "Relays per second", "seconds", busiest,
            tuple(map(tuple, rates_over_time(snapshot.relayers, now, busiest))), unit="/s",
        ),
        window=max((row.seconds for row in recent.values()), default=0.0),
        relayers=len(snapshot.relayers),
    )  # fmt: skip


def _row(
    name: str,
    recent: Increase | None,
    total: Increase,
    values: list[int],
    unhealthy: tuple[UnhealthyEndpoint, ...],
) -> ServiceRow:
    rejected = sum(total.rejected.values())
    measured = recent if recent is not None and recent.seconds else None
    latency = measured.latency if measured is not None else {}
    backend = measured.backend if measured is not None else {}
    return ServiceRow(
        name=name,
        per_second=measured.served / measured.seconds if measured is not None else None,
        served=total.served,
        mined=total.mined,
        rejected=rejected,
        rejected_share=rejected / (total.served + rejected) if total.served + rejected else None,
        p50=quantile(latency, 0.5),
        p95=quantile(latency, 0.95),
        p99=quantile(latency, 0.99),
        backend_p95=quantile(backend, 0.95),
        errors=_sorted(total.rejected),
        backend_errors=_sorted({name: value for name, value in total.answers.items() if name != "success"}),
        over_budget=total.metered.get(_OVER_BUDGET, 0.0),
        unhealthy=unhealthy,
        sessions=len(values),
        value_upokt=sum(values),
    )


def _sorted(counts: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(((name, value) for name, value in counts.items() if value), key=lambda row: (-row[1], row[0])))


def _budgets(snapshot: ConsoleSnapshot) -> dict[tuple[str, str], BudgetLimit]:
    """Return the budgets by application and service.

    The limit is the smallest one of all relayers, and their relays above it are added up.
    """
    limits: dict[tuple[str, str], BudgetLimit] = {}
    for relayer in snapshot.relayers:
        for row in relayer.state.budgets if relayer.state is not None else ():
            known = limits.get((row.application, row.service), row)
            over = row.over_budget + (known.over_budget if known is not row else 0)
            limits[row.application, row.service] = replace(
                row, limit_upokt=min(known.limit_upokt, row.limit_upokt), over_budget=over
            )
    return limits


def _applications(picture: Merged, budgets: Mapping[tuple[str, str], BudgetLimit]) -> tuple[ApplicationRow, ...]:
    """Return the applications that have open sessions or exceed their budget.

    The most valuable ones come first.
    """
    sessions: dict[tuple[str, str], list[OpenSession]] = {
        pair: [] for pair, budget in budgets.items() if budget.over_budget
    }
    for session in picture.open:
        sessions.setdefault((session.application, session.service_id), []).append(session)
    rows = (_application(pair, own, budgets.get(pair)) for pair, own in sessions.items())
    return tuple(sorted(rows, key=lambda row: (-row.value_upokt, row.application, row.service)))


def _application(pair: tuple[str, str], sessions: Sequence[OpenSession], budget: BudgetLimit | None) -> ApplicationRow:
    values = [session.value_upokt or 0 for session in sessions]
    limit = budget.limit_upokt if budget is not None else None
    return ApplicationRow(
        *pair,
        sessions=len(sessions),
        relays=sum(session.relays for session in sessions),
        value_upokt=sum(values),
        limit_upokt=limit,
        used_share=max(values, default=0) / limit if limit else None,
        over_budget=budget.over_budget if budget is not None else 0,
    )
