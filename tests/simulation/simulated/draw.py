"""Draws what goes wrong in a life, within what the system promises to survive.

What is promised: in each window a right node, and Redis or the volume, can be reached for some blocks; of the copies of
a relay one is left; at most one node tells what is not so. So what is grave comes one after the other, with some blocks
between, and what lies is one node, while the other one is there.
"""

import functools
import random
from dataclasses import dataclass, replace

from simulated.plan import BLOCK_SECONDS, NODES, SERVICES, SESSION_ENDS, SUPPLIERS, WINDOW_BLOCKS, Fault, Kind

_LAST_SECONDS = 108.0
_APART_SECONDS = 3.5 * BLOCK_SECONDS
_EDGES = (10, 12, 20, 22, 28, 30, 38)  # heights at which windows open and close
_SETTLEMENTS = (28, 38)  # heights
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


_TAKEN_OVER = frozenset({Kind.GONE, Kind.FREEZE, Kind.VOLUME_LOST})
_LONG_ABSENCES = frozenset({Kind.GONE, Kind.FREEZE, Kind.REDIS_AWAY, Kind.REDIS_HANGS, Kind.LEASES_AWAY})
_ABOUT_NODES_THAT_LIE = frozenset(row.kind for row in _LIES)
_ONLY_ON_VOLUMES = (
    (_Row(Kind.LOG_LOST, _RELAYERS[:1], (0.3, 0.8)), -0.4, 0.2),
    (_Row(Kind.LOG_LOST, _RELAYERS[1:], (0.3, 0.8)), 0.4, 0.6),
    (_Row(Kind.REDIS_EMPTY, _EVERYBODY, (1.0, 1.5)), 1.0, 1.3),
)
_SCENES: tuple[tuple[tuple[_Row, float, float], ...], ...] = (
    # Relays in hand, unread, or in a log alone while their session ends and is sealed.
    ((_Row(Kind.FREEZE_AT_END, _RELAYERS, (7.0, 29.0)), -1.0, 1.3),),
    ((_Row(Kind.REDIS_EMPTY_UNREAD, _EVERYBODY, (1.0, 5.0), (0.0, 5.0)), -4.0, 0.5),),
    ((_Row(Kind.REDIS_EMPTY_UNREAD, _EVERYBODY, (1.0, 3.0), (0.0, 4.0)), 0.0, 0.7),),
    ((_Row(Kind.REDIS_EMPTY_UNREAD, _EVERYBODY, (1.5, 3.0), (1.0, 3.0)), 0.9, 1.5),),
    ((_Row(Kind.UNREAD, _EVERYBODY, (8.0, 10.0)), -0.4, 0.4),
     (_Row(Kind.DISK_SLOW, ("",), (14.0, 16.0), (0.5, 1.2)), 0.5, 0.9)),
    # Relays that only a former owner's volume holds.
    ((_Row(Kind.REDIS_EMPTY, _EVERYBODY, (1.0, 3.0)), 0.7, 1.5),
     (_Row(Kind.SCALE_UP, _EVERYBODY, (40.0, 50.0)), 1.6, 3.5)),
    # Relays that only volumes hold, when their owners change or start again.
    (*_ONLY_ON_VOLUMES, (_Row(Kind.SCALE_UP, _EVERYBODY, (40.0, 50.0)), 1.5, 2.0)),
    (*_ONLY_ON_VOLUMES, (_Row(Kind.KILL, _MINERS[:1], (0.3, 0.8)), 1.8, 2.4),
     (_Row(Kind.KILL, _MINERS[1:], (0.3, 0.8)), 1.8, 2.4)),
    # Relays of which nothing is known but what nodes that fail would answer.
    ((_Row(Kind.NODE_FAILS, _EVERYBODY, (14.0, 16.0), (0.97, 1.0)), -3.0, -2.8),
     (_Row(Kind.REDIS_EMPTY_UNREAD, _EVERYBODY, (1.0, 3.0), (0.0, 2.0)), -2.4, -1.0)),
    # Relays that Redis does not take.
    ((_Row(Kind.REDIS_FULL, _EVERYBODY, (4.0, 7.0)), -7.0, -0.5),),
    ((_Row(Kind.REDIS_FAIL_OVER, _EVERYBODY, share=(0.0, 1.0)), -9.5, -7.5),),
    # Relays that are recorded after the seal, and an owner that had copied them.
    ((_Row(Kind.FREEZE_AT_END, _RELAYERS, (12.0, 15.0)), 0.0, 0.8),
     (_Row(Kind.REDIS_EMPTY, _EVERYBODY, (1.0, 1.5)), 3.3, 3.8),
     (_Row(Kind.GONE, _MINERS, (20.0, 30.0)), 6.0, 8.0)),
    # Claims that no block takes, while their owner goes.
    ((_Row(Kind.NO_TRANSACTIONS, _EVERYBODY, share=(2.0, 2.9)), 2.1, 2.9),
     (_Row(Kind.KILL, _MINERS, (0.3, 0.8)), 3.1, 3.6)),
    ((_Row(Kind.MEMPOOL_LOSS, _EVERYBODY, share=(3.0, 5.0)), 2.1, 2.9),
     (_Row(Kind.GONE, _MINERS, (20.0, 30.0)), 3.1, 3.6)),
    ((_Row(Kind.MEMPOOL_LOSS, _EVERYBODY, share=(1.0, 4.0)), 2.1, 2.9),),
    # The owner changes between claim and proof, with a former one that wakes up or does not know.
    ((_Row(Kind.FREEZE, _MINERS, (15.0, 26.0)), 5.5, 9.9),),
    ((_Row(Kind.FREEZE, _MINERS, (15.0, 26.0)), 1.0, 3.1),),
    ((_Row(Kind.GONE, _MINERS, (40.0, 55.0)), -1.0, 2.0),),
    ((_Row(Kind.LEASES_AWAY, _MINERS, (20.0, 30.0)), -3.5, -1.5),),
    ((_Row(Kind.GONE, _MINERS, (40.0, 55.0)), 4.5, 5.5), (_Row(Kind.REDIS_EMPTY, _EVERYBODY, (1.0, 3.0)), 5.6, 6.5)),
    # Proofs that no block takes.
    ((_Row(Kind.NO_TRANSACTIONS, _EVERYBODY, share=(2.0, 2.9)), 9.2, 9.9),
     (_Row(Kind.KILL, _MINERS, (0.3, 0.8)), 10.1, 10.6)),
    ((_Row(Kind.MEMPOOL_LOSS, _EVERYBODY, share=(2.0, 5.0)), 9.2, 9.9),),
    # Redis loses its data once sessions are sealed, or stays away.
    ((_Row(Kind.REDIS_EMPTY, _EVERYBODY, (1.0, 5.0)), 3.5, 8.0),),
    ((_Row(Kind.REDIS_OLDER, _EVERYBODY, (1.0, 3.0), (2.0, 8.0)), -2.0, 2.5),),
    ((_Row(Kind.REDIS_AWAY, _EVERYBODY, (26.5, 28.5), (0.0, 0.1)), 9.4, 9.7),
     (_Row(Kind.KILL, _MINERS[:1], (0.3, 2.0)), 9.95, 10.2), (_Row(Kind.KILL, _MINERS[1:], (0.3, 2.0)), 9.95, 10.2)),
    # Governance and nodes at the moment that counts.
    ((_Row(Kind.PROOF_PARAMS, _EVERYBODY), 10.2, 14.0),),
    ((_Row(Kind.PRICES, _EVERYBODY), -6.0, 2.0),),
    ((_Row(Kind.NODE_OTHER_HASH, ("",), (12.0, 30.0), (0.5, 1.0)), 6.5, 7.8),),
    # The first proofs are lost while a node shows no claims.
    ((_Row(Kind.NODE_HOLLOW, ("",), (44.0, 52.0)), 1.0, 2.5),
     (_Row(Kind.MEMPOOL_LOSS, _EVERYBODY, share=(4.0, 7.9)), 9.8, 9.98)),
    ((_Row(Kind.NODE_HOLLOW, ("",), (12.0, 20.0), (0.9, 1.0)), 15.5, 17.5),),
    ((_Row(Kind.NODE_LAGS, ("",), (20.0, 40.0), (2.0, 4.9)), -9.5, 4.0),),
    ((_Row(Kind.NODE_FAILS, _EVERYBODY, (6.0, 12.0), (0.3, 0.7)), -9.5, -7.0),),
    ((_Row(Kind.NODE_GARBAGE, NODES, (10.0, 30.0), (0.2, 0.6)), -9.0, 12.0),),
    ((_Row(Kind.NODE_EMPTY, NODES, (15.0, 30.0), (0.4, 0.9)), -10.0, -5.0),),
    ((_Row(Kind.NODE_DOWN, NODES, (25.0, 30.0)), 1.0, 2.0),),
    ((_Row(Kind.NODE_OTHER_CHAIN, ("",), (5.0, 20.0)), -5.0, 12.0),),
)  # fmt: skip
"""What may befall a session, with the blocks after its end between which each fault begins."""

