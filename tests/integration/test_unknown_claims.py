"""A claim on chain of a session that no miner here knows is noticed without its relays."""

import pytest
from prometheus_client import REGISTRY

from pocket.errors import ChainUnavailable
from pocket_miner.suppliers.unknown_claims import UnknownClaims

pytestmark = pytest.mark.redis
CLOSE = 16  # of the claim window


class CountedClaims:
    """The claims of a chain, the queries for which are counted and can fail or be answered otherwise."""

    def __init__(self, chain):
        self.shared_params, self.real = chain.shared_params, chain.claims_of
        self.queries, self.answer = 0, None

    async def claims_of(self, supplier, height):
        self.queries += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return await self.real(supplier, height) if self.answer is None else self.answer


@pytest.fixture
async def claimed(alice):
    """Return a miner whose claim is on chain, and the queries for claims."""
    await alice.record(alice.relays(alice.header(), 4))
    await alice.to(CLOSE - 1)
    assert alice.claim(alice.header(1)) is not None
    return alice, CountedClaims(alice.client)


def counted():
    return REGISTRY.get_sample_value("pocket_miner_unknown_claims_total")


async def test_a_claim_of_a_session_that_nothing_here_knows_is_counted_once(claimed, redis, tmp_path):
    """At first no node answers, and the first answer alone is not relied on."""
    alice, chain = claimed
    await redis.flushall()
    alice.folder = tmp_path / "an empty volume"
    alice.folder.mkdir()
    alice.start()
    unknown, before, seen = UnknownClaims(chain), counted(), []
    for height, answer in (
        (CLOSE, ChainUnavailable("no answer")),
        (CLOSE + 1, None),
        (CLOSE + 2, None),
        (CLOSE + 3, None),
    ):
        await alice.to(height)
        chain.answer = answer
        await unknown.check([alice.miner], height)
        seen.append((chain.queries, counted() - before))
    assert seen == [(1, 0), (2, 0), (3, 1), (3, 1)]


async def test_claims_are_queried_once_per_session_and_those_of_known_and_ended_sessions_are_not_counted(claimed):
    alice, chain = claimed
    unknown, before, queries = UnknownClaims(chain), counted(), {}
    claims = await alice.client.claims_of(alice.supplier)
    while alice.chain.height < 27:
        await alice.block()
        chain.answer = claims  # also after the settlement: by a node that lags
        await unknown.check([alice.miner], alice.chain.height)
        queries[alice.chain.height] = chain.queries
    assert counted() == before
    assert [queries[height] for height in (CLOSE, CLOSE + 9, CLOSE + 10)] == [1, 1, 2]


async def test_a_claim_that_one_answer_alone_shows_is_not_counted(claimed):
    alice, chain = claimed
    unknown, before = UnknownClaims(chain), counted()
    claims = await alice.client.claims_of(alice.supplier)
    alice.miner.sessions.clear()
    await alice.to(CLOSE)
    for answer in (claims, [], claims):
        chain.answer = answer
        await unknown.check([alice.miner], CLOSE)
    assert (counted(), chain.queries) == (before, 2)
