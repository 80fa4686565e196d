"""Draws what goes wrong in a life, within what the system promises to survive.

What is promised: in each window a right node, and Redis or the volume, can be reached for some blocks; of the copies of
a relay one is left; at most one node tells what is not so. So what is grave comes one after the other, with some blocks
between, and what lies is one node, while the other one is there.
"""

import random
from dataclasses import dataclass

from simulated.plan import BLOCK_SECONDS, NODES, SERVICES, SUPPLIERS, Fault, Kind

_LAST_SECONDS = 108.0
_APART_SECONDS = 3.5 * BLOCK_SECONDS
_EDGES = (10, 12, 20, 22, 28, 30, 38)  # heights at which windows open and close
_SESSION_ENDS = (10, 20)  # heights
_MINERS = ("miner-0", "miner-1")
_RELAYERS = ("relayer-0", "relayer-1")
_EVERYBODY = ("",)


@dataclass(frozen=True, slots=True)
class _Row:
    """A kind with whom it may strike, how long it lasts, and its share, each from and to."""

    kind: Kind
    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)
    share: tuple[float, float] = (1.0, 1.0)


_GRAVE = (
    _Row(Kind.KILL, _MINERS, (0.3, 5.0)),
    _Row(Kind.KILL, _MINERS, (0.3, 5.0)),
    _Row(Kind.KILL, _RELAYERS, (0.3, 5.0)),
    _Row(Kind.TERMINATE, (*_MINERS, *_RELAYERS), (0.3, 4.0)),
    _Row(Kind.FREEZE, _MINERS, (1.0, 16.0)),
    _Row(Kind.FREEZE, _RELAYERS, (1.0, 10.0)),
    _Row(Kind.UPGRADE, _EVERYBODY, (0.5, 2.0)),
    _Row(Kind.SCALE_UP, _EVERYBODY, (10.0, 40.0)),
    _Row(Kind.NODE_DOWN, (*NODES, ""), (1.0, 8.0)),
    _Row(Kind.NODE_RESTART, NODES, (1.0, 6.0)),
    _Row(Kind.NODE_HANGS, NODES, (1.0, 6.0)),
    _Row(Kind.MEMPOOL_LOSS, _EVERYBODY, share=(1.0, 3.0)),
    _Row(Kind.MEMPOOL_REFUSES, _EVERYBODY, share=(1.0, 3.0)),
    _Row(Kind.NO_TRANSACTIONS, _EVERYBODY, share=(1.0, 2.9)),
    _Row(Kind.BLOCKS_SLOW, _EVERYBODY, (4.0, 12.0), (1.5, 3.0)),
    _Row(Kind.BLOCKS_FAST, _EVERYBODY, (4.0, 9.0), (0.5, 0.8)),
    _Row(Kind.REDIS_CRASH, _EVERYBODY, (1.0, 6.0), (0.0, 1.0)),
    _Row(Kind.REDIS_FAIL_OVER, _EVERYBODY, share=(0.0, 1.0)),
    _Row(Kind.REDIS_FULL, _EVERYBODY, (1.0, 7.0)),
    _Row(Kind.REDIS_SLOW, (*_MINERS, *_RELAYERS, ""), (2.0, 7.0), (0.1, 1.5)),
    _Row(Kind.LEASES_AWAY, (*_MINERS, ""), (2.0, 9.0)),
    _Row(Kind.DISK_SLOW, _MINERS, (2.0, 8.0), (0.05, 1.0)),
    _Row(Kind.DISK_FULL, (*_MINERS, *_RELAYERS), (2.0, 8.0)),
)
_ONCE = (
    _Row(Kind.VOLUME_LOST, _MINERS, (0.5, 4.0)),
    _Row(Kind.LOG_LOST, _RELAYERS, (0.5, 4.0)),
    _Row(Kind.REDIS_EMPTY, _EVERYBODY, (1.0, 5.0)),
    _Row(Kind.REDIS_OLDER, _EVERYBODY, (1.0, 5.0), (1.0, 10.0)),
)
"""What destroys a copy: one of them in a life."""
_SLIGHT = (
    _Row(Kind.NODE_FAILS, (*NODES, ""), (5.0, 60.0), (0.005, 0.1)),
    _Row(Kind.NODE_DENIES, NODES, (5.0, 60.0), (0.005, 0.05)),
    _Row(Kind.NODE_EMPTY, NODES, (5.0, 60.0), (0.005, 0.05)),
    _Row(Kind.NODE_GARBAGE, NODES, (5.0, 60.0), (0.005, 0.05)),
    _Row(Kind.NODE_REPLY_LOST, NODES, (5.0, 60.0), (0.005, 0.05)),
    _Row(Kind.REDIS_CUT, ("", *_MINERS), (5.0, 40.0), (0.002, 0.02)),
    _Row(Kind.REDIS_REPLY_LOST, ("", *_MINERS), (5.0, 40.0), (0.002, 0.02)),
    _Row(Kind.PEERS_AWAY, ("", *_MINERS), (5.0, 40.0)),
    _Row(Kind.BACKEND_FAILS, _EVERYBODY, (5.0, 30.0), (0.05, 0.3)),
    _Row(Kind.PROOF_PARAMS, _EVERYBODY),
    _Row(Kind.PRICES, _EVERYBODY),
    _Row(Kind.CLOCK_JUMP, (*_MINERS, *_RELAYERS), share=(-90.0, 90.0)),
)
_LIES = (
    _Row(Kind.NODE_LAGS, ("",), (3.0, 20.0), (1.0, 4.9)),
    _Row(Kind.NODE_STALE, ("",), (5.0, 60.0), (0.01, 0.1)),
    _Row(Kind.NODE_HOLLOW, ("",), (5.0, 60.0), (0.05, 0.4)),
    _Row(Kind.NODE_HEADLESS, ("",), (5.0, 40.0)),
    _Row(Kind.NODE_OTHER_CHAIN, ("",), (1.0, 8.0)),
    _Row(Kind.NODE_OTHER_HASH, ("",), (3.0, 30.0), (0.1, 0.6)),
)
"""Faults of one node, while the other one always works."""
_OF_ONE = (
    _Row(Kind.SUPPLIER_AWAY, SUPPLIERS, (20.0, 80.0)),
    _Row(Kind.APPLICATION_AWAY, SERVICES, (20.0, 80.0)),
    _Row(Kind.GARBAGE_ROWS, SUPPLIERS),
)
"""What befalls one supplier or application, and must change nothing of the others."""
_ABOUT_NODES = frozenset({Kind.NODE_DOWN, Kind.NODE_RESTART, Kind.NODE_HANGS})


