"""The chain client on a localnet in the same process: the node's own bytes, without sockets."""

from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from localnet.chain import Chain
from localnet.grpc_service import Abort, answer
from shannon.chain.client import ChainClient, error_from_status
from shannon.chain.end_events import Wanted
from shannon.chain.model import Block, Event
from shannon.errors import ChainRefusal
from shannon.pb import cosmos_base_tendermint_v1beta1_pb2 as comet_pb
from shannon.transactions.build import Timestamp


async def _at_once(_: str) -> None:
    return


class DirectChain(ChainClient):
    """`gate` is awaited before every question."""

    def __init__(self, chain: Chain, gate: Callable[[str], Awaitable[None]] = _at_once) -> None:
        self._chain = chain
        self._gate = gate

    async def _call_raw(self, method: str, request: Message, height: int = 0) -> bytes:
        await self._gate(method.rsplit("/", 1)[-1])
        try:
            return answer(self._chain, method, request.SerializeToString(), str(height))[0]
        except Abort as abort:
            raise error_from_status(method, abort.code, abort.text) from abort


async def latest_over_grpc(client: ChainClient) -> int:
    """The height that the node which answers over gRPC is at."""
    method = "/cosmos.base.tendermint.v1beta1.Service/GetLatestBlock"
    answered = await client._call(method, comet_pb.GetLatestBlockRequest(), comet_pb.GetLatestBlockResponse)
    return answered.block.header.height


class DirectComet:
    """Blocks and their events, of the same chain."""

    def __init__(self, chain: Chain, gate: Callable[[str], Awaitable[None]] = _at_once) -> None:
        self._chain = chain
        self._gate = gate

    async def block(self, height: int | None = None) -> Block:
        await self._gate("commit")
        found = self._chain.blocks.get(height or self._chain.served_height)
        if found is None:
            raise ChainRefusal(f"height {height} is not there yet")
        return Block(found.height, found.hash, Timestamp(*divmod(found.time_ns, 10**9)))

    async def end_events(self, height: int, wanted: Wanted) -> tuple[Event, ...]:
        await self._gate("block_results")
        block = self._chain.blocks.get(height)
        if block is None:
            raise ChainRefusal(f"height {height} is not there yet")
        return tuple(filter(wanted, block.end_events))


class DirectSettlements:
    """As the miner's, read at once."""

    def __init__(self, comet: DirectComet) -> None:
        self._comet = comet

    async def events(self, height: int, supplier: str) -> tuple[Event, ...]:
        return await self._comet.end_events(height, lambda e: e.attributes.get("supplier_operator_address") == supplier)
