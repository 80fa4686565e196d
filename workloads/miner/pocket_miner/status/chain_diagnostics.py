"""Diagnose the chain's nodes, gas price and clock.

/report, /status and metrics show the result.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pocket.api.problems import ChainFinding
from pocket.chain.client import ChainClient
from pocket.chain.model import Block
from pocket.chain.node_health import NodeAssessment, NodeHealth
from pocket.chain.preflight import clock_problem, gas_price_problem
from pocket.errors import PocketError
from pocket.protocol.transactions.build import GasPrice
from pocket_miner import miner_metrics


class ChainDiagnostics:
    """Holds the latest assessments.

    Texts contain no number that changes with each block.
    """

    def __init__(self, gas_price: GasPrice, block_seconds: float, wall_clock_ns: Callable[[], int]) -> None:
        self._gas_price = gas_price
        self._block_seconds = block_seconds
        self._wall_clock_ns = wall_clock_ns
        self._nodes: dict[str, NodeAssessment] = {}
        self._clock = ""
        self._gas = ""
        self._seen = False

    def on_node_health(self, name: str, assessment: NodeAssessment) -> None:
        """Record a node's assessment by the node monitor."""
        self._nodes[name] = assessment
        miner_metrics.NODE_LAG.labels(name).set(assessment.lag)
        counts = Counter(row.health for row in self._nodes.values())
        for health in NodeHealth:
            miner_metrics.NODES.labels(health.value).set(counts[health])

    def block(self, block: Block) -> None:
        """Compare a new block's time with this machine's clock.

        The first block is not compared: the chain may have halted before this process started.
        """
        now, made = self._wall_clock_ns(), block.time.nanoseconds
        miner_metrics.BLOCK_AGE.set((now - made) / 1e9)
        if self._seen:
            self._clock = clock_problem(made, now, self._block_seconds)
        self._seen = True

    async def refresh(self, chain: ChainClient) -> None:
        """Query the minimum gas price. A failed query changes nothing."""
        with contextlib.suppress(PocketError):
            self._gas = gas_price_problem(await chain.minimum_gas_price(), self._gas_price)

    def rows(self) -> list[Mapping[str, str]]:
        """Return reason and text of every problem, the most severe first."""
        problems = [(ChainFinding.GAS_PRICE_TOO_LOW, self._gas), (ChainFinding.CLOCK_SKEWED, self._clock)]
        for name, row in sorted(self._nodes.items()):
            if row.health is not NodeHealth.HEALTHY:
                text = f"Chain node {name} is {row.health.value}: see spec.chain.nodes."
                problems.append((ChainFinding.CHAIN_NODES_DISAGREE, text))
        return [{"reason": finding.value, "text": text} for finding, text in problems if text]

    def nodes(self) -> Mapping[str, Any]:
        """Return health, lag in blocks and reason of each node.

        The result is empty with a single node.
        """
        return {
            name: {"health": row.health.value, "lag_blocks": row.lag, "reason": row.reason}
            for name, row in sorted(self._nodes.items())
        }
