"""Makes a failing life small: without faults that do not matter, and those that do as short as can be."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

from simulated.life import live
from simulated.plan import Fault
from simulated.result import Result

_SHORTER = 0.5


_quickly = functools.partial(live, hasty=True)


def shrunk(result: Result, most: int = 60, live: Callable[[int, Sequence[Fault]], Result] = _quickly) -> Result:
    """Return the smallest failing life, found in at most so many more lives."""
    best, left = result, most

    def fails(faults: Sequence[Fault]) -> bool:
        nonlocal best, left
        if left <= 0:
            return False
        left -= 1
        found = live(result.seed, tuple(faults))
        if found.problems or found.errors:
            best = found
            return True
        return False

    changed = not fails([])  # most often a line alone is to blame
    while changed and left > 0:
        changed = any(fails([f for f in best.faults if f is not fault]) for fault in best.faults)
    for number in range(len(best.faults)):
        while best.faults[number].seconds > 1.0 and left > 0:
            fault = best.faults[number]
            shorter = replace(fault, seconds=fault.seconds * _SHORTER)
            if not fails([shorter if f is fault else f for f in best.faults]):
                break
    return best


def story(result: Result) -> str:
    """Return the events of a life as text for a person."""
    lines = [f"Seed {result.seed}: {result.relays} relays of {result.sessions} sessions, {len(result.faults)} faults."]
    lines += [f"  block {height:>2}, second {when:>6.2f}: {text}" for when, height, text in result.events]
    lines += [f"What is wrong: {problem}" for problem in (*result.problems, *result.errors)]
    return "\n".join(lines)
