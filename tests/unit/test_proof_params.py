"""Proof parameters decide over stake: a single answer never makes a proof look unnecessary."""

import asyncio
import functools
from dataclasses import replace

import pytest

from pocket.chain.client import ChainClient
from pocket.chain.node_answer import NodeAnswer
from pocket.errors import ChainUnavailable
from pocket.protocol.claims.proof_requirement import ProofParams, ProofRequirement, requirement_by
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket_localnet import encode
from pocket_miner.suppliers import proof_params
from pocket_miner.suppliers.proof_params import ProofParamsByHeight

RIGHT = ProofParams(0.25, 1000, 320, 10)
LAX = replace(RIGHT, proof_request_probability=0.0, proof_requirement_threshold_upokt=10**9)


class State:
    def __init__(self, params):
        self.proof_params = params


class Chain:
    """Nodes that answer as the test lets them."""

    def __init__(self, **nodes):
        self.nodes = nodes
        self.asked = []

    decoded_by_node = ChainClient.decoded_by_node

    async def ask_every_node(self, method, request, height=0):
        self.asked.append(height)
        return {
            name: NodeAnswer(error=ChainUnavailable("away"))
            if params is None
            else NodeAnswer(proof_pb.QueryParamsResponse(params=encode.proof_params(State(params))).SerializeToString())
            for name, params in self.nodes.items()
        }

    async def proof_params(self, height=0):
        raise ChainUnavailable("away")


async def test_two_nodes_or_one_node_at_two_blocks_are_believed_and_asked_once_per_block():
    chain = Chain(a=RIGHT, b=RIGHT)
    params = ProofParamsByHeight(chain)
    assert [await params.at(7) for _ in range(3)] == [RIGHT] * 3
    assert chain.asked == [7]
    alone = Chain(a=RIGHT)
    params = ProofParamsByHeight(alone)
    assert await params.at(7) == RIGHT
    alone.nodes = {"a": LAX}
    assert await params.at(8) == RIGHT, "one answer"
    assert await params.at(9) == LAX, "and a second one"


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
async def test_one_node_of_two_that_states_laxer_parameters_makes_no_proof_unnecessary(names):
    chain = Chain(**dict(zip(names, (LAX, RIGHT), strict=True)))
    params = ProofParamsByHeight(chain)
    for height in range(7, 12):
        found = await params.at(height)
        assert (found.proof_request_probability, found.proof_requirement_threshold_upokt) == (0.25, 1000)


async def test_of_two_answers_that_as_many_nodes_give_none_makes_a_proof_unnecessary():
    params = ProofParamsByHeight(Chain(a=LAX, b=RIGHT, c=LAX, d=RIGHT))
    for height in (7, 8):
        assert requirement_by(0.2, 0, await params.at(height)) is ProofRequirement.PROBABILISTIC


async def test_a_node_with_a_high_fee_makes_no_claim_unprofitable():
    dear = replace(RIGHT, proof_submission_fee_upokt=10**12)
    params = ProofParamsByHeight(Chain(a=dear, b=RIGHT))
    assert (await params.at(7)).proof_submission_fee_upokt == 10


async def test_params_of_the_present_count_where_no_node_has_those_of_the_block():
    class Pruned(Chain):
        async def ask_every_node(self, method, request, height=0):
            answers = await super().ask_every_node(method, request, height)
            return answers if not height else dict.fromkeys(answers, NodeAnswer(error=ChainUnavailable("pruned")))

    chain = Pruned(a=RIGHT, b=RIGHT)
    assert await ProofParamsByHeight(chain).at(7) == RIGHT
    assert chain.asked == [7, 0]


async def test_the_latest_params_count_while_no_node_answers():
    chain = Chain(a=RIGHT)
    params = ProofParamsByHeight(chain)
    await params.at(7)
    chain.nodes = {"a": None}
    assert await params.at(8) == RIGHT


@pytest.mark.parametrize("hangs", [False, True])
async def test_without_any_answer_every_proof_is_required_and_nothing_waits_for_it(monkeypatch, hangs):
    chain = Chain(a=None)
    if hangs:

        async def hang(*_):
            await asyncio.Event().wait()

        monkeypatch.setattr(proof_params, "_SECONDS", 0.01)
        chain.ask_every_node = hang
    params = ProofParamsByHeight(chain)
    found = await params.at(8)
    assert requirement_by(1.0, 0, found) is not ProofRequirement.NOT_REQUIRED
    assert found.proof_submission_fee_upokt == 0, "no claim looks unprofitable"
    chain.nodes, chain.ask_every_node = {"a": RIGHT, "b": RIGHT}, functools.partial(Chain.ask_every_node, chain)
    assert await params.at(9) == RIGHT
