"""Read our own signed transactions, which another process may have signed."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pocket.errors import DecodingError
from pocket.protocol.crypto.ecdsa import verify_signature
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.transactions.build import CREATE_CLAIM, DENOMINATION, SUBMIT_PROOF, transaction_hash


@dataclass(frozen=True, slots=True)
class DecodedTransaction:
    """A transaction's fee, sessions and roots.

    The fee is in upokt, the ids of the claimed and proven sessions are in order.
    """

    tx_hash: str
    fee_upokt: int
    claims: tuple[str, ...]
    proofs: tuple[str, ...]
    roots: tuple[bytes, ...] = ()


def decode_tx(raw: bytes) -> DecodedTransaction:
    """Decode TxRaw bytes. Raises DecodingError."""
    try:
        transaction = tx_pb.TxRaw.FromString(raw)
        messages = tx_pb.TxBody.FromString(transaction.body_bytes).messages
        coins = tx_pb.AuthInfo.FromString(transaction.auth_info_bytes).fee.amount
        claims = [proof_pb.MsgCreateClaim.FromString(m.value) for m in messages if m.type_url == CREATE_CLAIM]
        proofs = [proof_pb.MsgSubmitProof.FromString(m.value) for m in messages if m.type_url == SUBMIT_PROOF]
        return DecodedTransaction(
            transaction_hash(raw),
            sum(int(coin.amount) for coin in coins if coin.denom == DENOMINATION),
            tuple(claim.session_header.session_id for claim in claims),
            tuple(proof.session_header.session_id for proof in proofs),
            tuple(claim.root_hash for claim in claims),
        )
    except (DecodeError, ValueError) as error:
        raise DecodingError("the transaction cannot be read") from error


def is_signed_by(raw: bytes, public_key: bytes, chain_id: str, account_number: int) -> bool:
    """Return True if TxRaw bytes have one signature, and it is by this key.

    For this chain and account.
    """
    try:
        transaction = tx_pb.TxRaw.FromString(raw)
    except DecodeError:
        return False
    document = tx_pb.SignDoc(
        body_bytes=transaction.body_bytes, auth_info_bytes=transaction.auth_info_bytes,
        chain_id=chain_id, account_number=account_number,
    ).SerializeToString(deterministic=True)  # fmt: skip
    return len(transaction.signatures) == 1 and verify_signature(public_key, document, transaction.signatures[0])
