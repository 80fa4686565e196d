"""The chain client on a localnet in the same process: the node's own bytes, without sockets."""

from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from localnet.chain import Chain
from localnet.grpc_service import Abort, answer
from shannon.chain.client import ChainClient, error_from_status
from shannon.chain.model import BlockResults
from shannon.errors import ChainRefusal


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


class DirectComet:
    """Block results of the same chain."""

    def __init__(self, chain: Chain, gate: Callable[[str], Awaitable[None]] = _at_once) -> None:
        self._chain = chain
        self._gate = gate

    async def block_results(self, height: int) -> BlockResults:
        await self._gate("block_results")
        block = self._chain.blocks.get(height)
        if block is None:
            raise ChainRefusal(f"height {height} is not there yet")
        codes = tuple(t.result.code for t in block.transactions)
        return BlockResults(height, codes, block.end_events)
