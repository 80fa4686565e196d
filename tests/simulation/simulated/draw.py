"""Draws what goes wrong in a life, within what the system promises to survive."""

import random
from collections.abc import Iterator

from simulated.plan import Fault, Kind


def draw(seed: int) -> Iterator[Fault]:
    """The faults of a seed."""
    _ = random.Random(seed)
    return iter(())
