"""Which session can be claimed, by which terms, and what its proof may still cost."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from direct import DirectChain
from pocket.chain.model import Difficulty, Session
from pocket.chain.node_answer import NodeAnswer
from pocket.protocol.claims.amounts import Price, claimed_upokt
from pocket.protocol.claims.proof_requirement import Claim, ProofParams, ProofRequirement
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.smst.digest import Root
from pocket.redis_store.seals import SessionSeal
from pocket_localnet.local_chain import LocalChain
from pocket_miner.sessions.evidence import Fact
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.submission import Delivery, Submission
from pocket_miner.sessions.terms import ask_terms, ask_terms_of_every_node, rejection_of, strictest
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.submission.funds import Costs, may_need_proof, owed_upokt
from world import World

HEADER = SessionHeader("app", "eth", "session", 1, 10)
ROOT = bytes(32) + (1000).to_bytes(8, "big") + (10).to_bytes(8, "big")
SEAL = SessionSeal("session", ROOT, bytes(32), 12, 1)
SENT = Delivery(Submission(b"raw", "hash", 13))
PARAMS = SharedParams(compute_units_to_tokens_multiplier=1, compute_unit_cost_granularity=1)
TERMS = LeafTerms("alice", HEADER, BASE_TARGET, 100)
COSTS = Costs(claim=1, proof=lambda relay_bytes: 100 * relay_bytes)


def test_a_session_is_claimed_by_one_of_its_suppliers_with_every_field_of_the_chains_header():
    onchain = Session(HEADER, 1, 10, 1, frozenset({"alice"}))
    assert rejection_of("alice", HEADER, onchain) is None
    assert rejection_of("bob", HEADER, onchain)[0] is Fact.NOT_IN_SESSION
    for field in (field for field in fields(SessionHeader) if field.init):
        value = getattr(HEADER, field.name)
        other = replace(HEADER, **{field.name: value + 1 if isinstance(value, int) else f"other {value}"})
        assert rejection_of("alice", other, onchain)[0] is Fact.HEADER_DIFFERS, field.name


leaf_terms = st.builds(
    LeafTerms, st.just("alice"), st.just(HEADER), st.integers(0, 4).map(lambda byte: bytes([byte]) * 32),
    st.sampled_from((100, 200)),
)  # fmt: skip


@given(leaf_terms, st.lists(leaf_terms, max_size=4))
def test_the_target_that_all_stated_ones_include_decides_at_the_same_price(known, stated):
    found = strictest(known, stated)
    assert replace(found, target_hash=known.target_hash) == known
    comparable = [known, *(row for row in stated if row.compute_units_per_relay == known.compute_units_per_relay)]
    assert found.target_hash == min(row.target_hash for row in comparable)


@given(leaf_terms, leaf_terms)
def test_terms_have_one_name_exactly_if_they_make_the_same_leaves(one, other):
    assert (one.name == other.name) == (one == other)


@pytest.mark.parametrize("height", [12, 15, 16, 19, 20])
@pytest.mark.parametrize("requirement", [None, *ProofRequirement])
@pytest.mark.parametrize("claimed", [False, True])
@pytest.mark.parametrize("proven", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_sealed_session_owes_what_its_windows_still_ask_for(sealed, proven, claimed, requirement, height):
    session = TrackedSession(HEADER, params=PARAMS, requirement=requirement)
    session.seal, session.largest_relay = SEAL if sealed else None, 7
    session.claim_on_chain = Claim("alice", HEADER, ROOT) if claimed else None
    session.proof = SENT if proven else Delivery()
    claim = sealed and not claimed and height < session.windows.claim_close
    proof = (
        sealed and not proven and requirement is not ProofRequirement.NOT_REQUIRED
        and height < session.windows.proof_close
    )  # fmt: skip
    assert owed_upokt([session], height, COSTS) == claim + proof * 700


@pytest.mark.parametrize("probability", [0.0, 0.001])
@pytest.mark.parametrize("penalty", [0, 1])
@pytest.mark.parametrize("above", [-1, 0, 1])
def test_a_proof_may_be_needed_where_it_is_drawn_or_the_claim_is_large_and_its_absence_costs(
    probability, penalty, above
):
    claimed = claimed_upokt(Root(ROOT), BASE_TARGET, Price.of(PARAMS))
    params = ProofParams(probability, claimed - above, penalty, 0)
    session = TrackedSession(HEADER, params=PARAMS, terms=TERMS)
    assert may_need_proof(session, ROOT, params) == bool(penalty and (probability or above >= 0))


class Noting:
    """A chain that notes what it is asked, and of which height."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, name):
        async def ask(*arguments):
            self.asked.append((name, *arguments))
            return {
                "shared_params": PARAMS, "session": Session(LATER, 2, 10, 11, frozenset({"alice"})),
                "compute_units_per_relay": 100, "difficulty": Difficulty("eth", BASE_TARGET, 1),
            }[name]  # fmt: skip

        return ask

    async def ask_every_node(self, method, request):
        self.asked.append((method.rsplit("/", 1)[-1], {field.name: value for field, value in request.ListFields()}))
        return {}


