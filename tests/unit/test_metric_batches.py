"""Metrics that are written a few times a second equal those that are written at once."""

import asyncio
import random

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from pocket_relayer.metric_batches import BatchedCounter, BatchedHistogram, write_due

BUCKETS = (0.001, 0.01, 0.1, 1)


def families():
    registry = CollectorRegistry()
    counter = Counter("c", "c", ["service"], registry=registry)
    return registry, counter, Histogram("h", "h", ["service"], registry=registry, buckets=BUCKETS)


def samples(registry):
    rows = {(s.name, *s.labels.values()): s.value for family in registry.collect() for s in family.samples}
    return {name: value for name, value in rows.items() if not name[0].endswith("_created")}


@pytest.mark.parametrize("seed", range(20))
async def test_batches_come_to_the_same_as_single_writes(seed):
    chance = random.Random(seed)
    ours, counter, histogram = families()
    counters = [BatchedCounter(counter.labels(name)) for name in "ab"]
    histograms = [BatchedHistogram(histogram.labels(name)) for name in "ab"]
    theirs, single_counter, single_histogram = families()
    for name in "ab":
        single_counter.labels(name)
        single_histogram.labels(name)
    for _ in range(chance.randrange(60)):
        which, amount = chance.randrange(2), chance.choice((*BUCKETS, 0.0, 2.0, chance.random() / 50))
        counters[which].inc()
        single_counter.labels("ab"[which]).inc()
        histograms[which].observe(amount)
        single_histogram.labels("ab"[which]).observe(amount)
        if chance.random() < 0.2:
            write_due()
            assert samples(ours) == pytest.approx(samples(theirs))
    write_due()
    assert samples(ours) == pytest.approx(samples(theirs))


def test_outside_of_an_event_loop_a_count_is_written_at_once():
    registry, counter, _ = families()
    BatchedCounter(counter.labels("a")).inc()
    assert samples(registry)["c_total", "a"] == 1


def test_each_event_loop_writes_its_counts_though_another_one_ended_before_its_timer():
    registry, counter, _ = families()
    counts = BatchedCounter(counter.labels("a")), BatchedCounter(counter.labels("b"))

    async def count(which):
        which.inc()

    async def counted():
        counts[1].inc()
        async with asyncio.timeout(10):
            while not samples(registry)["c_total", "b"]:  # noqa: ASYNC110 - a metric has no event
                await asyncio.sleep(0.01)

    asyncio.run(count(counts[0]))
    asyncio.run(counted())
    assert samples(registry)["c_total", "a"] == samples(registry)["c_total", "b"] == 1
