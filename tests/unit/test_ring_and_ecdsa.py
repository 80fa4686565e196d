import contextlib
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slow_curve as slow
from example_counts import examples
from forms import HEAD, MEMBER, rotated
from pocket.errors import DecodingError, InvalidSignature
from pocket.protocol.crypto.curve import decode_scalar, encode_scalar
from pocket.protocol.crypto.ecdsa import PrivateKey, verify_signature
from pocket.protocol.crypto.ring import (
    ExpectedRing,
    decode_ring_signature,
    sign_ring,
    verify_request_signature,
    verify_ring_equation,
    verify_ring_signature,
)
from world import key

KEYS = [key(f"ring {i}") for i in range(5)]


def signature(size, signer, seed, message=b"m" * 32):
    ring = [k.public_key for k in KEYS[:size]]
    return sign_ring(message, ring, KEYS[signer].scalar, random.Random(seed).randbytes)


@given(st.integers(2, 4), st.integers(0, 3), st.integers(0, 2**32))
@settings(max_examples=examples(8))
def test_our_signatures_hold_for_the_slow_verifier_and_altered_ones_for_neither(size, signer, seed):
    encoded = signature(size, signer % size, seed).encode()
    assert slow.verify_ring_equation(b"m" * 32, encoded)
    assert verify_ring_equation(b"m" * 32, decode_ring_signature(encoded))
    assert not verify_ring_equation(b"n" * 32, decode_ring_signature(encoded))


def test_every_flipped_byte_of_a_signature_is_rejected():
    encoded = signature(2, 0, 1).encode()
    expected = frozenset(k.public_key for k in KEYS[:2])
    for at in range(len(encoded)):
        damaged = bytearray(encoded)
        damaged[at] ^= 1
        with pytest.raises((DecodingError, InvalidSignature)):
            verify_ring_signature(b"m" * 32, bytes(damaged), expected)


def test_every_flipped_byte_of_a_request_signature_is_rejected():
    encoded = signature(2, 0, 1).encode()
    verify_request_signature(b"m" * 32, encoded, ring_of(2))
    for at in range(len(encoded)):
        damaged = bytearray(encoded)
        damaged[at] ^= 1
        with pytest.raises((DecodingError, InvalidSignature)):
            verify_request_signature(b"m" * 32, bytes(damaged), ring_of(2))
    with pytest.raises(InvalidSignature, match="does not match"):
        verify_request_signature(b"n" * 32, encoded, ring_of(2))


@pytest.mark.parametrize("at", [4, HEAD, HEAD + MEMBER], ids=["start", "first", "second"])
def test_a_scalar_that_is_not_reduced_is_refused_before_the_equation(at):
    encoded = signature(2, 0, 1).encode()
    for value in (slow.N, slow.N + 1, 2**256 - 1):
        with pytest.raises(DecodingError, match="not below the order"):
            verify_request_signature(
                b"m" * 32, encoded[:at] + value.to_bytes(32, "big") + encoded[at + 32 :], ring_of(2)
            )


def test_a_key_outside_the_expected_ring_is_refused_before_the_equation():
    encoded = signature(3, 0, 1).encode()
    with pytest.raises(InvalidSignature, match="neither"):
        verify_ring_signature(b"m" * 32, encoded, frozenset(k.public_key for k in KEYS[:2]))


def test_signing_needs_two_members_and_the_own_key():
    with pytest.raises(InvalidSignature):
        sign_ring(b"m" * 32, [KEYS[0].public_key], KEYS[0].scalar, random.randbytes)
    with pytest.raises(InvalidSignature):
        sign_ring(b"m" * 32, [k.public_key for k in KEYS[1:3]], KEYS[0].scalar, random.randbytes)


@given(st.binary(max_size=400))
def test_decoding_a_signature_raises_only_typed_errors(data):
    with contextlib.suppress(DecodingError):
        decode_ring_signature(data)


def test_a_huge_member_count_is_refused_at_once():
    with pytest.raises(DecodingError, match="cannot hold"):
        decode_ring_signature(b"\xff\xff\xff\xff" + bytes(300))


