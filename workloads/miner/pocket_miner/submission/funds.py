"""Hold back claims whose proofs the supplier's account cannot pay.

A claim without its proof costs a penalty. A claim that is not sent costs only its reward.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain import convert
from pocket.chain.client import ChainClient
from pocket.errors import PocketError
from pocket.protocol.claims.amounts import Price, claimed_upokt
from pocket.protocol.claims.proof_requirement import ProofParams, ProofRequirement
from pocket.protocol.pb import cosmos_bank_v1beta1_pb2 as bank_pb
from pocket.protocol.smst.digest import Root
from pocket.protocol.transactions.build import DENOMINATION
from pocket_miner.sessions.tracked_session import TrackedSession

_LOG: FilteringBoundLogger = structlog.get_logger()
_METHOD: Final = "/cosmos.bank.v1beta1.Query/Balance"
_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of one claim, and of one proof with its submission fee, upokt.

    They may be more than expected.

    `proof` gets the size of the session's largest relay in bytes.
    """

    claim: int
    proof: Callable[[int], int]


def owed_upokt(sessions: Collection[TrackedSession], height: int, costs: Costs) -> int:
    """Return what sealed sessions may still cost.

    They are claims that no block shows yet, and proofs that are not sent.
    """
    total = 0
    for session in sessions:
        windows = session.windows
        if session.seal is None or windows is None or height >= windows.proof_close:
            continue
        if not session.claimed_root and height < windows.claim_close:
            total += costs.claim
        if owes_proof(session):
            total += costs.proof(session.largest_relay)
    return total


def owes_proof(session: TrackedSession) -> bool:
    """Return True if a sealed session's proof may be required and is not sent yet."""
    return session.proof.sent is None and session.requirement is not ProofRequirement.NOT_REQUIRED


def may_need_proof(session: TrackedSession, root: bytes, params: ProofParams) -> bool:
    """Return True if the chain may require a proof whose absence costs stake."""
    if session.terms is None or session.params is None or not params.proof_missing_penalty_upokt:
        return False
    claimed = claimed_upokt(Root(root), session.terms.target_hash, Price.of(session.params))
    return params.proof_request_probability > 0 or claimed >= params.proof_requirement_threshold_upokt


def payable(wanted: Sequence[int], balance_upokt: int) -> list[int]:
    """Return the positions of the amounts that a balance pays, in their order."""
    chosen = []
    for position, upokt in enumerate(wanted):
        if upokt <= balance_upokt:
            balance_upokt -= upokt
            chosen.append(position)
    return chosen


async def balance_for(chain: ChainClient, address: str, needed_upokt: int) -> int | None:
    """Return the balance of an account, None if no node states it in time.

    If one node states less than needed, the highest balance of every node counts: no single answer holds a claim back.
    Never raises.
    """
    request = bank_pb.QueryBalanceRequest(address=address, denom=DENOMINATION)
    try:
        async with asyncio.timeout(_SECONDS):
            stated = await chain.balance_upokt(address)
            if stated >= needed_upokt:
                return stated
            answers = await chain.decoded_by_node(
                _METHOD, request, bank_pb.QueryBalanceResponse, lambda row: convert.amount(row.balance)
            )
    except (PocketError, TimeoutError) as error:
        _LOG.info("balance unknown, claiming without it", error=error)
        return None
    return max(answers.values(), default=None)
