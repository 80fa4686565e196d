import pytest

from corpus import load, unhex
from pocket.errors import PocketError
from pocket.protocol.crypto import curve
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.crypto.hashing import challenge, hash_to_point
from pocket.protocol.crypto.ring import decode_ring_signature, sign_ring, verify_ring_equation, verify_ring_signature

CASES = load("ring_signatures")["signatures"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_signature_is_accepted_exactly_when_the_reference_accepts_it(case):
    try:
        accepted = verify_ring_equation(unhex(case["message_hash"]), decode_ring_signature(unhex(case["signature"])))
        stage = "" if accepted else "verify"
    except PocketError:
        accepted, stage = False, "deserialize"
    assert accepted == (case["expected"] == "accept")
    if case["reject_stage"] in ("deserialize", "verify"):
        assert stage == case["reject_stage"]


@pytest.mark.parametrize("case", [c for c in CASES if c.get("trace")], ids=lambda case: case["id"])
def test_every_intermediate_point_and_challenge_equals_the_reference(case):
    signature = decode_ring_signature(unhex(case["signature"]))
    current = signature.start
    for step, scalar, member in zip(case["trace"], signature.scalars, signature.members, strict=True):
        left = curve.multiply_base_and_point(scalar, current, curve.decode_point(member))
        right = curve.add(curve.multiply(scalar, hash_to_point(member)), curve.multiply(current, signature.key_image))
        assert hash_to_point(member).encoded.hex() == step["hash_to_point"]
        assert curve.encode_point(left).hex() == step["L"]
        assert curve.encode_point(right).hex() == step["R"]
        current = challenge(unhex(case["message_hash"]), left, right)
        assert f"{current:064x}" == step["next_challenge"]


SIGNED = [c for c in CASES if c["signer_private_key"] and c["ring_size"] > 1 and c["expected"] == "accept"]


@pytest.mark.parametrize("case", SIGNED, ids=lambda case: case["id"])
def test_our_own_signature_has_the_same_key_image_and_holds(case, seeded_bytes):
    key = PrivateKey.from_hex(case["signer_private_key"])
    ring = [unhex(member) for member in case["ring_pubkeys"]]
    signature = sign_ring(unhex(case["message_hash"]), ring, key.scalar, seeded_bytes)
    assert signature.key_image.encoded.hex() == case["key_image"]
    verify_ring_signature(unhex(case["message_hash"]), signature.encode(), frozenset(ring))


@pytest.mark.parametrize("case", [c for c in CASES if c["expected"] == "accept"], ids=lambda case: case["id"])
def test_encoding_a_decoded_signature_gives_back_its_meaning(case):
    signature = decode_ring_signature(unhex(case["signature"]))
    assert decode_ring_signature(signature.encode()) == signature
