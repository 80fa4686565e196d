"""The chain client on a localnet in the same process: the node's own bytes, without sockets."""

from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from pocket.chain.broadcast_answers import BroadcastAnswers
from pocket.chain.broadcasting import BROADCAST, broadcast_request
from pocket.chain.client import ChainClient
from pocket.chain.end_block_events import EventFilter
from pocket.chain.failures import classify_rpc, error_from_status, error_of
from pocket.chain.model import Block, Event, TransactionResult
from pocket.chain.node_answer import NodeAnswer
from pocket.chain.response_checks import check_answer
from pocket.errors import ChainError, ChainUnavailable, DecodingError
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.pb import cosmos_base_tendermint_v1beta1_pb2 as comet_pb
from pocket.protocol.transactions.build import Timestamp
from pocket_localnet.grpc_service import Abort, answer
from pocket_localnet.local_chain import LocalChain


async def _at_once(_: str) -> None:
    return


class DirectChain(ChainClient):
    """`gate` is awaited before every question."""

    def __init__(self, chain: LocalChain, gate: Callable[[str], Awaitable[None]] = _at_once) -> None:
        self._chain = chain
        self._gate = gate

    async def _call_raw(self, method: str, request: Message, height: int = 0) -> bytes:
        await self._gate(method.rsplit("/", 1)[-1])
        try:
            return answer(self._chain, method, request.SerializeToString(), str(height))[0]
        except Abort as abort:
            raise error_from_status(method, abort.code, abort.text, self._chain.served_height) from abort

    async def _call(self, method, request, response, height=0):
        """Call the node and reject malformed answers, as the client does."""
        raw = await self._call_raw(method, request, height)
        try:
            check_answer(method, request, raw)
        except DecodingError as error:
            raise ChainUnavailable(str(error)) from error
        return response.FromString(raw)

    async def ask_every_node(self, method: str, request: Message, height: int = 0) -> dict[str, NodeAnswer]:
        """Ask the only node."""
        try:
            raw = await self._call_raw(method, request, height)
            check_answer(method, request, raw)
        except (ChainError, DecodingError) as error:
            failed = error if isinstance(error, ChainError) else ChainUnavailable(str(error))
            return {"direct": NodeAnswer(error=failed, height=failed.height)}
        return {"direct": NodeAnswer(raw, height or self._chain.served_height)}

    async def broadcast(self, raw: bytes) -> TransactionResult:
        """Send a transaction to the only node."""
        answers = BroadcastAnswers(raw)
        for reply in (await self.ask_every_node(BROADCAST, broadcast_request(raw))).values():
            answers.add_standing(reply)
        best = answers.best()
        if best is None:
            raise ChainUnavailable(f"{BROADCAST}: no chain node answered")
        return best

    async def claims_by_node(self, supplier: str, height: int) -> dict[str, list[Claim] | ChainError]:
        try:
            return {"direct": await self.claims_of(supplier, height)}
        except ChainError as error:
            return {"direct": error}


async def latest_over_grpc(client: ChainClient) -> int:
    """Return the height of the node that answers over gRPC."""
    method = "/cosmos.base.tendermint.v1beta1.Service/GetLatestBlock"
    answered = await client._call(method, comet_pb.GetLatestBlockRequest(), comet_pb.GetLatestBlockResponse)
    return answered.block.header.height


def not_there(height: int, latest: int) -> ChainError:
    text = f"height {height} must be less than or equal to the current blockchain height {latest}"
    return error_of(classify_rpc(text), text)


class DirectComet:
    """Blocks and their events, of the same chain."""

    def __init__(self, chain: LocalChain, gate: Callable[[str], Awaitable[None]] = _at_once) -> None:
        self._chain = chain
        self._gate = gate

    async def block(self, height: int | None = None) -> Block:
        await self._gate("commit")
        found = self._chain.blocks.get(height or self._chain.served_height)
        if found is None:
            raise not_there(height or 0, self._chain.height)
        return Block(found.height, found.hash, Timestamp(*divmod(found.time_ns, 10**9)))

    async def end_events(self, height: int, wanted: EventFilter) -> tuple[Event, ...]:
        await self._gate("block_results")
        block = self._chain.blocks.get(height)
        if block is None:
            raise not_there(height, self._chain.height)
        return tuple(filter(wanted, block.end_events))

    async def hashes_by_node(self, height: int) -> dict[str, bytes | ChainError]:
        try:
            return {"direct": (await self.block(height)).hash}
        except ChainError as error:
            return {"direct": error}


class DirectSettlements:
    """As the miner's, read at once."""

    def __init__(self, comet: DirectComet) -> None:
        self._comet = comet

    async def events(self, height: int, supplier: str) -> tuple[Event, ...]:
        return await self._comet.end_events(height, lambda e: e.attributes.get("supplier_operator_address") == supplier)

    async def events_by_node(self, height: int, supplier: str, now: int) -> dict[str, tuple[Event, ...]]:
        try:
            return {"direct": await self.events(height, supplier)}
        except ChainError:
            return {}
