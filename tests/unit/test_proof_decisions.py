"""Whether a session's proof is sent depends on its seed block alone, and stake never on a single answer."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pocket.errors import ChainUnavailable
from pocket.protocol.claims.proof_requirement import ProofParams, ProofRequirement
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.submission.proofs import ProofSubmitter, requirement_of

HEADER = SessionHeader("app", "eth", "session", 1, 10)
ROOT = bytes(32) + (1000).to_bytes(8, "big") + (10).to_bytes(8, "big")
PARAMS = SharedParams(
    compute_units_to_tokens_multiplier=1, compute_unit_cost_granularity=1, proof_window_open_offset_blocks=3
)


class Seeds:
    """The hashes of blocks. Each is another one."""

    def __init__(self, salt, confirmed):
        self.salt, self.confirmed = salt, confirmed

    async def hash_of(self, height, at):
        del at
        if self.confirmed is None:
            raise ChainUnavailable("no node answers")
        return bytes([self.salt, height]) * 16, self.confirmed


def submitter(seeds):
    made = ProofSubmitter("alice", *[None] * 7)
    made.seeds = seeds
    return made


@given(
    salt=st.integers(0, 255), seed=st.sampled_from((None, False, True)),
    certain=st.tuples(st.booleans(), st.booleans()), probability=st.sampled_from((0.0, 0.5, 1.0)),
)  # fmt: skip
async def test_a_proof_is_left_out_only_if_the_seed_block_says_so_and_all_that_decides_is_certain(
    salt, seed, certain, probability
):
    session = TrackedSession(HEADER, params=PARAMS, terms=LeafTerms("alice", HEADER, BASE_TARGET, 100))
    session.seal = SessionSeal("session", ROOT, bytes(32), 12, 1)
    session.params_confirmed, session.terms_confirmed = certain
    session.requirement = ProofRequirement.NOT_REQUIRED  # an earlier decision, which does not count
    params = ProofParams(probability, 10**9, 10**6, 0)
    await submitter(Seeds(salt, seed)).decide(session, params, 16)
    if seed is None:
        assert session.requirement is None
        return
    found = requirement_of("alice", session, bytes([salt, session.windows.proof_seed]) * 16, params)
    if found is ProofRequirement.NOT_REQUIRED and not (seed and all(certain)):
        found = None
    assert session.requirement is found


async def test_the_sample_of_a_seed_that_was_doubted_is_drawn_anew():
    session = TrackedSession(HEADER, params=PARAMS, terms=LeafTerms("alice", HEADER, BASE_TARGET, 100))
    session.seal = SessionSeal("session", ROOT, bytes(32), 12, 1)
    session.params_confirmed = session.terms_confirmed = True
    params = ProofParams(0.5, 10**9, 10**6, 0)
    found = set()
    for salt in range(40):
        await submitter(Seeds(salt, True)).decide(session, params, 16)
        fresh = replace(session, sample=None)
        await submitter(Seeds(salt, True)).decide(fresh, params, 16)
        assert session.requirement is fresh.requirement
        found.add(session.requirement)
    assert found == {ProofRequirement.NOT_REQUIRED, ProofRequirement.PROBABILISTIC}
