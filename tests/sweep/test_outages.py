"""Outages of every dependency for one to three blocks, from every block, with a restart of the miner in them or not.

SWEEP, JOBS and SWEEP_TABLE as in test_sweep.py.
"""

import asyncio
import os
import random
from pathlib import Path

import pytest

from sweep_life import Script
from sweep_outages import UNAVOIDABLE, every_outage, live_outage, outage_table
from sweep_points import FEW, lived, processes, put_table

pytestmark = [pytest.mark.redis, pytest.mark.timeout(1800)]
A_THIRD = 3  # of the number of points are outages


async def test_an_outage_costs_only_what_nothing_could_have_saved(redis):
    asyncio.get_running_loop().set_debug(False)
    every, wanted = every_outage(), os.environ.get("SWEEP", "30")
    if wanted != "all" and not wanted.isdecimal():
        pytest.skip(f"no outage is of {wanted}")
    chosen = every if wanted == "all" else random.sample(every, min(len(every), int(wanted) // A_THIRD))
    if len(chosen) <= FEW:
        script = Script()
        found = [(outage, await live_outage(script, redis, outage)) for outage in chosen]
    else:
        found = await asyncio.to_thread(lambda: list(lived(live_outage, chosen, processes())))
    lost = {outage: losses for outage, losses in found if losses}
    if name := os.environ.get("SWEEP_TABLE"):
        put_table(Path(name), "outages", outage_table(lost))
    assert set(lost) == UNAVOIDABLE.intersection(chosen), lost
    assert not [loss for losses in lost.values() for loss in losses if not loss.startswith("claim_missed")]
