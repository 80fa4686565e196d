"""I1 to I6 over explored schedules: owners killed, frozen and replaced at every await, Redis lost, the chain going on.

`make failovers` explores more (SCHEDULES=20000); `SEED=7 pytest tests/interleaving` replays one.
"""

import asyncio
import os
import sys

import pytest

from failovers import FROZEN, HASTY, KINDS, LOST_LATE, Life, prepared, slow_root_of
from pocket.redis_store import lua_scripts
from pocket.redis_store.lua_scripts import Script

pytestmark = [pytest.mark.redis, pytest.mark.timeout(3000)]
SCHEDULES = int(os.environ.get("SCHEDULES", "60"))
FIRST = int(os.environ.get("FIRST_SEED", "0"))
ONE = os.environ.get("SEED")


def some_at_a_time(most=60):
    """All seeds to explore, in parts that run side by side."""
    end = FIRST + SCHEDULES
    return [range(int(ONE), int(ONE) + 1)] if ONE else [range(n, min(n + most, end)) for n in range(FIRST, end, most)]


@pytest.mark.parametrize("seeds", some_at_a_time(), ids=lambda seeds: f"from seed {seeds[0]}")
async def test_no_schedule_of_owners_crashes_and_restarts_loses_doubles_or_overwrites_a_claim(redis, seeds):
    failovers = losses = steps = 0
    kinds = set()
    for seed in seeds:
        life = Life(seed, redis)
        problems = await life.run()
        assert not problems, f"SEED={seed} replays it: {problems}\n" + "\n".join(life.explorer.steps[-80:])
        failovers, losses, steps = failovers + life.failovers, losses + life.wipes, steps + len(life.explorer.steps)
        kinds.add(tuple(life.explorer.steps))
    sys.stdout.write(
        f"{len(kinds)} different schedules, seeds {seeds[0]} to {seeds[-1]}: {failovers} failovers, "
        f"{losses} losses of Redis, {steps} steps, 0 claims overwritten, doubled or lost\n"
    )
    assert len(kinds) == len(seeds)


async def test_a_seed_gives_the_same_schedule_again(redis):
    first, again = Life(11, redis), Life(11, redis)
    assert await first.run() == await again.run() == []
    assert first.explorer.steps == again.explorer.steps


@pytest.fixture(autouse=True)
async def _quick():
    """Thousands of schedules: asyncio's own checks run in every other test of the same code."""
    asyncio.get_running_loop().set_debug(False)


async def _sealed_without_asking(self, seals, *_):
    return True


def without(script, line):
    assert line in script.source
    return Script(script.source.replace(line, ""))


def of_kind(kind, noticing=0):
    """All seeds of this kind, those from `noticing` first: where somebody noticed, when these tests were written."""
    seeds = range(kind, 3000, KINDS)
    return sorted(seeds, key=lambda seed: (seed < noticing, seed))


CLOSING = "redis.call('HSETNX', KEYS[2], ARGV[at], ARGV[at + 1])"
APPEND = lua_scripts.APPEND.source
BREAKS = {
    "a relay is taken though its session is closed": (
        {"pocket.redis_store.relay_recorder.APPEND": Script(APPEND.replace("session) == 1", "session) == 7"))},
        "I1",
        of_kind(HASTY),
    ),
    "the first relay of a session is taken however late it comes": (
        {"pocket.redis_store.relay_recorder.APPEND": Script(APPEND.replace("ends <= cutoff", "ends < 0"))},
        "settled",
        of_kind(FROZEN),
    ),
    "a log that is appended again is held to the horizon": (
        {"failovers.replace": lambda row, **_: row},
        "settled",
        of_kind(LOST_LATE, noticing=1095),
    ),
    "whoever likes claims what it has read so far": (
        {
            "pocket.redis_store.seals.CLOSE": without(without(lua_scripts.CLOSE, lua_scripts._FENCE), CLOSING),
            "pocket_miner.submission.claims.ClaimSubmitter._store": _sealed_without_asking,
        },
        "I3",
        of_kind(HASTY),
    ),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_the_explorer_notices_what_would_cost_money(redis, monkeypatch, name):
    """The judge is worth something: each protection that is taken away shows in some schedule."""
    patches, noticed, seeds = BREAKS[name]
    for place, broken in patches.items():
        monkeypatch.setattr(place, broken)
    for seed in seeds:
        try:
            problems = await Life(seed, redis).run()
        except AssertionError as error:
            problems = [str(error)]
        if any(noticed in problem for problem in problems):
            return
    raise AssertionError(f"nobody noticed: {name}")


def test_the_judge_of_roots_is_not_the_code_that_it_judges():
    _, _, rows = prepared()
    some = frozenset(row.relay for row in rows[:2])
    assert slow_root_of(some) != slow_root_of(frozenset(row.relay for row in rows))
