"""Whether a claim is worth its fees."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.convert import tokenomics_params
from pocket.errors import ChainQueryRejected, ChainUnavailable, DecodingError
from pocket.protocol.claims.amounts import Price
from pocket.protocol.claims.proof_requirement import ProofParams
from pocket.protocol.claims.rewards import TokenomicsParams, supplier_reward_upokt
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket_miner.submission.viability import best_viability, tokenomics_or_unknown, viability

SHARES = {"dao": 0.1, "proposer": 0.05, "supplier": 0.7, "source_owner": 0.15, "application": 0.0}
PARAMS = TokenomicsParams(1.0, 0.7)
ROOT = bytes(32) + (1000).to_bytes(8, "big") + (10).to_bytes(8, "big")  # 1000 upokt at a price of 1
PRICE = Price(1, 1)
FREE = ProofParams(0.0, 10**9, 0, 0)


def viable(fees, tokenomics=PARAMS, proof=FREE):
    return viability(ROOT, BASE_TARGET, PRICE, proof, tokenomics, fees).viable


def test_what_reaches_the_suppliers_side_is_compared_with_the_costs_not_what_is_claimed():
    assert viable(699)
    assert not viable(700)
    assert not viable(999)
    fee = ProofParams(0.5, 10**9, 0, 400)
    assert viable(499, proof=fee)
    assert not viable(500, proof=fee)
    assert not viable(400, proof=replace(fee, proof_requirement_threshold_upokt=1000))


def test_an_unknown_share_never_keeps_a_session_from_being_claimed():
    assert viable(10**9, tokenomics=None)
    assert viability(ROOT, BASE_TARGET, PRICE, FREE, None, 5).earned_upokt is None


@given(st.lists(st.none() | st.builds(TokenomicsParams, st.just(1.0), st.sampled_from((0.0, 0.3, 0.7))), min_size=1))
def test_one_node_that_states_a_large_enough_share_or_none_is_enough_to_claim(answers):
    best = best_viability(ROOT, BASE_TARGET, PRICE, FREE, answers, 500)
    assert best.viable == any(viable(500, tokenomics) for tokenomics in answers)


@pytest.mark.parametrize(
    ("settled", "params", "upokt"),
    [
        (18333333, PARAMS, 12833333),
        (15000, PARAMS, 10500),
        (3, TokenomicsParams(0.5, 0.7), 0),
        (1000, TokenomicsParams(0.9, 0.7), 630),
        (1000, TokenomicsParams(1.0, 0.7, 0.1, 0.5), 750),
        (1, TokenomicsParams(1.0, 1.0, 0.001, 1.0), 2),
    ],
)
def test_the_suppliers_part_is_rounded_as_the_chain_rounds_it(settled, params, upokt):
    assert supplier_reward_upokt(settled, params) == upokt


def message(*, shares=SHARES, minted=SHARES, **more):
    params = tokenomics_pb.Params(**{"mint_ratio": 1.0, **more})
    if shares is not None:
        params.mint_equals_burn_claim_distribution.CopyFrom(tokenomics_pb.MintEqualsBurnClaimDistribution(**shares))
    if minted is not None:
        params.mint_allocation_percentages.CopyFrom(tokenomics_pb.MintAllocationPercentages(**minted))
    return params


def test_params_that_say_the_share_are_read():
    assert tokenomics_params(message()) == PARAMS
    minted = {**SHARES, "supplier": SHARES["dao"], "dao": SHARES["supplier"]}
    inflated = TokenomicsParams(1.0, 0.7, 0.1, minted["supplier"])
    assert tokenomics_params(message(global_inflation_per_claim=0.1, minted=minted)) == inflated
    assert tokenomics_params(message(minted=None)) == PARAMS


@pytest.mark.parametrize(
    "answer",
    [
        message(shares=None),
        message(shares={**SHARES, "supplier": 0.0}),
        message(shares={**SHARES, "dao": -0.1}),
        message(shares={**SHARES, "supplier": float("nan")}),
        message(mint_ratio=0.0),
        message(mint_ratio=1.5),
        message(mint_ratio=float("nan")),
        message(global_inflation_per_claim=float("inf")),
        message(global_inflation_per_claim=0.1, minted=None),
        message(global_inflation_per_claim=-0.1),
    ],
    ids=range(10),
)
def test_params_that_do_not_say_the_share_are_refused(answer):
    with pytest.raises(DecodingError):
        tokenomics_params(answer)


class Chain:
    def __init__(self, answer):
        self.answer = answer

    async def tokenomics_params(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (PARAMS, PARAMS),
        (ChainQueryRejected("unknown"), None),
        (ChainUnavailable("away"), None),
        (DecodingError("?"), None),
        (TimeoutError(), None),
    ],
)
async def test_what_the_chain_does_not_answer_is_unknown(answer, known):
    assert await tokenomics_or_unknown(Chain(answer)) == known
