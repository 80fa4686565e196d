"""Replace cached answers by those that most chain nodes give.

A cached answer is one node's. Before a relay is refused because of it, every node is queried.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from google.protobuf.message import Message

from pocket.chain import convert
from pocket.chain.node_answer import NodeAnswer
from pocket.errors import STATED, ChainUnavailable, DecodingError
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb

_SESSION: Final = "/pocket.session.Query/GetSession"
_PARAMS: Final = "/pocket.shared.Query/ParamsAtHeight"
_APPLICATION: Final = "/pocket.application.Query/Application"
_ACCOUNT: Final = "/cosmos.auth.v1beta1.Query/Account"
_SUPPLIER: Final = "/pocket.supplier.Query/Supplier"
_PLACES: Final = "/pocket.session.Query/Params"
_UNITS: Final = "/pocket.service.Query/ComputeUnitsPerRelayAtHeight"
_DIFFICULTY: Final = "/pocket.service.Query/RelayMiningDifficultyAtHeight"


class ConfirmableChain(Protocol):
    """Queries of every node, and the caches of their answers."""

    async def ask_every_node(self, method: str, request: Message, height: int = 0) -> dict[str, NodeAnswer]:
        """Query every usable node without caches."""

    async def adopt(self, method: str, request: Message, raw: bytes | None) -> None:
        """Replace the cached answer to a query, or drop it for None."""


def _session_facts(raw: bytes) -> object:
    """Return the parts of a session on which all nodes agree.

    The application's record in it is of each node's own height.
    """
    session = convert.session(session_pb.QueryGetSessionResponse.FromString(raw).session)
    return session.header, session.supplier_addresses


def _account_facts(raw: bytes) -> object:
    any_account = auth_pb.QueryAccountResponse.FromString(raw).account
    account = convert.account(any_account.type_url, any_account.value)
    return account.address, account.public_key


def _supplier_facts(raw: bytes) -> object:
    record = convert.supplier(supplier_pb.QueryGetSupplierResponse.FromString(raw).supplier)
    return record.service_ids, record.unstake_session_end_height, record.history


def _stake(raw: bytes) -> object:
    return convert.application(application_pb.QueryGetApplicationResponse.FromString(raw).application).stake_upokt


_FACTS: Final[Mapping[str, Callable[[bytes], object]]] = {
    _SESSION: _session_facts,
    _PARAMS: lambda raw: convert.shared_params(shared_pb.QueryParamsAtHeightResponse.FromString(raw).params),
    _APPLICATION: lambda raw: (
        convert.application(application_pb.QueryGetApplicationResponse.FromString(raw).application).delegations
    ),
    _ACCOUNT: _account_facts,
    _SUPPLIER: _supplier_facts,
    _PLACES: lambda raw: session_pb.QueryParamsResponse.FromString(raw).params.num_suppliers_per_session,
    _UNITS: lambda raw: service_pb.QueryComputeUnitsPerRelayAtHeightResponse.FromString(raw).computeUnitsPerRelay,
}
"""The part of an answer that decides whether a relay is admitted."""


class NodesDisagree(ChainUnavailable):
    """Nodes contradict each other, without a majority."""


def majority(votes: Sequence[Any]) -> int | None:
    """Return the index of a vote that more than half of all equal, or None."""
    return next((i for i, vote in enumerate(votes) if 2 * votes.count(vote) > len(votes)), None)


def _is_statement(answer: NodeAnswer) -> bool:
    """Return whether a node stated something, a refusal included."""
    return answer.error is None or answer.error.failure in STATED


async def _confirm(
    chain: ConfirmableChain, method: str, request: Message, facts: Callable[[bytes], object] | None = None
) -> None:
    """Replace the cached answer by the one that more than half of the nodes give.

    `facts` returns the part of an answer that is compared. A node that does not answer agrees with none. Without a
    majority it raises NodesDisagree and drops the cached answer if nodes contradict each other, ChainUnavailable if too
    few answer.
    """
    answers = list((await chain.ask_every_node(method, request)).values())
    votes: list[object] = []
    for answer in answers:
        if answer.error is None:
            votes.append((facts or _FACTS[method])(answer.raw))
        else:
            votes.append(answer.error.failure if answer.error.failure in STATED else answer.error)
    index = majority(votes)
    agreed = answers[index] if index is not None else None
    if agreed is None or not _is_statement(agreed):
        stated = [vote for answer, vote in zip(answers, votes, strict=True) if _is_statement(answer)]
        if any(vote != stated[0] for vote in stated):
            await chain.adopt(method, request, None)
            raise NodesDisagree(f"{method}: the chain nodes do not agree: check spec.chain.nodes")
        raise ChainUnavailable(f"{method}: too few chain nodes answer to confirm what is cached")
    await chain.adopt(method, request, agreed.raw if agreed.error is None else None)


async def confirm_session(chain: ConfirmableChain, application_address: str, service_id: str, height: int) -> None:
    """Confirm a session and the params at its start. Raises ChainUnavailable."""
    session = session_pb.QueryGetSessionRequest(
        application_address=application_address, service_id=service_id, block_height=height
    )
    await _confirm(chain, _SESSION, session)
    await confirm_params(chain, height)


async def confirm_params(chain: ConfirmableChain, height: int) -> None:
    """Confirm the shared params at a height. Raises ChainUnavailable."""
    await _confirm(chain, _PARAMS, shared_pb.QueryParamsAtHeightRequest(height=height))


async def confirm_application(chain: ConfirmableChain, address: str) -> None:
    """Confirm an application's record. Raises ChainUnavailable."""
    await _confirm(chain, _APPLICATION, application_pb.QueryGetApplicationRequest(address=address))


