"""Check what a signer is asked to sign.

Everything that is not known in every part is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from pocket.errors import DecodingError
from pocket.keys.signer_protocol import DocumentType, Refusal
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.pb import cosmos_tx_signing_v1beta1_pb2 as signing_pb
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.relays.messages import SessionHeader, decode_relay_response
from pocket.protocol.transactions.build import CREATE_CLAIM, DENOMINATION, SECP256K1_PUBLIC_KEY, SUBMIT_PROOF

M = TypeVar("M", bound=Message)
_PAYLOAD_HASH_BYTES = 32
_ROOT_BYTES = 48


class NotSignable(Exception):
    """A document that is not signed.

    `index` is the message of a transaction at fault, if one is.
    """

    def __init__(self, refusal: Refusal, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.index = index


@dataclass(frozen=True, slots=True)
class SigningPolicy:
    """What transactions may be signed. Fees are upokt of one transaction."""

    chain_id: str
    largest_fee_upokt: int


@dataclass(frozen=True, slots=True)
class ClaimedRoot:
    """A root that a transaction claims for a session."""

    session_id: str
    root: bytes
    index: int
    """Position among the messages."""


def roots_to_claim(
    kind: DocumentType, document: bytes, public_key: bytes, policy: SigningPolicy
) -> tuple[ClaimedRoot, ...]:
    """Return the roots that a document claims.

    Raises NotSignable if it may not be signed.
    """
    if kind is DocumentType.RELAY_RESPONSE:
        _check_response(document)
        return ()
    return tuple(_claimed(document, public_key, policy))


def _check_response(document: bytes) -> None:
    try:
        response = decode_relay_response(document)
    except DecodingError as error:
        raise NotSignable(Refusal.MALFORMED, f"not a relay response: {error}") from None
    if response.header is None or (problem := response.header.problem()):
        raise NotSignable(Refusal.MALFORMED, f"relay response: {problem if response.header else 'no session header'}")
    if response.supplier_operator_signature or response.payload or response.encode() != document:
        raise NotSignable(Refusal.MALFORMED, "relay response: not the canonical bytes without signature and payload")
    if len(response.payload_hash or b"") != _PAYLOAD_HASH_BYTES:
        raise NotSignable(Refusal.MALFORMED, "relay response: the payload's hash is not 32 bytes")


def _exact(message: M, data: bytes, name: str) -> M:
    """Return the parsed message, whose known fields must be all that the bytes hold.

    Raises NotSignable.
    """
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise NotSignable(Refusal.MALFORMED, f"{name}: cannot be decoded") from None
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != data:
        raise NotSignable(Refusal.NOT_ALLOWED, f"{name}: has fields that are unknown here or not in canonical form")
    return message


def _claimed(document: bytes, public_key: bytes, policy: SigningPolicy) -> Iterator[ClaimedRoot]:
    signed = _exact(tx_pb.SignDoc(), document, "sign document")
    if signed.chain_id != policy.chain_id:
        raise NotSignable(Refusal.NOT_ALLOWED, f"chain {signed.chain_id[:64]!r} is not {policy.chain_id!r}")
    _check_fee_and_signer(_exact(tx_pb.AuthInfo(), signed.auth_info_bytes, "auth info"), public_key, policy)
    body = _exact(tx_pb.TxBody(), signed.body_bytes, "transaction body")
    if not body.messages or body.extension_options or body.non_critical_extension_options:
        raise NotSignable(Refusal.NOT_ALLOWED, "the transaction has no message, or extension options")
    address = address_of(public_key)
    for index, message in enumerate(body.messages):
        if message.type_url == CREATE_CLAIM:
            claim = _exact(proof_pb.MsgCreateClaim(), message.value, "claim")
            operator, session = claim.supplier_operator_address, claim.session_header
            if len(claim.root_hash) != _ROOT_BYTES:
                raise NotSignable(Refusal.MALFORMED, f"claim: the root is not {_ROOT_BYTES} bytes", index)
        elif message.type_url == SUBMIT_PROOF:
            proof = _exact(proof_pb.MsgSubmitProof(), message.value, "proof")
            operator, session = proof.supplier_operator_address, proof.session_header
        else:
            raise NotSignable(
                Refusal.NOT_ALLOWED, f"message {message.type_url[:80]!r} is neither a claim nor a proof", index
            )
        if operator != address:
            raise NotSignable(Refusal.NOT_ALLOWED, f"the message is of supplier {operator[:64]!r}", index)
        header = SessionHeader(
            session.application_address, session.service_id, session.session_id,
            session.session_start_block_height, session.session_end_block_height,
        )  # fmt: skip
        if problem := header.problem():
            raise NotSignable(Refusal.MALFORMED, problem, index)
        if message.type_url == CREATE_CLAIM:
            yield ClaimedRoot(header.session_id, claim.root_hash, index)


def _check_fee_and_signer(info: tx_pb.AuthInfo, public_key: bytes, policy: SigningPolicy) -> None:
    if len(info.signer_infos) != 1:
        raise NotSignable(Refusal.NOT_ALLOWED, "the transaction has not exactly one signer")
    signer = info.signer_infos[0]
    if signer.public_key.type_url != SECP256K1_PUBLIC_KEY or signer.public_key.value != b"\x0a\x21" + public_key:
        raise NotSignable(Refusal.NOT_ALLOWED, "the transaction names another public key as its signer")
    if signer.mode_info.single.mode != signing_pb.SIGN_MODE_DIRECT:
        raise NotSignable(Refusal.NOT_ALLOWED, "the sign mode is not direct")
    fee = 0
    for coin in info.fee.amount:
        if coin.denom != DENOMINATION or not re.fullmatch("[0-9]{1,20}", coin.amount):
            raise NotSignable(Refusal.NOT_ALLOWED, f"the fee is not an amount of {DENOMINATION}")
        fee += int(coin.amount)
    if fee > policy.largest_fee_upokt:
        raise NotSignable(
            Refusal.NOT_ALLOWED, f"the fee of {fee} upokt is above the limit of {policy.largest_fee_upokt} upokt"
        )
    if info.fee.payer or info.fee.granter or info.HasField("tip"):
        raise NotSignable(Refusal.NOT_ALLOWED, "the fee has another payer, or a tip is paid")
