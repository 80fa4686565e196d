"""What a remote signer signs and refuses, and the roots that it remembers."""

import pytest
from click.testing import CliRunner

from pocket.errors import ConfigurationError
from pocket.keys.signer_protocol import DocumentType, Refusal
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.messages import RelayResponse
from pocket.protocol.transactions.build import Message
from pocket_signer.signable import NotSignable, roots_to_claim
from pocket_signer.signed_roots import SignedRoots
from relayctl.main import main
from signing import (
    HEADER,
    OTHER_ROOT,
    POLICY,
    RESPONSE,
    ROOT,
    claim,
    proof,
    sign_doc,
)
from world import address, key

ALICE = key("alice").public_key
TRANSACTION, RELAY = DocumentType.TRANSACTION, DocumentType.RELAY_RESPONSE


# What may be signed.


def test_claims_and_proofs_of_the_own_supplier_are_signed_and_their_roots_are_known():
    roots = roots_to_claim(TRANSACTION, sign_doc(claim("a"), proof("b"), claim("c")), ALICE, POLICY)
    assert [(row.session_id, row.root, row.index) for row in roots] == [("a", ROOT, 0), ("c", ROOT, 2)]
    assert roots_to_claim(RELAY, RESPONSE, ALICE, POLICY) == ()


def changed(document, part, **fields):
    """Return a document with other fields in one of its parts."""
    doc = tx_pb.SignDoc.FromString(document)
    kind = {"body_bytes": tx_pb.TxBody, "auth_info_bytes": tx_pb.AuthInfo}[part]
    message = kind.FromString(getattr(doc, part))
    message.MergeFrom(kind(**fields))
    setattr(doc, part, message.SerializeToString(deterministic=True))
    return doc.SerializeToString(deterministic=True)


SEND = Message("/cosmos.bank.v1beta1.MsgSend", b"\x0a\x01a")
REFUSED = {
    "another message": (sign_doc(claim(), SEND), Refusal.NOT_ALLOWED, 1),
    "no message": (sign_doc(claim())[:0], Refusal.NOT_ALLOWED, None),
    "another chain": (sign_doc(chain_id="pocket-2"), Refusal.NOT_ALLOWED, None),
    "another supplier": (sign_doc(claim(), claim(supplier="bob")), Refusal.NOT_ALLOWED, 1),
    "a proof of another supplier": (sign_doc(proof(supplier="bob")), Refusal.NOT_ALLOWED, 0),
    "another signer": (sign_doc(signer="bob"), Refusal.NOT_ALLOWED, None),
    "a fee above the limit": (sign_doc(fee=1001), Refusal.NOT_ALLOWED, None),
    "another payer": (
        changed(sign_doc(), "auth_info_bytes", fee=tx_pb.Fee(granter=address("bob"))), Refusal.NOT_ALLOWED, None
    ),
    "a tip": (changed(sign_doc(), "auth_info_bytes", tip=tx_pb.Tip(tipper="x")), Refusal.NOT_ALLOWED, None),
    "a second signer": (
        changed(sign_doc(), "auth_info_bytes", signer_infos=[tx_pb.SignerInfo()]), Refusal.NOT_ALLOWED, None
    ),
    "a second fee": (
        changed(sign_doc(), "auth_info_bytes", fee={"amount": [{"denom": "upokt", "amount": "501"}]}),
        Refusal.NOT_ALLOWED, None,
    ),
    "another coin": (
        changed(sign_doc(), "auth_info_bytes", fee={"amount": [{"denom": "mact", "amount": "1"}]}),
        Refusal.NOT_ALLOWED, None,
    ),
    "extension options": (
        changed(sign_doc(), "body_bytes", extension_options=[{"type_url": "/x"}]), Refusal.NOT_ALLOWED, None
    ),
    "an unknown field": (sign_doc() + b"\xfa\x3f\x01a", Refusal.NOT_ALLOWED, None),
    "no transaction": (b"\xff\xff", Refusal.MALFORMED, None),
    "a short root": (sign_doc(claim(root=bytes(32))), Refusal.MALFORMED, 0),
    "no session": (sign_doc(claim(session_id="")), Refusal.MALFORMED, 0),
    "a relay response": (RESPONSE, Refusal.NOT_ALLOWED, None),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_transaction_with_anything_else_in_it_is_refused(what):
    document, refusal, index = REFUSED[what]
    with pytest.raises(NotSignable) as refused:
        roots_to_claim(TRANSACTION, document, ALICE, POLICY)
    assert (refused.value.refusal, refused.value.index) == (refusal, index)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff",
        sign_doc(),
        RelayResponse(HEADER, b"s" * 64, b"", bytes(32)).encode(),
        RelayResponse(HEADER, b"", b"payload", bytes(32)).encode(),
        RelayResponse(HEADER, b"", b"", b"short").encode(),
        RelayResponse(HEADER, b"", b"", None).encode(),
        RelayResponse(None, b"", b"", bytes(32)).encode(),
        RESPONSE + b"\x52\x01a",
    ],
)
def test_bytes_that_are_no_unsigned_relay_response_are_refused(document):
    with pytest.raises(NotSignable) as refused:
        roots_to_claim(RELAY, document, ALICE, POLICY)
    assert refused.value.refusal is Refusal.MALFORMED


# Roots.


def claimed(*sessions, root=ROOT):
    return roots_to_claim(TRANSACTION, sign_doc(*(claim(name, root) for name in sessions)), ALICE, POLICY)


def test_a_second_root_of_a_session_is_a_conflict_also_after_a_restart(tmp_path):
    roots = SignedRoots(tmp_path / "data" / "roots.sqlite")
    assert roots.remember(ALICE, claimed("a", "b"), 1) is None
    assert roots.remember(ALICE, claimed("a"), 2) is None
    assert roots.remember(key("bob").public_key, claimed("a", root=OTHER_ROOT), 2) is None
    roots.close()
    roots = SignedRoots(tmp_path / "data" / "roots.sqlite")
    conflict = roots.remember(ALICE, claimed("c", "b", root=OTHER_ROOT), 3)
    assert conflict is not None
    assert (conflict.session_id, conflict.index) == ("b", 1)
    assert roots.remember(ALICE, claimed("c"), 4) is None  # nothing of the refused transaction was stored
    roots.close()
    assert (tmp_path / "data/roots.sqlite").stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "roots.sqlite").write_text("no database" * 100)
    with pytest.raises(ConfigurationError, match=r"roots\.sqlite"):
        SignedRoots(tmp_path / "roots.sqlite")


def test_a_root_is_forgotten_by_command(tmp_path):
    roots = SignedRoots(tmp_path / "signed-roots.sqlite")
    roots.remember(ALICE, claimed("a"), 1)
    command = ["signer", "forget", "--data", str(tmp_path), "--public-key", ALICE.hex(), "a"]
    found = CliRunner().invoke(main, command)
    assert (found.exit_code, ROOT.hex() in found.output) == (0, True)
    assert roots.remember(ALICE, claimed("a", root=OTHER_ROOT), 2) is None
    assert CliRunner().invoke(main, [*command[:-1], "z"]).exit_code == 1
    roots.close()
