"""Query a session's terms at its start.

They are header, members, target, compute units and windows. Stake depends on these terms, so one answer is confirmed by
a second one before anything is sealed.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pocket.chain import convert
from pocket.chain.client import ChainClient
from pocket.chain.model import Session
from pocket.chain.node_answer import NodeAnswer
from pocket.errors import ChainError, ChainQueryRejected, ChainUnavailable, DecodingError, FailureClass
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket_miner.sessions.evidence import Fact
from pocket_miner.sessions.leaf_validation import LeafTerms

_UNITS_LIMIT: Final = 2**32
"""Compute units per relay that no service has: sums of them must fit into a root."""


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """One answer about a session.

    `rejection` states why the session cannot be claimed. If it is None, there are terms.
    """

    params: SharedParams | None
    terms: LeafTerms | None
    rejection: Fact | None = None
    text: str = ""


def rejection_of(supplier: str, header: SessionHeader, onchain: Session) -> tuple[Fact, str] | None:
    """Return why the supplier cannot claim a session, None if it can."""
    if onchain.header != header:
        return Fact.HEADER_DIFFERS, f"the chain's session is {onchain.header.session_id}"
    if supplier not in onchain.supplier_addresses:
        return Fact.NOT_IN_SESSION, f"the session has {len(onchain.supplier_addresses)} other suppliers"
    return None


def strictest(known: LeafTerms, stated: Iterable[LeafTerms]) -> LeafTerms:
    """Return the terms with the lowest target.

    Relays that meet it meet every other one, too. Only terms that differ from the known ones in nothing else count.
    """
    comparable = (terms for terms in stated if replace(terms, target_hash=known.target_hash) == known)
    return min((known, *comparable), key=lambda terms: terms.target_hash)


async def ask_terms(chain: ChainClient, supplier: str, header: SessionHeader) -> SessionTerms:
    """Query the terms through the caches.

    Raises ChainError and DecodingError while unknown.
    """
    start = header.session_start_block_height
    params = await chain.shared_params(start)
    try:
        onchain = await chain.session(header.application_address, header.service_id, start)
    except ChainQueryRejected as error:
        return SessionTerms(params, None, Fact.SESSION_REJECTED, str(error))
    if rejection := rejection_of(supplier, header, onchain):
        return SessionTerms(params, None, *rejection)
    units = await chain.compute_units_per_relay(header.service_id, start)
    difficulty = await chain.difficulty(header.service_id, start)
    if not 0 < units < _UNITS_LIMIT:
        raise ChainUnavailable(f"no compute units per relay are known of service {header.service_id}")
    return SessionTerms(params, LeafTerms(supplier, header, difficulty.target_hash, units))


async def ask_terms_of_every_node(
    chain: ChainClient, supplier: str, header: SessionHeader
) -> Mapping[str, tuple[int, SessionTerms]]:
    """Query every node without caches.

    Returns (height, terms) of each node that could answer.
    """
    start, service = header.session_start_block_height, header.service_id
    queries = (
        ("/pocket.shared.Query/ParamsAtHeight", shared_pb.QueryParamsAtHeightRequest(height=start)),
        ("/pocket.session.Query/GetSession", session_pb.QueryGetSessionRequest(
            application_address=header.application_address, service_id=service, block_height=start)),
        ("/pocket.service.Query/ComputeUnitsPerRelayAtHeight", service_pb.QueryComputeUnitsPerRelayAtHeightRequest(
            serviceId=service, blockHeight=start)),
        ("/pocket.service.Query/RelayMiningDifficultyAtHeight",
         service_pb.QueryGetRelayMiningDifficultyAtHeightRequest(serviceId=service, blockHeight=start)),
    )  # fmt: skip
    rows = await asyncio.gather(*(chain.ask_every_node(method, request) for method, request in queries))
    by_node: dict[str, tuple[int, SessionTerms]] = {}
    for node, first in rows[0].items():
        answers = [row.get(node) for row in rows]
        try:
            height = max(answer.height for answer in answers if answer is not None)
            by_node[node] = (height, await _terms_of(chain, supplier, header, first, *answers[1:]))
        except (ChainError, DecodingError):
            continue
    return by_node


async def _terms_of(
    chain: ChainClient, supplier: str, header: SessionHeader, params: NodeAnswer, session: NodeAnswer | None,
    units: NodeAnswer | None, difficulty: NodeAnswer | None,
) -> SessionTerms:  # fmt: skip
    """Decode one node's answers.

    Raises the errors that it returned.
    """
    shared = convert.shared_params(shared_pb.QueryParamsAtHeightResponse.FromString(_raw(params)).params)
    try:
        onchain = convert.session(session_pb.QueryGetSessionResponse.FromString(_raw(session)).session)
    except ChainQueryRejected as error:
        return SessionTerms(shared, None, Fact.SESSION_REJECTED, str(error))
    if rejection := rejection_of(supplier, header, onchain):
        return SessionTerms(shared, None, *rejection)
    target = convert.difficulty(
        service_pb.QueryGetRelayMiningDifficultyAtHeightResponse.FromString(_raw(difficulty)).relayMiningDifficulty
    ).target_hash
    if units is not None and units.error is not None and units.error.failure is FailureClass.UNSUPPORTED:
        per_relay = await chain.compute_units_per_relay(header.service_id, header.session_start_block_height)
    else:
        per_relay = service_pb.QueryComputeUnitsPerRelayAtHeightResponse.FromString(_raw(units)).computeUnitsPerRelay
    if not 0 < per_relay < _UNITS_LIMIT:
        raise DecodingError(f"the node states {per_relay} compute units per relay")
    return SessionTerms(shared, LeafTerms(supplier, header, target, per_relay))


def _raw(answer: NodeAnswer | None) -> bytes:
    if answer is None:
        raise ChainUnavailable("the node did not answer all queries")
    if answer.error is not None:
        raise answer.error
    return answer.raw
