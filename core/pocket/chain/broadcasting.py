"""Send transactions to the mempools of all nodes.

One address may lead to several nodes, and the one that a standing connection reaches may be disconnected from the
network while it accepts everything. Each address therefore also gets the bytes over new connections.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from google.protobuf.message import Message
from structlog.typing import FilteringBoundLogger

from pocket.chain.broadcast_answers import BroadcastAnswers
from pocket.chain.channels import NodeChannel
from pocket.chain.failover import PATIENCE_SHARE, Failover, NodeAddress
from pocket.chain.first_answers import staggered
from pocket.chain.model import TransactionResult
from pocket.chain.node_answer import NodeAnswer
from pocket.errors import ChainError, ChainUnavailable, DecodingError
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb

_LOG: FilteringBoundLogger = structlog.get_logger()
BROADCAST: Final = "/cosmos.tx.v1beta1.Service/BroadcastTx"
_CONNECTIONS: Final = 5
"""New connections to each address that a transaction is sent over, in addition to the standing one."""
_PAUSE_SECONDS: Final = 0.05
_GRACE_SECONDS: Final = 0.5
"""How long a broadcast waits for slower nodes after one has accepted the transaction."""
_MOST_SENDING: Final = 100
"""Transactions on their way to slower nodes. With more, a broadcast waits for every node."""

Ask = Callable[[NodeChannel, str, Message], Awaitable[tuple[bytes, int]]]
"""Queries one node. Returns its checked answer and its height."""


def broadcast_request(raw: bytes) -> tx_pb.BroadcastTxRequest:
    """Return the request to check a signed transaction and to take it into a mempool."""
    return tx_pb.BroadcastTxRequest(tx_bytes=raw, mode=tx_pb.BROADCAST_MODE_SYNC)


class Broadcaster:
    """Sends transactions to all nodes of a client."""

    def __init__(
        self, nodes: Failover[NodeChannel], addresses: Sequence[NodeAddress],
        channel: Callable[[NodeAddress], NodeChannel], ask: Ask, timeout_seconds: float, rng: random.Random,
    ) -> None:  # fmt: skip
        self._nodes = nodes
        self._addresses = addresses
        self._channel = channel
        self._ask = ask
        self._timeout = timeout_seconds
        self._rng = rng
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def sending(self) -> int:
        """Return the number of transactions that are still on their way to some node."""
        return len(self._sending)

    async def close(self) -> None:
        """Stop sending to slower nodes."""
        sending = list(self._sending)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    def _ended(self, sending: "asyncio.Task[None]") -> None:
        self._sending.discard(sending)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            _LOG.error("sending a transaction to a node failed unexpectedly", error=error)

    async def send(self, raw: bytes) -> TransactionResult:
        """Send a transaction.

        Returns the best answer, since one node that accepts the bytes is enough: soon after that the slower ones go on
        in the background. Raises ChainUnavailable if no node answered.
        """
        answers = BroadcastAnswers(raw)
        sending = asyncio.create_task(self._send_to_all(answers))
        self._sending.add(sending)
        sending.add_done_callback(self._ended)
        accepted = asyncio.create_task(answers.accepted.wait())
        try:
            await asyncio.wait([sending, accepted], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([sending], timeout=_GRACE_SECONDS if len(self._sending) <= _MOST_SENDING else None)
        except asyncio.CancelledError:
            sending.cancel()
            raise
        finally:
            accepted.cancel()
        best = answers.best()
        if best is not None:
            return best
        causes = "; ".join(str(answer.error) for answer in answers.standing)
        raise ChainUnavailable(f"{BROADCAST}: no chain node answered ({causes or 'none may be asked'})")

    async def _send_to_all(self, answers: BroadcastAnswers) -> None:
        """Send a transaction to every usable node, within two deadlines."""
        request = broadcast_request(answers.raw)
        await asyncio.gather(*(self._send_to(index, request, answers) for index in self._nodes.order()))

    async def _send_to(self, index: int, request: Message, answers: BroadcastAnswers) -> None:
        """Send a transaction over the standing connection, then over new ones.

        All lead to one address. One after the other: a node that is still checking bytes answers a second time that it
        knows them, even if it then rejects them. A node that is silent, or a connection that fails, does not keep the
        next one waiting. After random pauses: clients that send in step through a balancer that takes its nodes in turn
        would each reach one node only.
        """

        async def ask(channel: NodeChannel) -> tuple[bytes, int]:
            return await self._ask(channel, BROADCAST, request)

        async def standing() -> None:
            answers.add_standing(NodeAnswer.of(await self._nodes.ask_one(index, ask, self._timeout)))

        async def other() -> None:
            await asyncio.sleep(self._rng.uniform(0, _PAUSE_SECONDS))
            channel = self._channel(self._addresses[index])
            try:
                answers.add_other((await ask(channel))[0])
            except (ChainError, DecodingError) as error:
                _LOG.debug("a new connection to a node failed", node=self._nodes.name(index), error=str(error))
            finally:
                await channel.close(None)

        sending = staggered([standing(), *(other() for _ in range(_CONNECTIONS))], PATIENCE_SHARE * self._timeout)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * self._timeout), contextlib.aclosing(sending) as sent:
                async for _ in sent:
                    pass