_UNLIKELY = (
    (_Row(Kind.REDIS_KEY_LOST, SUPPLIERS), -9.0, 12.0),
    (_Row(Kind.LEASES_EMPTY, (*_MINERS, ""), (10.0, 40.0), (0.1, 0.4)), -9.0, 12.0),
    (_Row(Kind.LEASES_FAIL, (*_MINERS, ""), (10.0, 40.0), (0.1, 0.5)), -9.0, 12.0),
    (_Row(Kind.PEERS_GARBAGE, _EVERYBODY, (10.0, 40.0), (0.2, 0.8)), -9.0, 8.0),
    (_Row(Kind.NODE_LOW_GAS, _EVERYBODY, (22.0, 52.0), (0.05, 0.4)), 1.0, 2.5),
    (_Row(Kind.NO_FUNDS, SUPPLIERS, (3.0, 9.0)), 1.5, 12.0),
    (_Row(Kind.DISK_HANGS, _MINERS, (3.0, 8.0), (3.0, 9.0)), -9.0, 12.0),
    # Of sessions in which no relays are sent: those before them go on as they began.
    (_Row(Kind.SHARED_PARAMS, _EVERYBODY), 1.2, 12.0),
    (_Row(Kind.CHAIN_HALTS, _EVERYBODY, (40.0, 240.0)), -9.5, 12.0),
    (_Row(Kind.NODE_SILENT, (*NODES, ""), (10.0, 90.0), (0.2, 1.0)), -9.5, 12.0),
    (_Row(Kind.NODE_SLOW, (*NODES, "", ""), (20.0, 90.0), (0.1, 0.5)), -9.5, 12.0),
    (_Row(Kind.NODE_SWALLOWS, NODES, (20.0, 90.0)), 1.0, 12.0),
    (_Row(Kind.NODE_NO_INDEX, (*NODES, ""), (60.0, 110.0)), -9.0, 3.0),
    (_Row(Kind.LEASES_SLOW, (*_MINERS, ""), (10.0, 60.0), (0.2, 1.5)), -9.5, 12.0),
    (_Row(Kind.KEYS_AWAY, _EVERYBODY, (2.0, 9.0)), -9.5, 12.0),
    (_Row(Kind.VOLUME_OLDER, _MINERS, (0.5, 3.0), (1.0, 25.0)), -9.5, 12.0),
    (_Row(Kind.NODE_PRUNES, (*NODES, ""), (60.0, 110.0), (1.0, 9.0)), -9.5, 3.0),
)
"""As `_SCENES`, each of them alone and in few lives."""


