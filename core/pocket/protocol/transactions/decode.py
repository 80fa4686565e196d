"""Read our own signed transactions, which another process may have signed."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pocket.errors import DecodingError
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.transactions.build import CREATE_CLAIM, DENOMINATION, SUBMIT_PROOF, transaction_hash


@dataclass(frozen=True, slots=True)
class DecodedTransaction:
    """Fee in upokt, ids of the claimed and proven sessions in order, and the roots of the claims."""

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
