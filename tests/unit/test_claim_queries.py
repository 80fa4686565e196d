"""What is asked about a supplier's claims and terms at a block, and of whom."""

from dataclasses import replace

import pytest

from pocket.errors import ChainUnavailable
from pocket.protocol.claims.proof_requirement import INVALID, VALIDATED, Claim
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.suppliers.claim_queries import query_claims
from pocket_miner.suppliers.terms_confirmation import confirm_due

HEADER = SessionHeader("app", "eth", "session", 1, 10)
SEAL = SessionSeal("session", b"r" * 48, bytes(32), 12, 1)
OURS = Claim("alice", HEADER, SEAL.root)
OTHER = replace(OURS, root_hash=b"x" * 48)
WINDOWS = SharedParams().windows(1)
TERMS = LeafTerms("alice", HEADER, BASE_TARGET, 100)


class Nodes:
    """The claims that one node states, and those that each of them does. Notes what it is asked."""

    def __init__(self, first, **by_node):
        self.first, self.by_node, self.asked = first, by_node, []

    async def claims_of(self, supplier, height):
        self.asked.append(("one", supplier, height))
        if isinstance(self.first, Exception):
            raise self.first
        return self.first

    async def claims_by_node(self, supplier, height):
        self.asked.append(("each", supplier, height))
        return self.by_node


def tracked(**state):
    return TrackedSession(HEADER, params=SharedParams(), **state)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("height", [WINDOWS.claim_open - 1, WINDOWS.claim_open, WINDOWS.claim_close + 1])
async def test_claims_are_asked_for_as_of_the_block_from_the_first_one_that_may_have_some(sealed, height):
    chain = Nodes([OURS])
    found = await query_claims(chain, "alice", [tracked(seal=SEAL if sealed else None)], height)
    due = sealed or height >= WINDOWS.claim_open
    assert chain.asked == ([("one", "alice", height)] if due else [])
    assert [(row.height, row.claims) for row in found] == ([(height, {"session": OURS})] if due else [])


async def test_without_sessions_or_windows_nothing_is_asked_and_an_error_is_no_answer():
    chain = Nodes(ChainUnavailable("away"))
    assert await query_claims(chain, "alice", [], 100) == []
    assert await query_claims(chain, "alice", [TrackedSession(HEADER)], 100) == []
    assert chain.asked == []
    assert await query_claims(chain, "alice", [tracked(seal=SEAL)], 13) == []


@pytest.mark.parametrize("first", [OTHER, replace(OURS, proof_validation_status=INVALID),
                                   replace(OURS, proof_validation_status=VALIDATED)])  # fmt: skip
@pytest.mark.parametrize("answers", ["all", "one", "none"])
async def test_a_surprise_is_asked_of_each_node_and_stays_the_answer_while_none_of_them_answers(first, answers):
    away = ChainUnavailable("away")
    by_node = {"all": {"a": [OURS], "b": [first]}, "one": {"a": away, "b": [OURS]}, "none": {"a": away, "b": away}}
    chain = Nodes([first], **by_node[answers])
    found = await query_claims(chain, "alice", [tracked(seal=SEAL)], 13)
    assert chain.asked == [("one", "alice", 13), ("each", "alice", 13)]
    expected = {"all": [("a", OURS), ("b", first)], "one": [("b", OURS)], "none": [("a node", first)]}[answers]
    assert [(row.source, row.height, row.claims["session"]) for row in found] == [(n, 13, c) for n, c in expected]


class Confirming:
    """A consumer that notes what it is to confirm."""

    def __init__(self):
        self.params, self.terms, self.start_params = [], [], self

    async def confirm(self, session, height):
        self.params.append(height)

    async def confirm_terms(self, session, height):
        self.terms.append(height)


@pytest.mark.parametrize("height", range(HEADER.session_end_block_height - 1, WINDOWS.proof_close + 2))
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(("known", "confirmed"), [(False, False), (True, False), (True, True)])
async def test_terms_are_confirmed_after_a_session_s_end_for_as_long_as_a_claim_or_a_proof_may_depend_on_them(
    height, sealed, known, confirmed
):
    session = tracked(seal=SEAL if sealed else None, terms=TERMS if known else None, terms_confirmed=confirmed)
    consumer = Confirming()
    await confirm_due(consumer, [session], height)
    close = WINDOWS.proof_close if sealed else WINDOWS.claim_close
    due = known and not confirmed and HEADER.session_end_block_height < height < close
    assert consumer.terms == ([height] if due else [])
    ended = height > HEADER.session_end_block_height
    assert consumer.params == ([height] if ended else []), "the params are not confirmed yet"
    session.params_confirmed = True
    await confirm_due(consumer, [session], height)
    assert len(consumer.params) == ended