def probability(seed: int) -> float:
    """Return with which probability the chain requires proofs when a life begins.

    What is drawn about proofs must matter: a wrong seed hash where some are required, new params where none are.
    """
    kinds = {fault.kind for fault in draw(seed)}
    if Kind.NODE_OTHER_HASH in kinds:
        return 0.5
    if Kind.PROOF_PARAMS in kinds:
        return 0.0
    return random.Random(f"proofs {seed}").choice((1.0, 1.0, 1.0, 0.5))


def draw(seed: int) -> list[Fault]:
    """Draw the faults of a seed in the order in which they begin.

    Every seventh life has none.
    """
    return list(_drawn(seed)[0])


def scenes(seed: int) -> tuple[frozenset[Kind], ...]:
    """Return the kinds of faults in each scene of a life."""
    return _drawn(seed)[1]


@functools.lru_cache(512)
def _drawn(seed: int) -> tuple[tuple[Fault, ...], tuple[frozenset[Kind], ...]]:
    chance = random.Random(f"faults {seed}")
    if not seed % 7:
        return (), ()
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
    chosen = chance.sample(_SCENES, chance.choice((1, 1, 2)))
    for scene in chosen:
        end = chance.choice(SESSION_ENDS)
        if scene[0][0].kind is Kind.REDIS_AWAY:
            end = SESSION_ENDS[-1]  # no other session's relays may wait for Redis
        for row, first, last in scene:
            is_lie = row.kind in _ABOUT_NODES_THAT_LIE
            if is_lie and not liar:
                liar = chance.choice(NODES)
            add(row, (end + chance.uniform(first, last)) * BLOCK_SECONDS, liar if is_lie else None)
    found += _unlikely(seed, len(found))
    lies = [fault for fault in found if fault.kind in _ABOUT_NODES_THAT_LIE]
    apart = [fault for fault in found if fault.kind not in _ABOUT_NODES or not any(_together(fault, x) for x in lies)]
    apart = [
        fault
        for fault in apart
        if fault.kind is not Kind.PROOF_PARAMS or not (_at_the_end(fault) or any(_too_late(fault, x) for x in found))
    ]
    apart = [fault for fault in apart if not any(_takes_the_last_sender(fault, x) for x in found)]
    apart = [fault for fault in apart if not any(_takes_the_last_carrier(fault, x) for x in found)]
    kinds = tuple(frozenset(row.kind for row, _, _ in scene) for scene in chosen)
    return tuple(sorted(map(_hanging, _after_halts(apart)), key=lambda fault: fault.at)), kinds


