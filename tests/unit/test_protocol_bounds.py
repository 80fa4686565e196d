"""Values of the protocol at their bounds: the first session, no suppliers, every status of a claim, one signature."""

import hashlib
from dataclasses import replace

import pytest

from pocket.errors import DecodingError
from pocket.protocol.claims.amounts import meter_limit_upokt
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.claims.rewards import TokenomicsParams, supplier_reward_upokt
from pocket.protocol.crypto.addresses import InvalidAddress, encode_address, parse_address
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.relays.envelope import url_text
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.session_id import session_id_preimage
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.smst import digest, gob
from pocket.protocol.smst.verify import _sibling_digest
from pocket.protocol.transactions.build import Message, Timestamp, TransactionPlan, sign_transaction
from pocket.protocol.transactions.decode import is_signed_by
from world import key

HEADER = SessionHeader("pokt1application", "eth", "ab" * 32, 1, 10)


@pytest.mark.parametrize(
    ("start", "begins"), [(0, b".eth.app."), (1, b"hash.eth.app."), (2, b"hash.eth.app."), (11, b"hash.eth.app.")]
)
def test_the_first_session_of_a_chain_has_the_hash_of_its_block(start, begins):
    assert session_id_preimage(b"hash", "eth", "app", start) == begins + start.to_bytes(8, "little")


@pytest.mark.parametrize(("suppliers", "limit"), [(0, 500), (1, 500), (2, 250), (50, 10)])
def test_a_session_without_a_number_of_suppliers_is_one_of_one(suppliers, limit):
    assert meter_limit_upokt(1000, suppliers, SharedParams()) == limit


def test_a_url_keeps_printable_ascii_and_has_the_rest_as_utf_8():
    printable = "".join(map(chr, range(33, 127)))
    assert url_text(f" {printable}\x7f\u00e9") == f"%20{printable}%7F%C3%A9"


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_claim_has_the_bytes_of_the_chains_own_encoding(status):
    claim = Claim("pokt1supplier", HEADER, b"r" * 48, status)
    message = proof_pb.Claim.FromString(claim.encode())
    assert message.SerializeToString(deterministic=True) == claim.encode()
    assert (message.supplier_operator_address, message.root_hash) == ("pokt1supplier", b"r" * 48)
    assert (message.session_header.session_id, message.proof_validation_status) == (HEADER.session_id, status)


def test_inflation_without_a_share_of_the_supplier_is_none():
    params = TokenomicsParams(mint_ratio=0.975, supplier_share=0.7)
    assert supplier_reward_upokt(1000, params) == 682
    assert supplier_reward_upokt(1000, replace(params, global_inflation_per_claim=0.1)) == 682
    assert (
        supplier_reward_upokt(1001, replace(params, global_inflation_per_claim=0.1, inflation_supplier_share=1)) == 783
    )


@pytest.mark.parametrize("of_lists", [True, False])
def test_values_that_are_nested_deeper_than_those_of_any_proof_are_refused(of_lists):
    """A type that holds itself would let a short text nest without end."""
    name = gob.struct_value([gob.byte_string(b"T")])
    row = gob.struct_value([gob.byte_string(b"a"), gob.signed(65 + of_lists)])
    struct = gob.struct_value([None, None, gob.struct_value([name, gob.unsigned(1) + row])])
    rows = gob.struct_value([None, gob.struct_value([name, gob.signed(66)])])
    types = [gob.unsigned(129) + struct, *([gob.unsigned(131) + rows] if of_lists else [])]  # 65 and 66
    head = b"".join(gob.unsigned(len(text)) + text for text in types)

    def nested(levels):
        ends = b"\0\0" if of_lists else bytes(levels + 1)
        return gob.decode_struct(head + gob.value_message(65, b"\x01" * levels + ends))

    assert list(nested(8)) == ["a"]
    with pytest.raises(DecodingError, match="nested too deep"):
        nested(9)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (7, 9), (0, 255), (240, 255), (254, 255)])
def test_an_extension_is_lifted_over_each_of_its_levels(start, end):
    path, child = bytes(range(100, 132)), bytes(48)
    data = digest.extension_bytes(start, end, path, child)
    assert _sibling_digest(data) == digest.lift(child, path, end, start)


@pytest.mark.parametrize("prefix", ["pokt", "p"])
@pytest.mark.parametrize(("size", "valid"), [(0, False), (1, True), (20, True), (32, True), (255, True)])
def test_an_address_has_one_byte_or_more_and_a_prefix_of_one_letter_or_more(prefix, size, valid):
    text = encode_address(bytes(size), prefix)
    if valid:
        assert parse_address(text, prefix) == bytes(size)
        return
    with pytest.raises(InvalidAddress, match="holds no or too many bytes"):
        parse_address(text, prefix)


def test_one_signature_of_this_key_for_this_chain_and_account_is_one():
    signer, other = key("alice"), key("bob")
    plan = TransactionPlan((Message("/x", b"1"),), "pocket", 7, 1000, 1, Timestamp(5))
    assert Timestamp(5).nanoseconds == 5_000_000_000
    raw = sign_transaction(plan, signer).raw

    def signed(raw, *, by: PrivateKey = signer, chain="pocket", account=7):
        return is_signed_by(raw, by.public_key, chain, account)

    assert signed(raw)
    assert not any((signed(raw, by=other), signed(raw, chain="other"), signed(raw, account=8), signed(b"\xff")))
    parts = tx_pb.TxRaw.FromString(raw)
    (signature,) = parts.signatures
    for signatures in ((), (signature, signature), (hashlib.sha512(signature).digest(),)):
        changed = tx_pb.TxRaw(body_bytes=parts.body_bytes, auth_info_bytes=parts.auth_info_bytes, signatures=signatures)
        assert not signed(changed.SerializeToString())
