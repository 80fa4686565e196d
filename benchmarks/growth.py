"""Measure how costs grow with a number.

An exponent of 1 means as fast as the number, 0 that they stay the same.
"""

import math
from collections.abc import Mapping, Sequence

Growth = Mapping[str, tuple[list[float], float]]
"""Measurements for growing numbers with their exponent, by name."""


def exponent(numbers: Sequence[int], values: Sequence[float]) -> float:
    """Return how fast the values grow from the first to the last number."""
    return math.log(max(values[-1], 1e-9) / max(values[0], 1e-9)) / math.log(numbers[-1] / numbers[0])


def listed(numbers: Sequence[int]) -> str:
    """Return the numbers as text."""
    return " / ".join(f"{number:,}" for number in numbers)


def print_growth(growth: Growth) -> None:
    """Print one line for each measurement."""
    for name, (values, found) in growth.items():
        print(f"{name}: {' / '.join(f'{value:.3g}' for value in values)}, exponent {found:.2f}")
