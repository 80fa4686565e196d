"""Compute rates, shares and latencies from the counters of relayers."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pocket_console.snapshot import RelayerSample, RelayerSnapshot, ServiceTotals

_EMPTY: Final = ServiceTotals()


@dataclass(slots=True)
class Increase:
    """What the counters of one service gained over `seconds`, summed over relayers."""

    received: float = 0.0
    served: float = 0.0
    mined: float = 0.0
    rejected: dict[str, float] = field(default_factory=dict)
    metered: dict[str, float] = field(default_factory=dict)
    answers: dict[str, float] = field(default_factory=dict)
    latency: dict[float, float] = field(default_factory=dict)
    backend: dict[float, float] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, before: ServiceTotals, after: ServiceTotals) -> None:
        """Add the increase between two samples.

        A counter that fell was reset and counts from zero.
        """
        reset = after.received < before.received or after.served < before.served
        base = _EMPTY if reset else before
        self.received += after.received - base.received
        self.served += after.served - base.served
        self.mined += max(0.0, after.mined - base.mined)
        for name in ("rejected", "metered", "answers", "latency", "backend"):
            _gain(getattr(self, name), getattr(base, name), getattr(after, name))


def _gain(total: dict[str, float], before: Mapping[str, float], after: Mapping[str, float]) -> None:
    for key, value in after.items():
        gained = value - before.get(key, 0.0)
        if gained > 0:
            total[key] = total.get(key, 0.0) + gained


def increases(relayers: Iterable[RelayerSnapshot], now: float) -> dict[str, Increase]:
    """Return the increase of each service over the samples.

    All relayers that answer are counted.
    """
    by_service: dict[str, Increase] = {}
    for relayer in relayers:
        samples = () if relayer.freshness.stale(now) else relayer.samples
        seconds = samples[-1].at - samples[0].at if samples else 0.0
        for service in {name for sample in samples for name in sample.services}:
            increase = by_service.setdefault(service, Increase())
            increase.seconds = max(increase.seconds, seconds)
            for before, after in itertools.pairwise(samples):
                increase.add(_totals(before, service), _totals(after, service))
    return by_service


def _totals(sample: RelayerSample, service: str) -> ServiceTotals:
    return sample.services.get(service, _EMPTY)


def totals(relayers: Iterable[RelayerSnapshot]) -> dict[str, Increase]:
    """Return the counters of each service since the relayers' start."""
    by_service: dict[str, Increase] = {}
    for relayer in relayers:
        if relayer.samples:
            for service, counted in relayer.samples[-1].services.items():
                by_service.setdefault(service, Increase()).add(_EMPTY, counted)
    return by_service


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Return a quantile in seconds from cumulative buckets.

    The result is None without an observation. The result is interpolated within its bucket. Beyond the largest bound it
    is that bound.
    """
    bounds = sorted(buckets)
    count = buckets[bounds[-1]] if bounds else 0.0
    if not count:
        return None
    wanted, below, lower = share * count, 0.0, 0.0
    for bound in bounds:
        reached = buckets[bound]
        if reached >= wanted:
            if bound == float("inf"):
                return lower
            inside = reached - below
            return lower + (bound - lower) * ((wanted - below) / inside if inside else 1.0)
        below, lower = reached, bound
    return lower


def rates_over_time(relayers: Sequence[RelayerSnapshot], now: float, services: Sequence[str]) -> list[list[float]]:
    """Return the relays per second of each service, as columns of a chart.

    The first column has the seconds before now. The steps are those of the relayer with the longest history.
    """
    longest = max(relayers, key=lambda row: len(row.history), default=None)
    if longest is None or len(longest.history) < 2:
        return [[] for _ in range(len(services) + 1)]
    times = [at for at, _ in longest.history]
    columns: list[list[float]] = [[round(at - now, 1) for at in times[1:]]]
    for service in services:
        columns.append(
            [
                round(sum(_gained(relayer, service, begin, end) for relayer in relayers) / (end - begin), 3)
                for begin, end in itertools.pairwise(times)
            ]
        )
    return columns


def _gained(relayer: RelayerSnapshot, service: str, begin: float, end: float) -> float:
    """Return the relays that a relayer served between two times, by its own steps."""
    gained = 0.0
    for (first, before), (last, after) in itertools.pairwise(relayer.history):
        overlap = min(last, end) - max(first, begin)
        if overlap > 0:
            served = after.get(service, 0.0) - before.get(service, 0.0)
            gained += (served if served >= 0 else after.get(service, 0.0)) * overlap / (last - first)
    return gained
