"""Probe all nodes together, so that lagging or forked ones are not queried."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import aiohttp
import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain.channels import NodeChannel, channel_of
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.node_health import (
    NodeAssessment,
    NodeHealth,
    NodeHealthTable,
    NodeProbe,
    assess_nodes,
    compared_height,
)
from pocket.errors import PocketError

_LOG: FilteringBoundLogger = structlog.get_logger()
OnAssessment = Callable[[str, NodeAssessment], None]


class NodeMonitor:
    """Probes every node's height and hash and updates `node_health`.

    With a single node it does nothing.
    """

    def __init__(
        self,
        addresses: Sequence[NodeAddress],
        http: aiohttp.ClientSession,
        chain_id: str,
        node_health: NodeHealthTable,
        *,
        timeout_seconds: float = 5.0,
        on_assessment: OnAssessment = lambda name, assessment: None,
        channel: Callable[[NodeAddress], NodeChannel] = channel_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call `on_assessment` with every node and its assessment after each probe.

        A node's name is host:port.
        """
        self._names = [address.name for address in addresses]
        self._clients = [ChainClient([address], timeout_seconds, channel=channel, clock=clock) for address in addresses]
        self._blocks = [
            CometClient([address], http, timeout_seconds, chain_id=chain_id, clock=clock) for address in addresses
        ]
        self._chain_id = chain_id
        self._node_health = node_health
        self._on_assessment = on_assessment

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            await client.close()

    async def probe_all(self) -> None:
        """Probe all nodes once. Never raises because of a node."""
        if len(self._clients) < 2:
            return
        probes = await asyncio.gather(*map(self._probe, self._clients, self._blocks))
        height = compared_height(probes, self._chain_id)
        if height:
            probes = await asyncio.gather(*map(self._with_hash, self._blocks, probes, [height] * len(probes)))
        before = self._node_health.assessments
        self._node_health.assessments = assess_nodes(probes, self._chain_id, before=before)
        for name, old, new in zip(self._names, before, self._node_health.assessments, strict=True):
            self._on_assessment(name, new)
            if old.health is not new.health:
                _log_change(name, new)

    async def _probe(self, client: ChainClient, blocks: CometClient) -> NodeProbe:
        """Probe one node.

        It must answer on both of its interfaces, and on both for the same chain.
        """
        try:
            block, network = await blocks.latest_of_any_chain()
            if network != self._chain_id:
                return NodeProbe(block.height, network, block.hash)
            return NodeProbe(block.height, await client.chain_id(), block.hash)
        except PocketError as error:
            return NodeProbe(problem=str(error))

    async def _with_hash(self, blocks: CometClient, probe: NodeProbe, height: int) -> NodeProbe:
        if not probe.answered or probe.height == height:
            return probe
        try:
            block_hash = (await blocks.block(height)).hash if probe.height > height else None
        except PocketError:
            block_hash = None  # pruned, or it just went away: nothing to compare
        return replace(probe, hash=block_hash)

    async def run(self, seconds: float, rng: random.Random | None = None) -> None:
        """Probe all nodes every `seconds` seconds, without end."""
        rng = rng or random.Random()  # noqa: S311 - jitter
        while len(self._clients) > 1:
            await self.probe_all()
            await asyncio.sleep(seconds * rng.uniform(0.8, 1.2))


def _log_change(name: str, assessment: NodeAssessment) -> None:
    if assessment.health is NodeHealth.HEALTHY:
        _LOG.info("chain node is healthy again", node=name)
    elif assessment.rank is None:
        _LOG.error("chain node is no longer queried: check spec.chain.nodes", node=name, reason=assessment.reason)
    else:
        _LOG.warning("chain node is not healthy", node=name, reason=assessment.reason)
