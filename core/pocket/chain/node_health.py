"""Assess chain nodes by comparing their heights and hashes, without I/O.

A node that answers is not necessarily right. It may lag, follow another fork after a failed upgrade, or belong
to another chain. Nodes are compared at a height that all of them have; the hash that more than half of them give is
the chain's.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

COMPARABLE_BLOCKS: Final = 100
"""A node further behind than this is not compared by hash: others may have pruned that block."""
ALLOWED_LAG_BLOCKS: Final = 2


class NodeHealth(StrEnum):
    """Health of a node compared with the others, best first."""

    HEALTHY = "healthy"
    DISPUTED = "disputed"  # the nodes are split, no hash has more than half of them
    LAGGING = "lagging"
    UNREACHABLE = "unreachable"
    FORKED = "forked"
    WRONG_CHAIN = "wrong_chain"


@dataclass(frozen=True, slots=True)
class NodeProbe:
    """One node's response to a probe.

    `hash` is that of the compared height, None if the node has none.
    """

    height: int = 0
    chain_id: str = ""
    hash: bytes | None = None
    problem: str = ""

    @property
    def answered(self) -> bool:
        """Return whether the node reported a height."""
        return self.height > 0


@dataclass(frozen=True, slots=True)
class NodeAssessment:
    """A node's health.

    `lag` counts blocks behind the best node of the chain, `lasting_lag` those in two probes in a row: one probe may
    meet a block that a node has a moment before the others.
    """

    health: NodeHealth = NodeHealth.HEALTHY
    lag: int = 0
    reason: str = ""
    lasting_lag: int = 0

    @property
    def rank(self) -> tuple[int, int] | None:
        """Return the node's rank. Lower ranks are queried first, None never."""
        if self.health in (NodeHealth.FORKED, NodeHealth.WRONG_CHAIN):
            return None
        if self.health is NodeHealth.LAGGING:
            return 1, self.lag
        return (2, 0) if self.health is NodeHealth.UNREACHABLE else (0, self.lasting_lag)


def compared_height(probes: Sequence[NodeProbe], chain_id: str) -> int:
    """Return the highest height that every comparable node of the chain has.

    Returns 0 for fewer than two comparable nodes.
    """
    heights = [s.height for s in probes if s.answered and s.chain_id == chain_id]
    near = [height for height in heights if height > max(heights) - COMPARABLE_BLOCKS]
    return min(near) if len(near) > 1 else 0


def assess_nodes(
    probes: Sequence[NodeProbe], chain_id: str, allowed_lag: int = ALLOWED_LAG_BLOCKS,
    before: Sequence[NodeAssessment] = (),
) -> tuple[NodeAssessment, ...]:  # fmt: skip
    """Assess each node, in their order.

    `probes` hold the hash at `compared_height`. `before` are the assessments of the probe before.
    """
    hashes = Counter(s.hash for s in probes if s.answered and s.chain_id == chain_id and s.hash is not None)
    agreed, votes = max(hashes.items(), key=lambda row: row[1], default=(None, 0))
    split = len(hashes) > 1 and votes * 2 <= hashes.total()

    def forked(probe: NodeProbe) -> bool:
        return not split and probe.hash is not None and probe.hash != agreed

    best = max((s.height for s in probes if s.answered and s.chain_id == chain_id and not forked(s)), default=0)

    def one(probe: NodeProbe, before: NodeAssessment) -> NodeAssessment:
        if not probe.answered:
            return NodeAssessment(NodeHealth.UNREACHABLE, 0, probe.problem or "no answer")
        if probe.chain_id != chain_id:
            return NodeAssessment(NodeHealth.WRONG_CHAIN, 0, f"it is on chain {probe.chain_id!r}, not on {chain_id!r}")
        lag = max(0, best - probe.height)
        if forked(probe):
            return NodeAssessment(NodeHealth.FORKED, lag, "most other nodes have another block at the same height")
        if split and probe.hash is not None:  # it is unknown which branch is right
            return NodeAssessment(NodeHealth.DISPUTED, 0, "the nodes are split over the block at the same height")
        if lag > allowed_lag:
            return NodeAssessment(NodeHealth.LAGGING, lag, f"it is {lag} blocks behind the best node")
        return NodeAssessment(NodeHealth.HEALTHY, lag, lasting_lag=min(lag, before.lag))

    return tuple(map(one, probes, before or [NodeAssessment()] * len(probes)))


class NodeHealthTable:
    """Latest assessments, shared by all clients of the same nodes."""

    def __init__(self, nodes: int) -> None:
        self.assessments: tuple[NodeAssessment, ...] = (NodeAssessment(),) * nodes

    def rank(self, index: int) -> tuple[int, int] | None:
        """Return the rank of a node (see `NodeAssessment.rank`)."""
        return self.assessments[index].rank
