"""The whole system under a seed: `make simulate` lives more lives, `make simulate REPLAY=7` tells one.

Each life is lived in an interpreter of its own, in which what sets give is the same in every run.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from simulated.draw import draw
from simulated.life import Result
from simulated.plan import Fault, Kind
from simulated.shrink import shrunk, story

FIRST = int(os.environ.get("FIRST", "1"))
SEEDS = int(os.environ.get("SEEDS", "2"))


def simulated(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "simulated", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.processes
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, 4))
def test_no_life_loses_a_relay_a_claim_or_stake(first):
    done = simulated("--first", first, "--seeds", min(4, FIRST + SEEDS - first))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_seed_is_the_same_life_again():
    first, again = (simulated("--replay", 2) for _ in range(2))
    assert "Trace" in first.stdout, first.stdout + first.stderr
    assert first.stdout.partition("lives from")[0] == again.stdout.partition("lives from")[0]


def fault(number, kind=Kind.KILL, seconds=8.0):
    return Fault(number, kind, 10.0 * number, seconds, "miner-0", 1.0, number)


def of(faults, wrong):
    problems = ["lost"] if wrong(faults) else []
    return Result(7, tuple(faults), problems, "", [(3.0, 2, "miner-0: killed")], {}, {}, 1, 1, 1, 0.0)


def test_a_failing_life_is_shrunk_to_the_faults_that_matter_each_as_short_as_can_be():
    def wrong(faults):
        return any(f.number == 2 and f.seconds >= 3 for f in faults) and any(f.number == 4 for f in faults)

    whole = of([fault(number) for number in range(6)], wrong)
    found = shrunk(whole, live=lambda seed, faults: of(faults, wrong))
    assert [f.number for f in found.faults] == [2, 4]
    assert [f.seconds for f in found.faults] == [4.0, 1.0]
    assert "block  2, second   3.00: miner-0: killed" in story(found)
    assert story(found).endswith("What is wrong: lost")


def test_what_is_drawn_follows_from_the_seed_and_lets_one_node_alone_lie():
    assert draw(11) == draw(11)
    assert draw(11) != draw(12)
    lies = {Kind.NODE_LAGS, Kind.NODE_STALE, Kind.NODE_HOLLOW, Kind.NODE_HEADLESS, Kind.NODE_OTHER_CHAIN,
            Kind.NODE_OTHER_HASH}  # fmt: skip
    about_nodes = {Kind.NODE_DOWN, Kind.NODE_RESTART, Kind.NODE_HANGS}
    for seed in range(500):
        faults = draw(seed)
        liars = {f.target for f in faults if f.kind in lies}
        assert len(liars) <= 1
        away = [f for f in faults if f.kind in about_nodes and f.target not in liars]
        lying = [f for f in faults if f.kind in lies]
        assert not [seed for one in away for f in lying if one.at < f.at + f.seconds and f.at < one.at + one.seconds]
        assert replace(faults[0], at=0.0) if faults else seed % 7 == 0
