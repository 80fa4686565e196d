"""What is kept of the chain is of exactly what was asked: no cache mixes up two records, heights or methods."""

import itertools

import pytest

from pocket.chain.client import ChainClient
from pocket.chain.node_answer import NodeAnswer
from pocket.chain_cache.cached_client import CHANGING, LIFETIMES, CachedChain
from pocket.errors import ChainUnavailable
from pocket.protocol.pb import cosmos_base_v1beta1_pb2 as base_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.suppliers.proof_params import ProofParamsByHeight

QUERIES = {
    "shared_params": ((1, 2),), "application": (("a", "b"),), "supplier": (("a", "b"),),
    "compute_units_per_relay": (("eth", "base"), (1, 2)), "num_suppliers_per_session": (),
}  # fmt: skip


@pytest.fixture
def chain():
    return CachedChain([], None, RedisKeys("cached"), clock=lambda: 0.0)


@pytest.mark.parametrize("name", QUERIES)
async def test_a_decoded_answer_is_kept_for_its_own_arguments(chain, monkeypatch, name):
    queried = []

    async def answer(_, *arguments):
        queried.append(arguments)
        return (name, *arguments)

    monkeypatch.setattr(ChainClient, name, answer)
    choices = list(itertools.product(*QUERIES[name]))
    for _ in range(2):
        for arguments in choices:
            assert await getattr(chain, name)(*arguments) == (name, *arguments)
    assert queried == choices, "each once"
    chain.forget()
    assert await getattr(chain, name)(*choices[0]) == (name, *choices[0])
    assert len(queried) == len(choices) + 1, "what may have changed is queried again"


def test_the_shared_answers_of_two_methods_or_requests_have_different_keys(chain):
    rows = list(itertools.product(LIFETIMES, (b"", b"a", b"b")))
    assert len({chain.shared_key(row) for row in rows}) == len(rows)


async def test_an_answer_of_the_present_is_none_about_a_height(chain, monkeypatch):
    asked = []

    async def call(_, method, request, height=0):
        asked.append(height)
        return proof_pb.QueryParamsResponse(params=proof_pb.Params()).SerializeToString()

    monkeypatch.setattr(ChainClient, "_call_raw", call)
    request = proof_pb.QueryParamsRequest()
    chain._store(("/pocket.proof.Query/Params", request.SerializeToString()), 1.0, b"")
    await chain.proof_params()
    await chain.proof_params(7)
    assert asked == [7]


def test_what_can_change_is_kept_for_a_minute_at_most_and_a_suppliers_stake_for_less_than_its_applications_ring():
    assert max(LIFETIMES[method] for method in CHANGING) <= 60
    assert LIFETIMES["/pocket.supplier.Query/Supplier"] < LIFETIMES["/pocket.application.Query/Application"]


class Params:
    """Two nodes whose proof params change at every block. They may be away, or have no state of past heights."""

    def __init__(self):
        self.away, self.pruned = False, False

    async def proof_params(self, height=0):
        raise ChainUnavailable("no node answers")

    decoded_by_node = ChainClient.decoded_by_node

    async def ask_every_node(self, method, request, height=0):
        if self.away or (height and self.pruned):
            return {}
        fee = base_pb.Coin(denom="upokt", amount=str(height))
        raw = proof_pb.QueryParamsResponse(params=proof_pb.Params(proof_submission_fee=fee)).SerializeToString()
        return dict.fromkeys(("one", "two"), NodeAnswer(raw, height))


async def test_proof_params_are_those_of_each_block_or_the_last_known_ones():
    chain = Params()
    params = ProofParamsByHeight(chain)

    async def fee(height):
        return (await params.at(height)).proof_submission_fee_upokt

    assert [await fee(height) for height in (10, 10, 11, 12, 9)] == [10, 10, 11, 12, 9]
    chain.away = True
    assert [await fee(height) for height in (13, 14)] == [9, 9]
    chain.away = False
    assert await fee(15) == 15
    fresh, chain.pruned = ProofParamsByHeight(chain), True
    assert (await fresh.at(20)).proof_submission_fee_upokt == 0, "the live ones of nodes without past states"
    chain.away = True
    unknown = await ProofParamsByHeight(chain).at(20)
    assert (unknown.proof_request_probability, unknown.proof_submission_fee_upokt) == (1.0, 0)


class Shared:
    """A Redis with the answers that processes share, which may be away."""

    def __init__(self):
        self.values, self.away, self.asked = {}, False, []

    async def set(self, key, value, *, px):
        if self.away:
            raise RedisUnavailable("away")
        self.values[key] = value, px

    async def delete(self, key):
        if self.away:
            raise RedisUnavailable("away")
        self.values.pop(key, None)

    async def get(self, key):
        self.asked.append("get")
        if self.away:
            raise RedisUnavailable("away")
        return self.values.get(key, (None, 0))[0]

    async def zadd(self, name, members):
        self.asked.append("zadd")


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("known", [None, b"old", b"new"])
@pytest.mark.parametrize("agreed", [None, b"new"])
async def test_what_most_nodes_state_replaces_an_answer_here_and_for_others(known, agreed, away):
    shared = Shared()
    chain = CachedChain([], shared, RedisKeys("cached"), clock=lambda: 0.0)
    method, request = "/pocket.proof.Query/Params", proof_pb.QueryParamsRequest()
    cache_key = method, request.SerializeToString()
    name = chain.shared_key(cache_key)
    shared.values[name] = b"old", 1
    if known is not None:
        chain._store(cache_key, 1.0, known)
    shared.away = away
    await chain.adopt(method, request, agreed)
    assert chain.generation == (known is not None and known != agreed), "what was decoded from it is decoded again"
    assert chain._memory.get(cache_key, (0.0, None))[1] == agreed
    expected = (b"old", 1) if away else (agreed, int(1000 * LIFETIMES[method])) if agreed else None
    assert shared.values.get(name) == expected


@pytest.mark.parametrize("invalidated", [False, True])
@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("method", ["/pocket.proof.Query/Params", "/pocket.shared.Query/ParamsAtHeight"])
async def test_an_answer_is_kept_unless_it_may_have_changed_as_it_came_and_a_redis_that_is_away_is_asked_once(
    monkeypatch, method, away, invalidated
):
    shared, changes = Shared(), method in CHANGING
    chain = CachedChain([], shared, RedisKeys("cached"), clock=lambda: 0.0)
    request = shared_pb.QueryParamsAtHeightRequest(height=1) if not changes else proof_pb.QueryParamsRequest()

    async def call(*_, **__):
        chain.generation += invalidated
        return b"answer"

    monkeypatch.setattr(ChainClient, "_call_raw", call)
    shared.away = away
    assert await chain._call_raw(method, request) == b"answer"
    assert ((method, request.SerializeToString()) in chain._memory) is not (changes and invalidated)
    assert shared.asked == (["get"] if away or not changes else ["get", "zadd"])


def test_the_oldest_answers_give_way_where_there_are_too_many_or_too_large_ones():
    chain = CachedChain([], None, RedisKeys("cached"), clock=lambda: 0.0, entries=3, most_bytes=100)
    for number in range(5):
        chain._store(("method", b"%d" % number), 1.0, bytes(10))
    assert [key for _, key in chain._memory] == [b"2", b"3", b"4"]
    chain._store(("method", b"large"), 1.0, bytes(85))
    assert [key for _, key in chain._memory] == [b"4", b"large"]
    chain._store(("method", b"large"), 1.0, bytes(5))
    chain._store(("method", b"next"), 1.0, bytes(85))
    assert [key for _, key in chain._memory] == [b"4", b"large", b"next"], "replaced, it takes less"