LATER = SessionHeader("app", "eth", "session", 11, 20)


async def test_terms_are_those_of_the_session_s_start_whoever_states_them():
    chain = Noting()
    found = await ask_terms(chain, "alice", LATER)
    assert found.terms == LeafTerms("alice", LATER, BASE_TARGET, 100)
    assert chain.asked == [
        ("shared_params", 11), ("session", "app", "eth", 11), ("compute_units_per_relay", "eth", 11),
        ("difficulty", "eth", 11),
    ]  # fmt: skip
    each = Noting()
    await ask_terms_of_every_node(each, "alice", LATER)
    assert each.asked == [
        ("ParamsAtHeight", {"height": 11}),
        ("GetSession", {"application_address": "app", "service_id": "eth", "block_height": 11}),
        ("ComputeUnitsPerRelayAtHeight", {"serviceId": "eth", "blockHeight": 11}),
        ("RelayMiningDifficultyAtHeight", {"serviceId": "eth", "blockHeight": 11}),
    ]


@pytest.mark.parametrize(("units", "known"), [(0, False), (1, True), (2**32 - 1, True), (2**32, False)])
async def test_a_node_that_states_impossible_compute_units_states_no_terms(units, known):
    class Stating(DirectChain):
        async def ask_every_node(self, method, request, height=0):
            if not method.endswith("/ComputeUnitsPerRelayAtHeight"):
                return await super().ask_every_node(method, request, height)
            answer = service_pb.QueryComputeUnitsPerRelayAtHeightResponse(computeUnitsPerRelay=units)
            return {"direct": NodeAnswer(answer.SerializeToString(), 1)}

    world = World()
    chain = Stating(LocalChain(world.genesis()))
    onchain = await chain.session(world.application("eth"), "eth", 1)
    found = await ask_terms_of_every_node(chain, min(onchain.supplier_addresses), onchain.header)
    assert [row.terms.compute_units_per_relay for _, row in found.values()] == [units] * known


def test_with_another_seal_nothing_is_left_of_what_was_sent_and_decided_for_the_former_one():
    other = replace(SEAL, root=bytes(48))
    session = TrackedSession(HEADER, seal=SEAL, other_seals=[other], claim=SENT, proof=SENT)
    session.requirement, session.sample = ProofRequirement.NOT_REQUIRED, (b"seed", 0.5)
    session.proof_message = (b"seed", None)
    assert not session.use_seal_of(b"x" * 48)
    assert (session.seal, session.claim) == (SEAL, SENT)
    assert session.use_seal_of(other.root)
    assert session == TrackedSession(HEADER, seal=other, other_seals=[SEAL])


@pytest.mark.parametrize("highest", range(4))
async def test_a_node_states_terms_of_the_highest_block_that_any_of_its_answers_has(highest):
    class Growing(DirectChain):
        async def ask_every_node(self, method, request, height=0):
            answers = await super().ask_every_node(method, request, height)
            asked.append(method)
            return {name: replace(row, height=9 if len(asked) == highest + 1 else 5) for name, row in answers.items()}

    world, asked = World(), []
    chain = Growing(LocalChain(world.genesis()))
    onchain = await chain.session(world.application("eth"), "eth", 1)
    found = await ask_terms_of_every_node(chain, min(onchain.supplier_addresses), onchain.header)
    assert [height for height, _ in found.values()] == [9]
