"""What a miner has to say of the chain's nodes beside whether blocks arrive: for /report, /status and metrics."""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pocket.chain.client import ChainClient
from pocket.chain.model import Block
from pocket.chain.node_health import NodeAssessment, NodeHealth
from pocket.chain.preflight import capacity_advice, clock_problem, gas_price_problem, params_advice
from pocket.errors import PocketError
from pocket.protocol.transactions.build import GasPrice
from pocket_miner import miner_metrics

_LOG = logging.getLogger("miner.chain")


class ChainDiagnostics:
    """Remembers the latest verdicts; texts hold no figure that changes with each block."""

    def __init__(self, gas_price: GasPrice, block_seconds: float, wall_clock_ns: Callable[[], int]) -> None:
        self._gas_price = gas_price
        self._block_seconds = block_seconds
        self._wall_clock_ns = wall_clock_ns
        self._nodes: dict[str, NodeAssessment] = {}
        self._clock = ""
        self._gas = ""
        self._advice: tuple[str, ...] = ()
        self._seen = False

    def on_node_health(self, name: str, verdict: NodeAssessment) -> None:
        """A node's verdict (`NodeWatch`)."""
        self._nodes[name] = verdict
        miner_metrics.NODE_LAG.labels(name).set(verdict.lag)
        counts = Counter(found.health for found in self._nodes.values())
        for health in NodeHealth:
            miner_metrics.NODES.labels(health.value).set(counts[health])

    def block(self, block: Block) -> None:
        """A new block. The first one says nothing: the chain may have stood still before this process started."""
        now, made = self._wall_clock_ns(), block.time.nanoseconds
        miner_metrics.BLOCK_AGE.set((now - made) / 1e9)
        if self._seen:
            self._clock = clock_problem(made, now, self._block_seconds)
        self._seen = True

    async def refresh(self, chain: ChainClient, suppliers: int, processors: int) -> None:
        """Asks for the least gas price and the chain's parameters; an unanswered question changes nothing.

        `suppliers` are mined here, on so many processors.
        """
        with contextlib.suppress(PocketError):
            advice = (capacity_advice(suppliers, processors), *params_advice(await chain.shared_params()))
            self._advise(tuple(text for text in advice if text))
        with contextlib.suppress(PocketError):
            self._gas = gas_price_problem(await chain.minimum_gas_price(), self._gas_price)

    def _advise(self, advice: tuple[str, ...]) -> None:
        """Once for each text: there is nothing that a reader could repair."""
        for text in advice:
            if text not in self._advice:
                _LOG.warning("%s", text)
        self._advice = advice

    def rows(self) -> list[Mapping[str, str]]:
        """Reason and text of everything that is not as it should be, the worst first."""
        found = [("GasPriceTooLow", self._gas), ("ClockSkewed", self._clock)]
        for name, verdict in sorted(self._nodes.items()):
            if verdict.health is not NodeHealth.HEALTHY:
                found.append(
                    ("ChainNodesDisagree", f"Chain node {name} is {verdict.health.value}: see spec.chain.nodes.")
                )
        return [{"reason": reason, "text": text} for reason, text in found if text]

    def nodes(self) -> Mapping[str, Any]:
        """Standing, lag in blocks and reason of each node; empty where there is one only."""
        return {
            name: {"health": found.health.value, "lag_blocks": found.lag, "reason": found.reason}
            for name, found in sorted(self._nodes.items())
        }
