"""The exhaustive sweep: one fault of every kind at every call of every boundary, with and without a restart.

SWEEP is how many points are tried: every point for `all` (`make sweep`), those of boundaries or kinds by their names
(`hangs,recorder`), or a sample of this run's seed. JOBS is the number of processes. SWEEP_TABLE names a Markdown file
between whose markers the table is written. Rows of which nothing was tried stay as they are.
"""

import asyncio
import os
from pathlib import Path

import pytest

from sweep_life import Script
from sweep_points import (
    FEW,
    between_markers,
    chosen_points,
    every_point,
    live,
    lived,
    processes,
    put_table,
    sweep_table,
)

pytestmark = [pytest.mark.redis, pytest.mark.timeout(1800)]


async def test_one_fault_anywhere_costs_no_session_no_stake_and_leaves_right_books(redis):
    asyncio.get_running_loop().set_debug(False)
    script, wanted = Script(), os.environ.get("SWEEP", "20")
    every = await every_point(script, redis)
    chosen = chosen_points(every, wanted)
    if len(chosen) <= FEW:
        found = [(point, await live(script, redis, point)) for point in chosen]
    else:
        found = await asyncio.to_thread(lambda: list(lived(live, chosen, processes())))
    lost = {point: losses for point, losses in found if losses}
    if name := os.environ.get("SWEEP_TABLE"):
        put_table(Path(name), "sweep", sweep_table(chosen, lost, between_markers(Path(name), "sweep")))
    assert lost == {}
