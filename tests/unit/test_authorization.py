"""Authorization is pure: from a request and its session's context follows what is wrong with it first."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forms import rotated
from pocket.chain.model import Session
from pocket.protocol.crypto.ring import ExpectedRing, sign_ring
from pocket.protocol.relays.messages import RelayRequest, SessionHeader
from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.authorization import SessionContext, authorize, header_mismatch
from world import address, key

HEADER = SessionHeader(address("app"), "eth", "session", 11, 20)
RING = (key("app").public_key, key("gateway").public_key)
PARAMS = SharedParams(num_blocks_per_session=10, grace_period_end_offset_blocks=1)
WINDOWS = Windows.after(20, PARAMS)
LAST = next(height for height in range(20, 60) if WINDOWS.grace_elapsed(height + 1))
TARGET = b"\x0f" * 32
OTHER = {
    "application_address": address("stranger"), "service_id": "other", "session_id": "another",
    "session_start_block_height": 1, "session_end_block_height": 30,
}  # fmt: skip


def signed(header, *, signer="gateway"):
    unsigned = RelayRequest(header, b"", address("alice"), b"payload")
    ring = RING if signer != "stranger" else (RING[0], key("stranger").public_key)
    rng = random.Random(1)
    signature = sign_ring(unsigned.signable_hash(), ring, key(signer).scalar, rng.randbytes)
    return replace(unsigned, signature=signature.encode())


def context(*, height=15, members=("alice", "bob"), ring=RING):
    session = Session(HEADER, 2, 10, 10**9, frozenset(map(address, members)))
    return SessionContext(session, TARGET, WINDOWS, ExpectedRing.of(ring), height)


def outcome(request, known):
    try:
        return authorize(request, request.header, request.signable_hash(), known)
    except Rejected as rejected:
        return rejected.reason


def test_a_gateways_relay_for_a_supplier_of_the_session_is_admitted_until_the_grace_period_is_over():
    assert 20 + PARAMS.grace_period_end_offset_blocks == LAST, "the last block of the grace period is of it"
    request = signed(HEADER)
    admitted = outcome(request, context(height=LAST))
    assert (admitted.header, admitted.windows, len(admitted.identity)) == (HEADER, WINDOWS, 16)
    assert admitted.target_hash == TARGET
    assert outcome(request, context(height=LAST + 1)) is RejectionReason.SESSION_EXPIRED
    assert [admitted.is_over(height) for height in (1, LAST, LAST + 1)] == [False, False, True]
    assert not replace(admitted, windows=None).is_over(10**9), "a simulated relay belongs to no session"


def test_a_signature_that_is_written_in_another_way_identifies_the_same_request():
    request = signed(HEADER)
    turned = replace(request, signature=rotated(request.signable_hash(), request.signature))
    assert turned.signature != request.signature
    assert outcome(turned, context()).identity == outcome(request, context()).identity


@pytest.mark.parametrize("field", OTHER)
def test_every_field_of_the_header_must_be_the_chains(field):
    header = replace(HEADER, **{field: OTHER[field]})
    assert outcome(signed(header), context()) is RejectionReason.SESSION_MISMATCH
    assert header_mismatch(header, HEADER) == field
    assert header_mismatch(SessionHeader(**OTHER), replace(HEADER, **{field: OTHER[field]})) not in (field, None)


REQUESTS = {
    (field, signer): signed(replace(HEADER, **({field: OTHER[field]} if field else {})), signer=signer)
    for field in (None, *OTHER)
    for signer in ("gateway", "app", "stranger")
}


@given(
    st.sampled_from(sorted(REQUESTS, key=str)), st.booleans(), st.booleans(),
    st.integers(0, 2**16).map(lambda bit: bit if bit % 3 == 0 else None),
)  # fmt: skip
def test_the_first_reason_by_the_protocols_order_rejects_and_nothing_else_is_admitted(which, expired, member, damage):
    field, signer = which
    request = REQUESTS[which]
    valid = signer != "stranger"
    if damage is not None:
        place = damage % (8 * len(request.signature))
        raw = bytearray(request.signature)
        raw[place // 8] ^= 1 << place % 8
        request, valid = replace(request, signature=bytes(raw)), False
    known = context(height=LAST + expired, members=("alice", "bob") if member else ("bob",))
    expected = (
        RejectionReason.SESSION_MISMATCH if field
        else RejectionReason.SESSION_EXPIRED if expired
        else RejectionReason.INVALID_SIGNATURE if not valid
        else RejectionReason.SUPPLIER_NOT_IN_SESSION if not member
        else None
    )  # fmt: skip
    found = outcome(request, known)
    assert (found if isinstance(found, RejectionReason) else None) is expected
