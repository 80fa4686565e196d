"""What a claim on chain, a peer's position or a node's answer shows of a session, and what it does not."""

import itertools
from dataclasses import replace

import pytest

from pocket.chain.response_checks import check_answer
from pocket.errors import DecodingError
from pocket.protocol.claims.proof_requirement import INVALID, VALIDATED, Claim
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.transactions.build import header_message
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.stream_reader import StreamExtent
from pocket_miner.ingest.peers import PeerSession
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.submission.deliveries import CLAIM, PROOF
from world import address

HEADER = SessionHeader(address("app"), "eth", "session", 11, 20)
OURS, OTHER = (bytes([first]) * 32 + (300).to_bytes(8, "big") + (3).to_bytes(8, "big") for first in (1, 2))


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("root", [OURS, OTHER])
@pytest.mark.parametrize("status", [0, VALIDATED, INVALID])
def test_a_claim_shows_that_ours_arrived_by_its_root_and_the_proof_by_its_status(sealed, root, status):
    session = TrackedSession(HEADER)
    session.seal = SessionSeal("session", OURS, bytes(32), 23, 1) if sealed else None
    claim = Claim(address("alice"), HEADER, root, status)
    assert CLAIM.is_shown(session, claim) is (sealed and root == OURS)
    assert PROOF.is_shown(session, claim) is (status == VALIDATED)


@pytest.mark.parametrize(
    ("origin", "position", "count", "more"),
    [
        ("here", "5-1", 3, False), ("here", "5-0", 3, False), ("here", "4-9", 2, False),
        ("here", "5-2", 3, True), ("here", "10-0", 3, True),  # further than the stream reaches
        ("here", "5-1", 4, True), ("here", "1-0", 4, True),  # more than the stream has
        ("elsewhere", "1-0", 1, True), ("elsewhere", "5-1", 3, True), ("elsewhere", "9-0", 0, False),
    ],
)  # fmt: skip
def test_a_peer_may_have_more_than_a_stream_of_three_entries_that_reaches_to_its_position(
    origin, position, count, more
):
    peer = PeerSession("http://peer", "session", b"", position, origin, count)
    assert peer.may_have_more("here", StreamExtent("5-1", 3)) is more


@pytest.mark.parametrize(("supplier", "session"), list(itertools.product(("alice", "bob"), ("session", "other"))))
def test_an_answer_about_another_claim_is_refused(supplier, session):
    request = proof_pb.QueryGetClaimRequest(session_id="session", supplier_operator_address=address("alice"))
    header = header_message(replace(HEADER, session_id=session))
    claim = proof_pb.Claim(supplier_operator_address=address(supplier), root_hash=OURS, session_header=header)
    raw = proof_pb.QueryGetClaimResponse(claim=claim).SerializeToString()
    if (supplier, session) == ("alice", "session"):
        check_answer("/pocket.proof.Query/Claim", request, raw)
        return
    with pytest.raises(DecodingError, match="was asked for"):
        check_answer("/pocket.proof.Query/Claim", request, raw)


def test_an_empty_answer_is_not_that_a_supplier_has_no_claims():
    request = proof_pb.QueryAllClaimsRequest(supplier_operator_address=address("alice"))
    with pytest.raises(DecodingError, match="lacks pagination"):
        check_answer("/pocket.proof.Query/AllClaims", request, b"")
    empty = proof_pb.QueryAllClaimsResponse()
    empty.pagination.SetInParent()
    check_answer("/pocket.proof.Query/AllClaims", request, empty.SerializeToString())
