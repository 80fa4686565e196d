"""Show what was earned, what is at risk and what is wrong.

These are an owner's first questions.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from pocket.api.miner_status import DayTotals, OpenSession
from pocket_console.snapshot import ConsoleSnapshot
from pocket_console.views.charts import Chart, earned_by_block, earned_by_day
from pocket_console.views.fleet import (
    NodeRow,
    ProcessRow,
    VolumeRow,
    miner_row,
    node_rows,
    relayer_row,
    shard_cells,
    volume_rows,
)
from pocket_console.views.merged import Merged, all_days
from pocket_console.views.sessions import SessionRow, Tone, row_of, stage_of
from pocket_console.views.suppliers import supplier_rows
from pocket_console.views.timeline import Axis, axis_of

_DEADLINES: Final = 8
_RECIPIENTS: Final = 8
_ATTENTION: Final = 20
_LOSSES: Final = 5


@dataclass(frozen=True, slots=True)
class Money:
    """Amounts in upokt. `today` is by the chain's clock."""

    earned_today: int
    recipients: tuple[tuple[str, int], ...]
    more_recipients: int
    sessions_today: int
    relays_today: int
    fees_today: int
    lost_today: int
    lost_by: tuple[tuple[str, int], ...]
    in_flight: int
    open_sessions: int
    at_risk: int
    sessions_at_risk: int


@dataclass(frozen=True, slots=True)
class Attention:
    """Something that needs attention, with the page that shows more."""

    tone: Tone
    what: str
    text: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class RedisRow:
    """Redis as the miners see it."""

    problem: str
    used_memory: int
    max_memory: int
    tone: Tone


@dataclass(frozen=True, slots=True)
class OverviewView:
    """The first page. `stages` counts open sessions by stage, named as in the tables."""

    height: int
    today: str
    block_age: float | None
    block_seconds: float
    money: Money
    stages: tuple[tuple[str, int], ...]
    deadlines_axis: Axis
    deadlines: tuple[SessionRow, ...]
    losses_axis: Axis
    losses: tuple[SessionRow, ...]
    attention: tuple[Attention, ...]
    more_attention: int
    nodes: tuple[NodeRow, ...]
    redis: RedisRow | None
    volumes: tuple[VolumeRow, ...]
    processes: tuple[ProcessRow, ...]
    charts: tuple[Chart, ...]
    suppliers: int


def overview_view(snapshot: ConsoleSnapshot, picture: Merged, now: float) -> OverviewView:
    """Return the first page."""
    miners = (miner_row(row, now) for row in snapshot.miners)
    relayers = (relayer_row(row, now) for row in snapshot.relayers)
    processes = (*miners, *relayers)
    days = all_days(picture)
    owed = [session for session in picture.open if session.due is not None][:_DEADLINES]
    lost = [session for session in picture.ended if session.lost][:_LOSSES]
    owed_axis, lost_axis = axis_of(owed, picture.height), axis_of(lost, picture.height)
    attention = _attention(snapshot, picture, processes, now)
    charts = [earned_by_block(picture.ended, "Earned by block of settlement")]
    if len(days) > 1:
        charts.append(earned_by_day(days, "Earned by day"))
    states = [miner.state for miner in snapshot.miners if miner.state is not None]
    ages = [
        state.block_age_seconds + (miner.freshness.age(now) or 0.0)
        for miner in snapshot.miners if (state := miner.state) is not None and state.height
    ]  # fmt: skip
    stages = Counter(stage_of(session)[0] for session in picture.open)
    return OverviewView(
        height=picture.height,
        today=picture.today,
        block_age=min(ages, default=None),
        block_seconds=max((state.block_seconds for state in states), default=0.0),
        money=money_of(picture, days.get(picture.today, DayTotals())),
        stages=tuple(sorted(stages.items(), key=lambda row: (-row[1], row[0]))),
        deadlines_axis=owed_axis,
        deadlines=tuple(row_of(session, picture, owed_axis) for session in owed),
        losses_axis=lost_axis,
        losses=tuple(row_of(session, picture, lost_axis) for session in lost),
        attention=attention[:_ATTENTION],
        more_attention=max(0, len(attention) - _ATTENTION),
        nodes=node_rows(snapshot, now),
        redis=_redis(snapshot, now),
        volumes=volume_rows(snapshot),
        processes=processes,
        charts=tuple(charts),
        suppliers=len(picture.suppliers),
    )


