"""Show relayers, miners, shards, chain nodes and rollouts.

Shards are shown with their holders.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pocket.api.miner_status import NodeState
from pocket_console.snapshot import AnswerFreshness, ConsoleSnapshot, MinerSnapshot, RelayerSnapshot, UnhealthyEndpoint
from pocket_console.views.merged import Merged
from pocket_console.views.sessions import Tone

_LOW_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A relayer or miner.

    `age` is the seconds since its last answer, None if it never answered. It is `silent` if it did not answer the
    latest poll.
    """

    name: str
    component: str
    state: str
    tone: Tone
    problems: tuple[str, ...]
    age: float | None
    stale: bool
    silent: bool
    height: int | None
    detail: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ShardCell:
    """A shard and its holder, empty without one.

    With several holders the one of the highest epoch counts.
    """

    number: int
    holder: str
    epoch: int
    suppliers: int
    colour: int


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """The volume of a miner, in bytes."""

    miner: str
    total: int
    free: int
    used_share: float
    tone: Tone
    problem: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A chain node as the miners assess it."""

    name: str
    health: str
    lag_blocks: int
    reason: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class RelayMinerRow:
    """A RelayMiner resource with its conditions.

    It has the progress of rollout and update, too.
    """

    name: str
    namespace: str
    ready: str
    relayers: str
    miners: str
    served: str
    version: str
    rollout: str
    update: str
    conditions: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class FleetView:
    """All processes."""

    relayers: tuple[ProcessRow, ...]
    miners: tuple[ProcessRow, ...]
    shards: tuple[ShardCell, ...]
    unowned: int
    nodes: tuple[NodeRow, ...]
    volumes: tuple[VolumeRow, ...]
    relay_miners: tuple[RelayMinerRow, ...]
    cluster_error: str


def fleet_view(snapshot: ConsoleSnapshot, picture: Merged, now: float) -> FleetView:
    """Return all processes and what they own."""
    shards = shard_cells(snapshot, picture, now)
    cluster = snapshot.cluster
    return FleetView(
        relayers=tuple(relayer_row(row, now) for row in snapshot.relayers),
        miners=tuple(miner_row(row, now) for row in snapshot.miners),
        shards=shards,
        unowned=sum(1 for cell in shards if not cell.holder),
        nodes=node_rows(snapshot, now),
        volumes=volume_rows(snapshot),
        relay_miners=tuple(_relay_miner(row) for row in cluster.relay_miners) if cluster is not None else (),
        cluster_error=cluster.freshness.error if cluster is not None else "",
    )


def relayer_row(relayer: RelayerSnapshot, now: float) -> ProcessRow:
    """Return a relayer as a row."""
    state, latest = relayer.state, relayer.samples[-1] if relayer.samples else None
    detail: list[tuple[str, str]] = []
    problems: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    if state is not None:
        problems = tuple(problem.message for problem in state.problems)
        detail += [("workers", str(state.workers)), ("keys", str(len(state.addresses)))]
        detail += [("restarts", str(state.restarts))] if state.restarts else []
        backends = tuple(_unavailable(row) for row in state.unhealthy)
    if latest is not None:
        detail += [("in flight", f"{latest.in_flight:g}"), ("connections", f"{latest.connections:g}")]
    label, tone = _state(relayer.freshness, problems, now, known=state is not None)
    return ProcessRow(
        name=relayer.origin.name,
        component="relayer",
        state=label,
        tone=tone,
        problems=_with_error((*problems, *backends), relayer.freshness.error),
        age=relayer.freshness.age(now),
        stale=relayer.freshness.stale(now),
        silent=relayer.freshness.silent(now),
        height=state.height if state is not None else None,
        detail=tuple(detail),
    )


def _unavailable(endpoint: UnhealthyEndpoint) -> str:
    reason = endpoint.problem or "its circuit breaker is open"
    return f"{endpoint.endpoint} of {endpoint.service} gets no requests: {reason}"


def miner_row(miner: MinerSnapshot, now: float) -> ProcessRow:
    """Return a miner as a row."""
    state = miner.state
    problems: tuple[str, ...] = ()
    detail: list[tuple[str, str]] = []
    if state is not None:
        problems = tuple(problem.message for problem in state.problems)
        detail = [
            ("phase", state.phase), ("role", "leader" if state.leader else "member"),
            ("shards", f"{len(state.shards)} of {state.shard_count}"),
            ("suppliers", f"{len(state.owned)} of {len(state.suppliers)}"),
            ("open sessions", str(sum(state.sessions.values()))), ("version", state.version),
        ]  # fmt: skip
    label, tone = _state(miner.freshness, problems, now, known=state is not None)
    return ProcessRow(
        name=miner.origin.name,
        component="miner",
        state=label,
        tone=tone,
        problems=_with_error(problems, miner.freshness.error),
        age=miner.freshness.age(now),
        stale=miner.freshness.stale(now),
        silent=miner.freshness.silent(now),
        height=state.height if state is not None else None,
        detail=tuple(detail),
    )


def _with_error(problems: tuple[str, ...], error: str) -> tuple[str, ...]:
    return (f"does not answer: {error}", *problems) if error else problems


def _state(freshness: AnswerFreshness, problems: tuple[str, ...], now: float, *, known: bool) -> tuple[str, Tone]:
    if not known:
        return "never answered", Tone.BAD
    if freshness.silent(now):
        return "no answer", Tone.BAD if freshness.stale(now) else Tone.WARN
    return ("not ready", Tone.WARN) if problems else ("ready", Tone.GOOD)


def shard_cells(snapshot: ConsoleSnapshot, picture: Merged, now: float) -> tuple[ShardCell, ...]:
    """Return all shards with their holders, by the miners that answer."""
    holders: dict[int, tuple[int, str]] = {}
    for miner in snapshot.miners:
        if miner.state is None or miner.freshness.stale(now):
            continue
        for shard, epoch in miner.state.shards.items():
            holders[shard] = max(holders.get(shard, (0, "")), (epoch, miner.origin.name))
    names = sorted(miner.origin.name for miner in snapshot.miners)
    suppliers: dict[int, int] = {}
    for supplier in picture.suppliers.values():
        suppliers[supplier.shard] = suppliers.get(supplier.shard, 0) + 1
    count = max((miner.state.shard_count for miner in snapshot.miners if miner.state is not None), default=0)
    return tuple(
        ShardCell(number, holder, epoch, suppliers.get(number, 0), names.index(holder) % 6 if holder else -1)
        for number in range(count)
        for epoch, holder in [holders.get(number, (0, ""))]
    )


def node_rows(snapshot: ConsoleSnapshot, now: float) -> tuple[NodeRow, ...]:
    """Return the chain nodes, each with its worst assessment.

    The assessments are those of the miners that answer.
    """
    nodes_by_name: dict[str, NodeState] = {}
    for miner in snapshot.miners:
        if miner.state is None or miner.freshness.stale(now):
            continue
        for name, node in miner.state.nodes.items():
            known = nodes_by_name.get(name)
            if known is None or (known.health == "healthy" and node.health != "healthy"):
                nodes_by_name[name] = node
    return tuple(
        NodeRow(name, node.health, node.lag_blocks, node.reason, _node_tone(node.health))
        for name, node in sorted(nodes_by_name.items())
    )


def _node_tone(health: str) -> Tone:
    return Tone.GOOD if health == "healthy" else Tone.WARN if health in ("lagging", "disputed") else Tone.BAD


def volume_rows(snapshot: ConsoleSnapshot) -> tuple[VolumeRow, ...]:
    """Return the volumes that were measured."""
    rows = []
    for miner in snapshot.miners:
        volume = miner.state.volume if miner.state is not None else None
        if volume is None or not volume.total:
            continue
        low = volume.free < _LOW_SHARE * volume.total
        tone = Tone.BAD if volume.read_only else Tone.WARN if volume.problem or low else Tone.GOOD
        problem = "read-only" if volume.read_only and not volume.problem else volume.problem
        rows.append(
            VolumeRow(miner.origin.name, volume.total, volume.free, 1 - volume.free / volume.total, tone, problem)
        )
    return tuple(rows)


def _relay_miner(resource: Mapping[str, Any]) -> RelayMinerRow:
    metadata, status = resource.get("metadata") or {}, resource.get("status") or {}
    conditions = tuple(status.get("conditions") or ())
    ready: Mapping[str, Any] = next((row for row in conditions if row.get("type") == "Ready"), {})
    rollout, update = status.get("rollout") or {}, status.get("update") or {}
    return RelayMinerRow(
        name=str(metadata.get("name", "")),
        namespace=str(metadata.get("namespace", "")),
        ready=str(ready.get("status", "Unknown")),
        relayers=str((status.get("relayers") or {}).get("summary", "")),
        miners=str((status.get("miners") or {}).get("summary", "")),
        served=str(status.get("served", "")),
        version=str(status.get("version", "")),
        rollout=" ".join(str(rollout.get(name) or "") for name in ("phase", "revision")).strip(),
        update=" ".join(str(update.get(name) or "") for name in ("phase", "message")).strip(),
        conditions=conditions,
    )
