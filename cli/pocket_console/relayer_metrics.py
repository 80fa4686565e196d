"""Reduce a relayer's metrics to the counters that the console shows."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from pocket.api.problems import Problem
from pocket_console.snapshot import BudgetLimit, RelayerSample, RelayerState, ServiceTotals, UnhealthyEndpoint

_MOST_SERVICES: Final = 1000
_PREFIX: Final = "pocket_relayer_"
_TOTALS: Final = {
    "pocket_relayer_relays_received_total": "received",
    "pocket_relayer_relays_served_total": "served",
    "pocket_relayer_relays_mined_total": "mined",
}
_BY_LABEL: Final = {
    "pocket_relayer_relays_rejected_total": ("rejected", "reason"),
    "pocket_relayer_relays_metered_total": ("metered", "outcome"),
    "pocket_relayer_backend_answers_total": ("answers", "outcome"),
}
_BUCKETS: Final = {
    "pocket_relayer_relay_seconds_bucket": "latency",
    "pocket_relayer_backend_seconds_bucket": "backend",
}
_GAUGES: Final = {
    "pocket_relayer_relays_in_flight": "in_flight",
    "pocket_relayer_relays_queued": "queued",
    "pocket_relayer_open_connections": "connections",
}
_MOST_BUDGETS: Final = 1000
_UNHEALTHY: Final = "pocket_relayer_backend_endpoints_unhealthy"
_WANTED: Final = (*_TOTALS, *_BY_LABEL, *_BUCKETS, *_GAUGES, _UNHEALTHY)


@dataclass(slots=True)
class _Collected:
    numbers: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tables: dict[str, dict[Any, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))

    def totals(self) -> ServiceTotals:
        fields: dict[str, Any] = {**self.numbers, **{name: dict(table) for name, table in self.tables.items()}}
        return ServiceTotals(**fields)


def sample_of(text: str, at: float) -> RelayerSample:
    """Return the counters in a relayer's metrics.

    Raises ValueError if the text is not in Prometheus' format.
    """
    services: dict[str, _Collected] = defaultdict(_Collected)
    gauges: dict[str, float] = defaultdict(float)
    unhealthy: dict[str, float] = defaultdict(float)
    for name, labels, value in _samples(text):
        if name in _GAUGES:
            gauges[_GAUGES[name]] += value
            continue
        service = labels.get("service", "")
        if name == _UNHEALTHY:
            unhealthy[service] += value
            continue
        if service not in services and len(services) >= _MOST_SERVICES:
            continue
        service_sample = services[service]
        if name in _TOTALS:
            service_sample.numbers[_TOTALS[name]] += value
        elif name in _BY_LABEL:
            table, label = _BY_LABEL[name]
            service_sample.tables[table][labels.get(label, "")] += value
        else:
            service_sample.tables[_BUCKETS[name]][float(labels.get("le", "inf"))] += value
    return RelayerSample(
        at,
        {name: service_sample.totals() for name, service_sample in services.items()},
        unhealthy=dict(unhealthy),
        **gauges,
    )


def _samples(text: str) -> Iterable[tuple[str, Mapping[str, str], float]]:
    wanted = "\n".join(line for line in text.splitlines() if line.startswith(_WANTED)) + "\n"
    for family in text_string_to_metric_families(wanted):
        for sample in family.samples:
            if sample.name in _WANTED and math.isfinite(sample.value):
                yield sample.name, sample.labels, float(sample.value)


def state_of(report: Mapping[str, Any]) -> RelayerState:
    """Return a relayer's report.

    Raises ValueError, TypeError, AttributeError or OverflowError if it is not one.
    """
    if report.get("component") != "relayer":
        raise ValueError("it is not a relayer's report")
    return RelayerState(
        workers=int(report.get("workers") or 0),
        complete=bool(report.get("complete", True)),
        addresses=frozenset(map(str, report.get("addresses") or ())),
        height=int(report.get("height") or 0),
        restarts=int(report.get("restarts") or 0),
        problems=tuple(Problem.model_validate(row) for row in report.get("problems") or ()),
        unhealthy=tuple(
            UnhealthyEndpoint(*(str(row.get(name) or "") for name in ("service", "transport", "endpoint", "problem")))
            for row in report.get("unhealthy") or ()
        ),
        budgets=tuple(
            BudgetLimit(
                str(row.get("service") or ""),
                str(row.get("application") or ""),
                int(row.get("limit_upokt") or 0),
                int(row.get("over_budget") or 0),
            )
            for row in (report.get("budgets") or ())[:_MOST_BUDGETS]
        ),
    )
