"""What became of a life."""

from collections import Counter
from dataclasses import dataclass, field

from simulated.plan import Fault


@dataclass
class Result:
    """What became of a life."""

    seed: int
    faults: tuple[Fault, ...]
    problems: list[str]
    trace: str
    events: list[tuple[float, int, str]]
    hits: Counter[str]
    calls: Counter[str]
    relays: int
    sessions: int
    turns: int
    cpu_seconds: float
    errors: list[str] = field(default_factory=list)
