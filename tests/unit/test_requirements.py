"""Whether a proof is required follows from the present seed, seal and params, whatever was computed before."""

from hypothesis import given
from hypothesis import strategies as st

from pocket.protocol.claims.proof_requirement import ProofParams
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.submission.proofs import requirement_of
from world import address

SUPPLIER = address("alice")
HEADER = SessionHeader(address("app"), "eth", "session", 1, 10)
NUMBERS = (300).to_bytes(8, "big") + (3).to_bytes(8, "big")
SEALS = [SessionSeal("session", bytes([number]) * 32 + NUMBERS, bytes(32), 13, number) for number in range(3)]


def sealed(seal):
    session = TrackedSession(HEADER, terms=LeafTerms(SUPPLIER, HEADER, b"\xff" * 32, 100), params=SharedParams())
    session.seal = seal
    return session


@given(st.lists(st.tuples(st.sampled_from(SEALS), st.integers(0, 4), st.sampled_from([0.2, 0.5, 0.8])), min_size=2))
def test_the_requirement_is_that_of_a_session_without_a_past(rows):
    session = sealed(rows[0][0])
    for seal, number, probability in rows:
        session.meet_seal(seal, from_redis=False)
        session.use_seal_of(seal.root)
        params = ProofParams(proof_request_probability=probability, proof_requirement_threshold_upokt=10**18)
        seed = bytes([number]) * 32
        fresh = requirement_of(SUPPLIER, sealed(seal), seed, params)
        assert requirement_of(SUPPLIER, session, seed, params) == fresh
