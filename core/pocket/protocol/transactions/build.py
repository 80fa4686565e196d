"""Build unordered and ordered transactions with one signer in direct sign mode."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, InvalidOperation, localcontext

from pocket.errors import ConfigurationError
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.pb import cosmos_tx_signing_v1beta1_pb2 as signing_pb
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.relays.messages import SessionHeader

CREATE_CLAIM = "/pocket.proof.MsgCreateClaim"
SUBMIT_PROOF = "/pocket.proof.MsgSubmitProof"
SECP256K1_PUBLIC_KEY = "/cosmos.crypto.secp256k1.PubKey"
DENOMINATION = "upokt"
_LATEST_SECOND = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Seconds and nanoseconds since 1970, UTC."""

    seconds: int
    nanos: int = 0

    @classmethod
    def of_nanoseconds(cls, value: int) -> "Timestamp":
        """Return the timestamp of a number of nanoseconds since 1970."""
        return cls(*divmod(value, 1_000_000_000))

    @property
    def nanoseconds(self) -> int:
        """Nanoseconds since 1970."""
        return self.seconds * 1_000_000_000 + self.nanos

    @property
    def moment(self) -> datetime:
        """Return the time without its fraction of a second, from 1970 to 9999."""
        return datetime.fromtimestamp(min(max(self.seconds, 0), _LATEST_SECOND), UTC)


@dataclass(frozen=True, slots=True)
class Message:
    """A message with its type URL."""

    type_url: str
    value: bytes


@dataclass(frozen=True, slots=True)
class GasPrice:
    """Price of one gas in upokt."""

    upokt: Decimal

    @classmethod
    def parse(cls, text: str) -> "GasPrice":
        """Parse a text such as `0.000001upokt`. Raises ConfigurationError."""
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*upokt\s*", text)
        try:
            if match:
                return cls(Decimal(match[1]))
        except InvalidOperation:
            pass
        raise ConfigurationError(f"gas price {text!r}: write a decimal number and the unit, for example 0.000001upokt")

    def fee_upokt(self, gas_limit: int) -> int:
        """Fee for a gas limit, rounded up."""
        with localcontext() as context:
            context.prec = 60
            return int((self.upokt * gas_limit).to_integral_value(ROUND_CEILING))


def adjusted_gas(gas_used: int, adjustment: Decimal = Decimal("1.7")) -> int:
    """Gas limit from simulated gas, truncated.

    The multiplication uses doubles, as in the Go relay miner.
    """
    return int(gas_used * float(adjustment))


@dataclass(frozen=True, slots=True)
class TransactionPlan:
    """The content of a transaction.

    A `fee_upokt` of None leaves the fee empty, for simulation.
    """

    messages: tuple[Message, ...]
    chain_id: str
    account_number: int
    gas_limit: int
    fee_upokt: int | None
    timeout: Timestamp | None
    memo: str = "HA RelayMiner"
    sequence: int = 0
    unordered: bool = True
    timeout_height: int = 0


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """Signed bytes and their hash as upper-case hex."""

    raw: bytes
    tx_hash: str
    body_bytes: bytes
    auth_info_bytes: bytes
    sign_doc_bytes: bytes
    signature: bytes


def header_message(header: SessionHeader) -> session_pb.SessionHeader:
    """Session header as the chain's messages carry it."""
    return session_pb.SessionHeader(
        application_address=header.application_address,
        service_id=header.service_id,
        session_id=header.session_id,
        session_start_block_height=header.session_start_block_height,
        session_end_block_height=header.session_end_block_height,
    )


def create_claim_message(supplier: str, header: SessionHeader, root_hash: bytes) -> Message:
    """Return a MsgCreateClaim for a 48-byte root."""
    message = proof_pb.MsgCreateClaim(
        supplier_operator_address=supplier, session_header=header_message(header), root_hash=root_hash
    )
    return Message(CREATE_CLAIM, message.SerializeToString(deterministic=True))


def submit_proof_message(supplier: str, header: SessionHeader, proof: bytes) -> Message:
    """Return a MsgSubmitProof for a marshalled compact closest proof."""
    message = proof_pb.MsgSubmitProof(
        supplier_operator_address=supplier, session_header=header_message(header), proof=proof
    )
    return Message(SUBMIT_PROOF, message.SerializeToString(deterministic=True))


def _body(plan: TransactionPlan) -> bytes:
    body = tx_pb.TxBody(memo=plan.memo, timeout_height=plan.timeout_height, unordered=plan.unordered)
    for message in plan.messages:
        body.messages.add(type_url=message.type_url, value=message.value)
    if plan.timeout is not None:
        body.timeout_timestamp.seconds = plan.timeout.seconds
        body.timeout_timestamp.nanos = plan.timeout.nanos
        body.timeout_timestamp.SetInParent()
    return body.SerializeToString(deterministic=True)


def _auth_info(plan: TransactionPlan, public_key: bytes) -> bytes:
    info = tx_pb.AuthInfo()
    signer = info.signer_infos.add(sequence=plan.sequence)
    signer.public_key.type_url = SECP256K1_PUBLIC_KEY
    signer.public_key.value = b"\x0a\x21" + public_key
    signer.mode_info.single.mode = signing_pb.SIGN_MODE_DIRECT
    info.fee.SetInParent()
    if plan.fee_upokt is not None:
        info.fee.gas_limit = plan.gas_limit
        if plan.fee_upokt:
            info.fee.amount.add(denom=DENOMINATION, amount=str(plan.fee_upokt))
    return info.SerializeToString(deterministic=True)


def transaction_hash(raw: bytes) -> str:
    """Upper-case hex SHA-256 of TxRaw bytes."""
    return hashlib.sha256(raw).hexdigest().upper()


@dataclass(frozen=True, slots=True)
class UnsignedTransaction:
    """A transaction and the document that its signer signs."""

    body_bytes: bytes
    auth_info_bytes: bytes
    sign_doc_bytes: bytes

    def with_signature(self, signature: bytes) -> SignedTransaction:
        """Return the transaction with its signature, which may be empty for simulation."""
        raw = tx_pb.TxRaw(
            body_bytes=self.body_bytes, auth_info_bytes=self.auth_info_bytes, signatures=[signature]
        ).SerializeToString(deterministic=True)
        return SignedTransaction(
            raw, transaction_hash(raw), self.body_bytes, self.auth_info_bytes, self.sign_doc_bytes, signature
        )


def unsigned_transaction(plan: TransactionPlan, public_key: bytes) -> UnsignedTransaction:
    """Return the transaction that the owner of a public key signs in SIGN_MODE_DIRECT."""
    body, auth_info = _body(plan), _auth_info(plan, public_key)
    document = tx_pb.SignDoc(
        body_bytes=body, auth_info_bytes=auth_info, chain_id=plan.chain_id, account_number=plan.account_number
    ).SerializeToString(deterministic=True)
    return UnsignedTransaction(body, auth_info, document)


def sign_transaction(plan: TransactionPlan, key: PrivateKey) -> SignedTransaction:
    """Sign deterministically in SIGN_MODE_DIRECT."""
    unsigned = unsigned_transaction(plan, key.public_key)
    return unsigned.with_signature(key.sign(unsigned.sign_doc_bytes))