def _after_halts(faults: list[Fault]) -> list[Fault]:
    """Put off faults by the time for which the chain halts before them, so that their heights stay what they were."""
    halts = [fault for fault in faults if fault.kind is Kind.CHAIN_HALTS]
    late = {fault: sum(halt.seconds for halt in halts if halt.at < fault.at) for fault in faults}
    return [replace(fault, at=fault.at + late[fault]) for fault in faults]


def _unlikely(seed: int, number: int) -> list[Fault]:
    """Draw a fault more for every third life, apart from the others: so those stay what they were."""
    chance = random.Random(f"unlikely {seed}")
    if chance.random() > 0.35:
        return []
    row, first, last = chance.choice(_UNLIKELY)
    at = (chance.choice(SESSION_ENDS) + chance.uniform(first, last)) * BLOCK_SECONDS
    return [Fault(number, row.kind, at, chance.uniform(*row.seconds), chance.choice(row.targets),
                  chance.uniform(*row.share), chance.getrandbits(32))]  # fmt: skip


def _hanging(fault: Fault) -> Fault:
    """Return the same fault, or for every second one that delays or stops Redis a Redis that does not answer."""
    hangs = fault.kind in (Kind.REDIS_SLOW, Kind.REDIS_AWAY) and fault.seed % 2
    return replace(fault, kind=Kind.REDIS_HANGS) if hangs else fault


def _at_the_end(change: Fault) -> bool:
    """Return True if proofs become required when none can be decided, sent and included before the settlement."""
    return any(0 <= height * BLOCK_SECONDS - change.at < 3 * BLOCK_SECONDS for height in _SETTLEMENTS)


def _too_late(change: Fault, away: Fault) -> bool:
    """Return True if proofs become required while a miner is away for long: another one takes over in five blocks."""
    ends = away.at + away.seconds + 3 * BLOCK_SECONDS
    return away.kind in _LONG_ABSENCES and away.at - 2 * BLOCK_SECONDS < change.at < ends


def _takes_the_last_sender(gone: Fault, lost: Fault) -> bool:
    """Return True if a miner goes in the last five blocks of a window in which transactions are lost.

    The next owner, which takes over in five blocks, could not send in time. What is lost from the end of the session on
    is lost in its window, as nothing is sent before.
    """
    if lost.kind is not Kind.MEMPOOL_LOSS or gone.kind not in _TAKEN_OVER:
        return False
    closes = (end + 2 + number * WINDOW_BLOCKS for end in SESSION_ENDS for number in (1, 2))
    return any(
        close - WINDOW_BLOCKS - 2 <= lost.at / BLOCK_SECONDS <= gone.at / BLOCK_SECONDS < close
        and gone.at / BLOCK_SECONDS >= close - 5
        for close in closes
    )


def _takes_the_last_carrier(swallows: Fault, other: Fault) -> bool:
    """Return True for a fault that may take transactions from the only node that passes them on."""
    if swallows.kind is not Kind.NODE_SWALLOWS or other.kind is Kind.MEMPOOL_LOSS:
        return swallows.kind is Kind.NODE_SWALLOWS
    ends = other.at + other.seconds + 3 * BLOCK_SECONDS
    about = _ABOUT_NODES | _ABOUT_NODES_THAT_LIE | {Kind.NODE_FAILS}
    return other.kind in about and other.at < swallows.at + swallows.seconds and swallows.at < ends


def _together(away: Fault, lie: Fault) -> bool:
    """Return True if one node is away while the other one lies: nothing could tell the truth then."""
    return away.target != lie.target and away.at < lie.at + lie.seconds and lie.at < away.at + away.seconds


def _moment(chance: random.Random, after: float) -> float:
    """Draw a later moment, often one at which a window opens or closes."""
    later = [edge * BLOCK_SECONDS for edge in _EDGES if edge * BLOCK_SECONDS > after]
    if later and chance.random() < 0.5:
        return later[0] + chance.uniform(-1.5, 1.0) * BLOCK_SECONDS
    return after + chance.expovariate(1 / 15)
