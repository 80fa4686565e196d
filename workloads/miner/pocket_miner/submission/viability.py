"""Compare the expected earnings of a claim with its costs."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain import convert
from pocket.chain.client import ChainClient
from pocket.errors import PocketError
from pocket.protocol.claims.amounts import Price, claimed_upokt
from pocket.protocol.claims.proof_requirement import ProofParams
from pocket.protocol.claims.rewards import TokenomicsParams, supplier_reward_upokt
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.smst.digest import Root
from pocket_miner.sessions.session_details import SessionDetails

_LOG: FilteringBoundLogger = structlog.get_logger()
_METHOD: Final = "/pocket.tokenomics.Query/Params"
_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Viability:
    """Expected earnings of the supplier's side and costs, upokt.

    Earnings are None if unknown.
    """

    claimed_upokt: int
    earned_upokt: int | None
    fees_upokt: int
    proof_cost_upokt: float

    @property
    def viable(self) -> bool:
        """Return True if claiming is profitable, or if the earnings are unknown."""
        return self.earned_upokt is None or self.earned_upokt > self.fees_upokt + self.proof_cost_upokt

    def record(self, details: SessionDetails) -> None:
        """Record the amounts for the session's outcome."""
        details.expected_earnings_upokt = self.earned_upokt
        details.expected_fees_upokt = self.fees_upokt
        details.proof_cost_upokt = self.proof_cost_upokt


def viability(
    root: bytes,
    target_hash: bytes,
    price: Price,
    proof: ProofParams,
    tokenomics: TokenomicsParams | None,
    fees_upokt: int,
) -> Viability:
    """Return earnings and costs of a claim.

    Earnings are the supplier side's part if the application pays all that is claimed. Costs are the fees of both
    transactions, and the submission fee times the probability that a proof is asked for.
    """
    claimed = claimed_upokt(Root(root), target_hash, price)
    certain = claimed >= proof.proof_requirement_threshold_upokt
    probability = 1.0 if certain else proof.proof_request_probability
    earned = None if tokenomics is None else supplier_reward_upokt(claimed, tokenomics)
    return Viability(claimed, earned, fees_upokt, probability * proof.proof_submission_fee_upokt)


def best_viability(
    root: bytes,
    target_hash: bytes,
    price: Price,
    proof: ProofParams,
    answers: Sequence[TokenomicsParams | None],
    fees_upokt: int,
) -> Viability:
    """Return the highest earnings by the answers on how minted upokt are split."""
    rows = [viability(root, target_hash, price, proof, tokenomics, fees_upokt) for tokenomics in answers]
    return max(rows, key=lambda row: (row.earned_upokt is None, row.earned_upokt or 0))


async def tokenomics_or_unknown(chain: ChainClient) -> TokenomicsParams | None:
    """Return how the chain splits minted upokt, None if it cannot be queried in time.

    Never raises.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            return await chain.tokenomics_params()
    except (PocketError, TimeoutError) as error:
        _LOG.info("supplier's share unknown, claiming without a profitability check", error=error)
        return None


async def tokenomics_by_node(chain: ChainClient) -> list[TokenomicsParams]:
    """Return how the chain splits minted upokt by every node's answer, without caches.

    Never raises.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            by_node = await chain.decoded_by_node(
                _METHOD, tokenomics_pb.QueryParamsRequest(), tokenomics_pb.QueryParamsResponse,
                lambda row: convert.tokenomics_params(row.params),
            )  # fmt: skip
    except (PocketError, TimeoutError) as error:
        _LOG.info("supplier's share not queried from every node", error=error)
        return []
    return list(by_node.values())