def money_of(picture: Merged, today: DayTotals) -> Money:
    """Return what was earned and lost today, and what is open."""
    recipients = sorted(today.earned_by.items(), key=lambda row: (-row[1], row[0]))
    risky = [session for session in picture.open if at_risk(session)]
    return Money(
        earned_today=today.earned_upokt,
        recipients=tuple(recipients[:_RECIPIENTS]),
        more_recipients=max(0, len(recipients) - _RECIPIENTS),
        sessions_today=today.sessions,
        relays_today=today.relays,
        fees_today=today.fees_upokt,
        lost_today=today.lost_upokt,
        lost_by=tuple(sorted(today.lost_by.items(), key=lambda row: (-row[1], row[0]))),
        in_flight=sum(session.value_upokt or 0 for session in picture.open),
        open_sessions=len(picture.open),
        at_risk=sum(session.value_upokt or 0 for session in risky),
        sessions_at_risk=len(risky),
    )


def at_risk(session: OpenSession) -> bool:
    """Return True if a session is in danger of being lost.

    It owes something in the last third of its window, or has a problem that costs it.
    """
    return session.closing or bool(session.problem)


def _redis(snapshot: ConsoleSnapshot, now: float) -> RedisRow | None:
    states = [miner.state for miner in snapshot.miners if miner.state is not None and not miner.freshness.stale(now)]
    if not states:
        return None
    problem = next((state.redis.problem for state in states if state.redis.problem), "")
    used = max(state.redis.used_memory for state in states)
    maximum = max(state.redis.max_memory for state in states)
    full = maximum and used > 0.9 * maximum
    return RedisRow(problem, used, maximum, Tone.BAD if problem else Tone.WARN if full else Tone.GOOD)


def _attention(
    snapshot: ConsoleSnapshot, picture: Merged, processes: tuple[ProcessRow, ...], now: float
) -> tuple[Attention, ...]:
    """Return what is not as it should be, the gravest first."""
    problems: list[Attention] = []
    for process in processes:
        for problem in process.problems or (("no answer yet",) if process.state == "never answered" else ()):
            tone = Tone.BAD if process.tone is Tone.BAD else Tone.WARN
            problems.append(Attention(tone, f"{process.component} {process.name}", problem, "/fleet"))
    if snapshot.cluster is not None and snapshot.cluster.freshness.error:
        problems.append(Attention(Tone.BAD, "cluster", snapshot.cluster.freshness.error, "/fleet"))
    for miner in snapshot.miners:
        if miner.state is not None and not miner.freshness.stale(now):
            problems += [Attention(Tone.WARN, note.reason, note.text, "/fleet") for note in miner.state.chain]
            if miner.state.volume.problem:
                problems.append(
                    Attention(Tone.WARN, f"volume of {miner.origin.name}", miner.state.volume.problem, "/fleet")
                )
    shards = shard_cells(snapshot, picture, now)
    unowned = [cell for cell in shards if not cell.holder and cell.suppliers]
    if unowned and all(not miner.freshness.stale(now) for miner in snapshot.miners):
        numbers = ", ".join(str(cell.number) for cell in unowned[:8])
        problems.append(Attention(Tone.BAD, "shards", f"no miner owns shard {numbers}", "/fleet"))
    for supplier in supplier_rows(snapshot, picture):
        if not supplier.problems:
            break  # those with a problem come first
        tone = Tone.BAD if supplier.tone is Tone.BAD else Tone.WARN
        name = f"supplier {supplier.resource or supplier.address}"
        problems.append(Attention(tone, name, supplier.problems[0], f"/suppliers/{supplier.address}"))
    for session in picture.open:
        if session.problem:
            problems.append(
                Attention(Tone.BAD, f"session {session.session_id[:12]}", session.problem,
                          f"/sessions/{session.supplier}/{session.session_id}")
            )  # fmt: skip
    unique = tuple(dict.fromkeys(problems))
    return tuple(sorted(unique, key=lambda row: row.tone is not Tone.BAD))
