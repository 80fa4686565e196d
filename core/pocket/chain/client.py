"""Query the chain over gRPC with failover between nodes.

Source: docs/protocol/messages.md, sections 3 to 10.
"""

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from pocket.chain import convert
from pocket.chain.broadcasting import Broadcaster
from pocket.chain.channels import NodeChannel, channel_of
from pocket.chain.failover import PATIENCE_SHARE, Failover, NodeAddress, QueryObserver
from pocket.chain.failures import error_from_status
from pocket.chain.model import (
    Account,
    Application,
    Block,
    Difficulty,
    Session,
    StakedSupplier,
    StakingParams,
    TransactionResult,
)
from pocket.chain.node_answer import HEIGHT_HEADER, NodeAnswer, height_of
from pocket.chain.node_health import ALLOWED_LAG_BLOCKS, NodeHealthTable
from pocket.chain.pages import ALL_APPLICATIONS, ALL_CLAIMS, all_applications, all_claims
from pocket.chain.response_checks import OF_THE_PRESENT, check_answer, required_height
from pocket.errors import STATED, ChainError, ChainUnavailable, DecodingError, FailureClass, MethodNotImplemented
from pocket.protocol.claims.proof_requirement import Claim, ProofParams
from pocket.protocol.claims.rewards import TokenomicsParams
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import cosmos_bank_v1beta1_pb2 as bank_pb
from pocket.protocol.pb import cosmos_base_node_v1beta1_pb2 as node_pb
from pocket.protocol.pb import cosmos_base_tendermint_v1beta1_pb2 as comet_pb
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import DENOMINATION

_LIST_DEADLINES: Final = 6
"""Deadlines of a query that a list in pages may take. Each page has one."""
M = TypeVar("M", bound=Message)
T = TypeVar("T")