async def confirm_account(chain: ConfirmableChain, address: str) -> None:
    """Confirm an account. Raises ChainUnavailable."""
    await _confirm(chain, _ACCOUNT, auth_pb.QueryAccountRequest(address=address))


async def confirm_supplier(chain: ConfirmableChain, address: str) -> None:
    """Confirm a supplier's record. Raises ChainUnavailable."""
    await _confirm(chain, _SUPPLIER, supplier_pb.QueryGetSupplierRequest(operator_address=address))


async def confirm_price(chain: ConfirmableChain, application: str, service_id: str, height: int) -> bool:
    """Confirm what the price of a relay and the budget of its session follow from.

    Returns False if the nodes do not confirm all of it.
    """
    units = service_pb.QueryComputeUnitsPerRelayAtHeightRequest(serviceId=service_id, blockHeight=height)
    rows = await asyncio.gather(
        confirm_params(chain, height),
        _confirm(chain, _PLACES, session_pb.QueryParamsRequest()),
        _confirm(chain, _UNITS, units),
        _confirm(chain, _APPLICATION, application_pb.QueryGetApplicationRequest(address=application), _stake),
        return_exceptions=True,
    )
    for row in rows:
        if row is not None and not isinstance(row, ChainUnavailable | DecodingError):
            raise row
    return not any(rows)


async def agreed_target(chain: ConfirmableChain, service_id: str, height: int) -> bytes | None:
    """Return the target that most nodes state, None if no node states one.

    The cached answer is replaced by it. Without a majority it is the easiest one: a relay that is recorded in vain
    costs only space, and one that is not recorded is lost.
    """
    request = service_pb.QueryGetRelayMiningDifficultyAtHeightRequest(serviceId=service_id, blockHeight=height)
    stated: list[tuple[bytes, bytes]] = []
    for answer in (await chain.ask_every_node(_DIFFICULTY, request)).values():
        if answer.error is None:
            response = service_pb.QueryGetRelayMiningDifficultyAtHeightResponse.FromString(answer.raw)
            stated.append((convert.difficulty(response.relayMiningDifficulty).target_hash, answer.raw))
    if not stated:
        return None
    index = majority([target for target, _ in stated])
    target, raw = stated[index] if index is not None else max(stated)
    await chain.adopt(_DIFFICULTY, request, raw)
    return target
