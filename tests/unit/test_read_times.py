"""When suppliers without news are read, in case a notification was lost."""

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from pocket_miner.suppliers.running import SupplierWorker


def read_at(now, fleet, chance):
    worker = SupplierWorker(
        None, None, None, asyncio.Semaphore(), asyncio.Semaphore(), 1.0, None, chance, fleet_size=lambda: fleet
    )
    return worker._heals_at(now)


@given(st.floats(0, 1e6), st.integers(1, 250), st.randoms())
def test_the_suppliers_of_a_small_fleet_are_read_together_every_five_seconds(now, fleet, chance):
    at = read_at(now, fleet, chance)
    assert at % 5 == 0
    assert 0 < at - now <= 5.6
    assert read_at(at, fleet, chance) == at + 5


@given(st.floats(0, 1e6), st.integers(251, 5000))
def test_the_suppliers_of_a_large_fleet_are_spread_to_fifty_a_second(now, fleet):
    chance = random.Random(fleet)
    times = [read_at(now, fleet, chance) for _ in range(1000)]
    assert min(times) - now >= 0.8 * fleet / 50
    assert max(times) - now <= 1.2 * fleet / 50 + 1.1
    assert len(set(times)) > 0.3 * fleet / 50