def draw(seed: int) -> list[Fault]:
    """Draw the faults of a seed in the order in which they begin.

    Every seventh life has none.
    """
    chance = random.Random(f"faults {seed}")
    if not seed % 7:
        return []
    found: list[Fault] = []

    def add(row: _Row, at: float, target: str | None = None) -> None:
        where = chance.choice(row.targets) if target is None else target
        found.append(
            Fault(len(found), row.kind, at, chance.uniform(*row.seconds), where, chance.uniform(*row.share),
                  chance.getrandbits(32))
        )  # fmt: skip

    liar = chance.choice(NODES) if chance.random() < 0.4 else ""
    at = chance.uniform(0, 25)
    destroyed = False
    for _ in range(chance.randint(1, 6)):
        row = chance.choice(_GRAVE)
        if not destroyed and chance.random() < 0.12:
            row, destroyed = chance.choice(_ONCE), True
        add(row, at, liar if liar and row.kind in _ABOUT_NODES else None)
        at = max(at + max(_APART_SECONDS, found[-1].seconds + 1.5 * BLOCK_SECONDS), _moment(chance, at))
        if at > _LAST_SECONDS:
            break
    for _ in range(chance.randint(0, 3)):
        add(chance.choice(_SLIGHT), chance.uniform(0, _LAST_SECONDS))
    if liar:
        for _ in range(chance.randint(1, 2)):
            add(chance.choice(_LIES), chance.uniform(0, _LAST_SECONDS), liar)
    if chance.random() < 0.25:
        add(chance.choice(_OF_ONE), chance.uniform(0, 0.6 * _LAST_SECONDS))
    if chance.random() < 0.25:
        # The first session's end or the second's; for longer than it takes to seal.
        moment = chance.choice(_SESSION_ENDS) * BLOCK_SECONDS
        add(_Row(Kind.FREEZE_AT_END, _RELAYERS, (7.0, 18.0)), moment + chance.uniform(-1.0, 1.3) * BLOCK_SECONDS)
    if not destroyed and chance.random() < 0.3:
        row = _Row(Kind.REDIS_EMPTY_UNREAD, _EVERYBODY, (1.0, 5.0))
        add(row, chance.choice(_SESSION_ENDS) * BLOCK_SECONDS - chance.uniform(-0.5, 8) * BLOCK_SECONDS)
    return sorted(found, key=lambda fault: fault.at)


def _moment(chance: random.Random, after: float) -> float:
    """Draw a later moment, often one at which a window opens or closes."""
    later = [edge * BLOCK_SECONDS for edge in _EDGES if edge * BLOCK_SECONDS > after]
    if later and chance.random() < 0.5:
        return later[0] + chance.uniform(-1.5, 1.0) * BLOCK_SECONDS
    return after + chance.expovariate(1 / 15)