@given(st.integers(0, 2**256 - 1))
def test_scalars_are_reduced_without_complaint(value):
    assert decode_scalar(value.to_bytes(32, "big")) == value % slow.N
    assert encode_scalar(value) == (value % slow.N).to_bytes(32, "big")


def test_a_private_key_never_shows_itself():
    secret = "11" * 32
    private = PrivateKey.from_hex("0x" + secret)
    assert secret not in repr(private) + str(private)
    with pytest.raises(TypeError):
        pickle.dumps(private)
    for bad in ("zz" * 32, "11" * 31, "", "00" * 32, "ff" * 32):
        with pytest.raises(DecodingError) as caught:
            PrivateKey.from_hex(bad)
        assert bad == "" or bad not in str(caught.value)


def test_a_response_signature_of_the_wrong_length_key_or_range_is_refused():
    signed = KEYS[0].sign(b"message")
    assert verify_signature(KEYS[0].public_key, b"message", signed)
    assert not verify_signature(KEYS[0].public_key, b"other", signed)
    assert not verify_signature(KEYS[0].public_key, b"message", signed[:-1])
    assert not verify_signature(b"\x05" + bytes(32), b"message", signed)
    assert not verify_signature(KEYS[0].public_key, b"message", b"\xff" * 64)
    high = signed[:32] + (slow.N - int.from_bytes(signed[32:], "big")).to_bytes(32, "big")
    assert not verify_signature(KEYS[0].public_key, b"message", high)


def ring_of(size):
    return ExpectedRing.of([k.public_key for k in KEYS[:size]])


@given(st.integers(2, 4), st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=examples(15))
def test_a_signature_has_one_identity_wherever_its_ring_begins_and_two_signatures_have_two(size, seed, turns):
    first, other = signature(size, 0, seed).encode(), signature(size, 0, seed + 1).encode()
    form = first
    for _ in range(turns % size or 1):
        form = rotated(b"m" * 32, form)
    assert form != first
    verify_ring_signature(b"m" * 32, form, ring_of(size).keys)  # the chain takes both
    named = verify_request_signature(b"m" * 32, first, ring_of(size))
    assert verify_request_signature(b"m" * 32, form, ring_of(size)) == named
    assert verify_request_signature(b"m" * 32, other, ring_of(size)) != named


def test_a_signature_that_could_be_written_shorter_is_refused_though_the_chain_takes_it():
    ring = [k.public_key for k in KEYS[:2]]
    encoded = sign_ring(b"m" * 32, ring, KEYS[0].scalar, lambda n: bytes(n - 1) + b"\x07").encode()
    at = HEAD + MEMBER
    small = int.from_bytes(encoded[at : at + 32], "big")
    unreduced = encoded[:at] + (small + slow.N).to_bytes(32, "big") + encoded[at + 32 :]
    for form in (unreduced, encoded + b"\0", encoded + encoded[at:]):
        verify_ring_signature(b"m" * 32, form, frozenset(ring))
        with pytest.raises(DecodingError):
            verify_request_signature(b"m" * 32, form, ring_of(2))
    verify_request_signature(b"m" * 32, encoded, ring_of(2))


def test_neither_size_nor_strangers_of_a_ring_cost_an_operation_on_the_curve():
    """None of these keys is a point: whoever looked at one would say so."""
    crowd = (150_000).to_bytes(4, "big") + bytes(65) + (bytes(32) + b"\x02" + b"\xff" * 32) * 150_000
    with pytest.raises(InvalidSignature, match="150000 members, the ring has 2"):
        verify_request_signature(b"m" * 32, crowd, ring_of(2))
    with pytest.raises(InvalidSignature, match="neither"):
        verify_request_signature(b"m" * 32, (2).to_bytes(4, "big") + crowd[4 : HEAD + 2 * MEMBER], ring_of(2))
    for short in (b"", b"\0\0\0", bytes(4), bytes(300)):
        with pytest.raises(InvalidSignature, match="0 members"):
            verify_request_signature(b"m" * 32, short, ring_of(2))
