"""The exhaustive sweep: one fault of every kind at every call of every boundary, with and without a restart.

SWEEP is how many points are tried: every point for `all` (`make sweep`), a sample of this run's seed otherwise.
SWEEP_TABLE names a Markdown file to write the table into.
"""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from sweep import KINDS, Fault, Life, Script

pytestmark = [pytest.mark.redis, pytest.mark.timeout(1200)]
RESTARTS = (0, 13, 15)


async def points(script, redis):
    """Every (restart, boundary, kind, call)."""
    found = []
    for restart in RESTARTS:
        counted = Fault()
        assert await Life(script, redis, counted, restart).run() == [], "a life without a fault"
        found += [
            (restart, boundary, kind, at)
            for boundary, kinds in KINDS.items()
            for kind in kinds
            for at in range(counted.calls[boundary])
        ]
    return found


async def test_one_fault_anywhere_costs_no_session_and_no_stake(redis):
    asyncio.get_running_loop().set_debug(False)
    script, wanted = Script.make(), os.environ.get("SWEEP", "60")
    every = await points(script, redis)
    chosen = every if wanted == "all" else random.sample(every, int(wanted))
    tried, lost = Counter(), {}
    for point in chosen:
        restart, boundary, kind, at = point
        losses = await Life(script, redis, Fault(boundary, kind, at), restart).run()
        tried[boundary, kind, restart] += 1
        if losses:
            lost[point] = losses
    keep(tabled(tried, lost))
    assert lost == {}


def keep(table):
    if name := os.environ.get("SWEEP_TABLE"):
        Path(name).write_text(table, encoding="utf-8")


def tabled(tried, lost):
    """The table of docs/sweep.md."""
    damaged = Counter((boundary, kind, restart) for restart, boundary, kind, _ in lost)
    names = {0: "no restart", 13: "restart in the claim window", 15: "restart before the proof window"}
    rows = ["| boundary | fault | " + " | ".join(names.values()) + " |", "|--|--|" + "--|" * len(names)]
    for boundary, kinds in KINDS.items():
        for kind in kinds:
            cells = [f"{tried[boundary, kind, r]} calls, {damaged[boundary, kind, r]} lost" for r in names]
            rows.append(f"| {boundary} | {kind} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"