class ChainClient:
    """Typed queries that have a deadline and try the nodes in turn.

    Raises NotFound and ChainQueryRejected for statements of the chain, MethodNotImplemented, and ChainUnavailable for
    everything else.
    """

    def __init__(
        self,
        addresses: Sequence[NodeAddress],
        timeout_seconds: float = 5.0,
        node_health: NodeHealthTable | None = None,
        *,
        channel: Callable[[NodeAddress], NodeChannel] = channel_of,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_query: QueryObserver | None = None,
    ) -> None:
        self._channels = [channel(address) for address in addresses]
        names = [address.name for address in addresses]
        self._nodes = Failover(
            self._channels, clock, node_health=node_health, names=names, on_query=on_query,
            renew=lambda channel: channel.renew(),
        )  # fmt: skip
        self._timeout = timeout_seconds
        self.latest_height: Callable[[], int] = lambda: 0
        """The chain's height as this process knows it, 0 if it does not follow the chain."""
        self._broadcaster = Broadcaster(
            self._nodes, tuple(addresses), channel, self._ask_node, timeout_seconds,
            rng or random.Random(),  # noqa: S311 - jitter, not cryptography
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def direct(self) -> "ChainClient":
        """Return a client that queries the nodes without caches."""
        return self

    async def close(self) -> None:
        """Close every channel.

        Transactions that are still sent to slower nodes are abandoned.
        """
        await self._broadcaster.close()
        for channel in self._channels:
            await channel.close(None)

    async def _call(self, method: str, request: Message, response: type[M], height: int = 0) -> M:
        raw = await self._call_raw(method, request, height)
        try:
            return response.FromString(raw)
        except DecodeError as error:
            raise DecodingError(f"{method}: the node's answer cannot be read") from error

    async def _call_raw(self, method: str, request: Message, height: int = 0) -> bytes:
        """Return a checked answer as of a height, 0 for the latest."""

        async def ask(channel: NodeChannel) -> bytes:
            return (await self._ask_node(channel, method, request, height))[0]

        return await self._nodes.call(method, ask, self._timeout)

    async def _ask_node(
        self, channel: NodeChannel, method: str, request: Message, height: int = 0
    ) -> tuple[bytes, int]:
        """Query one node and return its checked answer with the height of its state.

        The height is 0 if the node does not report it.
        """
        metadata = ((HEIGHT_HEADER, str(height)),) if height else ()
        call = channel.unary_unary(method, None, None)(
            request.SerializeToString(), timeout=self._timeout, metadata=metadata
        )
        try:
            answer: bytes = await call
            committed = height_of(await call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            at = height_of(error.initial_metadata()) or height_of(error.trailing_metadata())
            failed = error_from_status(method, error.code(), error.details() or "", at)
            if failed.failure in STATED:
                self._require_height(method, at, self._least_height(method, request, height))
            raise failed from error
        present = method in OF_THE_PRESENT
        needed = self._least_height(method, request, height) if present else required_height(method, request)
        self._require_height(method, committed, needed)
        check_answer(method, request, answer)
        return answer, committed

    def _least_height(self, method: str, request: Message, height: int) -> int:
        """Return the height that a node must have for an answer about the present.

        Returns 0 for a query as of a past height.
        """
        return 0 if height else max(required_height(method, request), self.latest_height() - ALLOWED_LAG_BLOCKS)

    def _require_height(self, method: str, committed: int, needed: int) -> None:
        """Raise ChainUnavailable for a node that is known to be at a lower height."""
        if 0 < committed < needed:
            text = f"{method}: the node is at height {committed} and has not committed {needed} yet"
            raise ChainUnavailable(text, failure=FailureClass.LAGGING_NODE, height=committed)

    async def ask_every_node(self, method: str, request: Message, height: int = 0) -> dict[str, NodeAnswer]:
        """Query every usable node without caches. Returns the answers by node name."""

        async def ask(channel: NodeChannel) -> tuple[bytes, int]:
            return await self._ask_node(channel, method, request, height)

        answers = await self._nodes.ask_all(ask, self._timeout)
        return {name: NodeAnswer.of(row) for name, row in answers.items()}

    async def decoded_by_node(
        self, method: str, request: Message, response: type[M], decode: Callable[[M], T], height: int = 0
    ) -> dict[str, T]:
        """Query every usable node without caches.

        Returns what those state that answer usably, by node name.
        """
        decoded = {}
        for name, answer in (await self.ask_every_node(method, request, height)).items():
            if answer.error is None:
                with contextlib.suppress(DecodingError):
                    decoded[name] = decode(response.FromString(answer.raw))
        return decoded

    async def adopt(self, method: str, request: Message, raw: bytes | None) -> None:
        """Replace the cached answer to a query, or drop it for None.

        This client has no caches.
        """

    async def chain_id(self) -> str:
        """Network name of the node."""
        method = "/cosmos.base.tendermint.v1beta1.Service/GetNodeInfo"
        answer = await self._call(method, comet_pb.GetNodeInfoRequest(), comet_pb.GetNodeInfoResponse)
        return answer.default_node_info.network

    async def minimum_gas_price(self) -> str:
        """Return the node's minimum gas price, empty if there is none."""
        method = "/cosmos.base.node.v1beta1.Service/Config"
        answer = await self._call(method, node_pb.ConfigRequest(), node_pb.ConfigResponse)
        return answer.minimum_gas_price

    async def block(self, height: int) -> Block:
        """Return a committed block. Raises ChainUnavailable if no node has it yet.

        The response contains all transactions of the block. `CometClient.block` costs a thousandth of that.
        """
        answer = await self._call(
            "/cosmos.base.tendermint.v1beta1.Service/GetBlockByHeight",
            comet_pb.GetBlockByHeightRequest(height=height),
            comet_pb.GetBlockByHeightResponse,
        )
        return convert.block(answer.block_id, answer.block.header)

    async def latest_block(self, chain_id: str = "") -> Block:
        """Return the latest committed block, with the transfer of all its transactions.

        Raises ChainUnavailable for a block of another chain than `chain_id`.
        """
        method = "/cosmos.base.tendermint.v1beta1.Service/GetLatestBlock"
        answer = await self._call(method, comet_pb.GetLatestBlockRequest(), comet_pb.GetLatestBlockResponse)
        if chain_id not in ("", answer.block.header.chain_id):
            text = f"the node is on chain {answer.block.header.chain_id!r}, not on {chain_id!r}"
            raise ChainUnavailable(text, failure=FailureClass.WRONG_NODE)
        return convert.block(answer.block_id, answer.block.header)

    async def shared_params(self, height: int = 0) -> SharedParams:
        """Return the params effective at `height`, the live ones for 0."""
        if height <= 0:
            live = await self._call(
                "/pocket.shared.Query/Params", shared_pb.QueryParamsRequest(), shared_pb.QueryParamsResponse
            )
            return convert.shared_params(live.params)
        answer = await self._call(
            "/pocket.shared.Query/ParamsAtHeight",
            shared_pb.QueryParamsAtHeightRequest(height=height),
            shared_pb.QueryParamsAtHeightResponse,
        )
        return convert.shared_params(answer.params)

    async def proof_params(self, height: int = 0) -> ProofParams:
        """Return the proof params as of a height, the live ones for 0."""
        answer = await self._call(
            "/pocket.proof.Query/Params", proof_pb.QueryParamsRequest(), proof_pb.QueryParamsResponse, height
        )
        return convert.proof_params(answer.params)

    async def tokenomics_params(self) -> TokenomicsParams:
        """Return the live tokenomics params.

        Raises DecodingError for an older chain that has no supplier share.
        """
        answer = await self._call(
            "/pocket.tokenomics.Query/Params", tokenomics_pb.QueryParamsRequest(), tokenomics_pb.QueryParamsResponse
        )
        return convert.tokenomics_params(answer.params)

    async def num_suppliers_per_session(self) -> int:
        """Places in a session, live."""
        answer = await self._call(
            "/pocket.session.Query/Params", session_pb.QueryParamsRequest(), session_pb.QueryParamsResponse
        )
        return answer.params.num_suppliers_per_session

    async def session(self, application_address: str, service_id: str, height: int) -> Session:
        """Return the hydrated session that holds `height`.

        Raises ChainQueryRejected with the chain's reason if there is none.
        """
        answer = await self._call(
            "/pocket.session.Query/GetSession",
            session_pb.QueryGetSessionRequest(
                application_address=application_address, service_id=service_id, block_height=height
            ),
            session_pb.QueryGetSessionResponse,
        )
        return convert.session(answer.session)

    async def application(self, address: str) -> Application:
        """Return the application's current record. Raises NotFound."""
        answer = await self._call(
            "/pocket.application.Query/Application",
            application_pb.QueryGetApplicationRequest(address=address),
            application_pb.QueryGetApplicationResponse,
        )
        return convert.application(answer.application)

    async def staked_applications(self) -> frozenset[tuple[str, str]]:
        """Return address and service id of all applications' stakes, page by page."""
        return await all_applications(lambda request: self._call_raw(ALL_APPLICATIONS, request))

    async def supplier(self, operator_address: str) -> StakedSupplier:
        """Return the supplier's current record with its history. Raises NotFound."""
        answer = await self._call(
            "/pocket.supplier.Query/Supplier",
            supplier_pb.QueryGetSupplierRequest(operator_address=operator_address),
            supplier_pb.QueryGetSupplierResponse,
        )
        return convert.supplier(answer.supplier)

    async def staking_params(self) -> StakingParams:
        """Return the live parameters of supplier stakes."""
        answer = await self._call(
            "/pocket.supplier.Query/Params", supplier_pb.QueryParamsRequest(), supplier_pb.QueryParamsResponse
        )
        return convert.staking_params(answer.params)

    async def supplier_min_stake_upokt(self) -> int:
        """Least stake of a supplier."""
        return (await self.staking_params()).min_stake_upokt

    async def compute_units_per_relay(self, service_id: str, height: int) -> int:
        """Return the compute units per relay effective at `height`.

        Nodes without that query answer with the live value.
        """
        try:
            answer = await self._call(
                "/pocket.service.Query/ComputeUnitsPerRelayAtHeight",
                service_pb.QueryComputeUnitsPerRelayAtHeightRequest(serviceId=service_id, blockHeight=height),
                service_pb.QueryComputeUnitsPerRelayAtHeightResponse,
            )
        except MethodNotImplemented:
            live = await self._call(
                "/pocket.service.Query/Service",
                service_pb.QueryGetServiceRequest(id=service_id),
                service_pb.QueryGetServiceResponse,
            )
            return live.service.compute_units_per_relay
        return answer.computeUnitsPerRelay

    async def difficulty(self, service_id: str, height: int) -> Difficulty:
        """Return the difficulty effective at `height`.

        A service without an entry has the base target.
        """
        answer = await self._call(
            "/pocket.service.Query/RelayMiningDifficultyAtHeight",
            service_pb.QueryGetRelayMiningDifficultyAtHeightRequest(serviceId=service_id, blockHeight=height),
            service_pb.QueryGetRelayMiningDifficultyAtHeightResponse,
        )
        return convert.difficulty(answer.relayMiningDifficulty)

    async def account(self, address: str) -> Account:
        """Return the account with its number and public key. Raises NotFound."""
        answer = await self._call(
            "/cosmos.auth.v1beta1.Query/Account",
            auth_pb.QueryAccountRequest(address=address),
            auth_pb.QueryAccountResponse,
        )
        return convert.account(answer.account.type_url, answer.account.value)

    async def balance_upokt(self, address: str) -> int:
        """Return the balance, 0 for an unknown account."""
        answer = await self._call(
            "/cosmos.bank.v1beta1.Query/Balance",
            bank_pb.QueryBalanceRequest(address=address, denom=DENOMINATION),
            bank_pb.QueryBalanceResponse,
        )
        return convert.amount(answer.balance)

    async def claim(self, session_id: str, supplier: str) -> Claim:
        """Return the claim in module state.

        Raises NotFound before inclusion and after settlement.
        """
        answer = await self._call(
            "/pocket.proof.Query/Claim",
            proof_pb.QueryGetClaimRequest(session_id=session_id, supplier_operator_address=supplier),
            proof_pb.QueryGetClaimResponse,
        )
        return convert.claim(answer.claim)

    async def claims_of(self, supplier: str, height: int = 0) -> list[Claim]:
        """Return all claims of a supplier, page by page, as of a height (0: the latest)."""

        async def page(request: Message) -> bytes:
            return await self._call_raw(ALL_CLAIMS, request, height)

        return await all_claims(supplier, page)

    async def claims_by_node(self, supplier: str, height: int) -> dict[str, list[Claim] | ChainError]:
        """Return a supplier's claims as of a height from every usable node, by node name."""

        async def all_of(channel: NodeChannel) -> list[Claim]:
            async def page(request: Message) -> bytes:
                return (await self._ask_node(channel, ALL_CLAIMS, request, height))[0]

            return await all_claims(supplier, page)

        seconds, share = _LIST_DEADLINES * self._timeout, PATIENCE_SHARE / _LIST_DEADLINES
        return await self._nodes.ask_all(all_of, seconds, patience_share=share)

    async def simulate(self, raw: bytes) -> int:
        """Return the gas that a transaction uses on the last committed state.

        Raises ChainQueryRejected with the chain's text.
        """
        answer = await self._call(
            "/cosmos.tx.v1beta1.Service/Simulate", tx_pb.SimulateRequest(tx_bytes=raw), tx_pb.SimulateResponse
        )
        return answer.gas_info.gas_used

    async def broadcast(self, raw: bytes) -> TransactionResult:
        """Send a transaction to the mempools of all nodes (mode SYNC).

        Code 0 means accepted by a mempool, not included in a block. The height is that of the nodes, 0 if unknown.
        Returns the best answer, soon after one node has accepted the bytes. Raises ChainUnavailable if no node
        answered. Some may have accepted the transaction all the same.
        """
        return await self._broadcaster.send(raw)

    async def transaction(self, tx_hash: str) -> TransactionResult:
        """Return the result of an included transaction.

        Raises NotFound until it is indexed, and always on nodes without an index.
        """
        answer = await self._call(
            "/cosmos.tx.v1beta1.Service/GetTx", tx_pb.GetTxRequest(hash=tx_hash), tx_pb.GetTxResponse
        )
        return convert.transaction_result(answer.tx_response)
