"""Show services: traffic, latency, errors, backends and the applications that use them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pocket_console.snapshot import ConsoleSnapshot, UnhealthyEndpoint
from pocket_console.views.charts import Chart
from pocket_console.views.merged import Merged
from pocket_console.views.rates import Increase, increases, quantile, rates_over_time, totals

_OVER_BUDGET: Final = "over_budget"
_MOST_LINES: Final = 6
_MOST_APPLICATIONS: Final = 100


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One service. Rates and latencies are of the last minute, counts since the relayers' start."""

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
    """An application's open sessions of one service."""

    application: str
    service: str
    sessions: int
    relays: int
    value_upokt: int


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
    recent, since_start = increases(snapshot.relayers), totals(snapshot.relayers)
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
    applications = _applications(picture)
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
    latency = recent.latency if recent is not None and recent.latency else total.latency
    backend = recent.backend if recent is not None and recent.backend else total.backend
    return ServiceRow(
        name=name,
        per_second=measured.served / measured.seconds if measured is not None else None,
        served=total.served,
        mined=total.mined,
        rejected=rejected,
        rejected_share=rejected / total.received if total.received else None,
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


def _applications(picture: Merged) -> tuple[ApplicationRow, ...]:
    found: dict[tuple[str, str], list[int]] = {}
    for session in picture.open:
        totals_ = found.setdefault((session.application, session.service_id), [0, 0, 0])
        totals_[0] += 1
        totals_[1] += session.relays
        totals_[2] += session.value_upokt or 0
    rows = (ApplicationRow(*pair, *counts) for pair, counts in found.items())
    return tuple(sorted(rows, key=lambda row: (-row.value_upokt, row.application, row.service)))
