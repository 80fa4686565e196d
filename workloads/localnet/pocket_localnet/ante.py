"""Check a transaction before its messages run.

The checks have the chain's order and texts.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from pocket.protocol.crypto.addresses import address_of, is_address
from pocket.protocol.crypto.ecdsa import verify_signature
from pocket.protocol.pb import cosmos_bank_v1beta1_pb2 as bank_pb
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.transactions.build import CREATE_CLAIM, SUBMIT_PROOF, GasPrice, transaction_hash
from pocket.protocol.transactions.staking import STAKE_SUPPLIER, UNSTAKE_SUPPLIER
from pocket_localnet import staking_checks
from pocket_localnet.state import State
from pocket_localnet.tx_rejected import TxRejected

SEND = "/cosmos.bank.v1beta1.MsgSend"
_MAX_TTL_NS = 600 * 1_000_000_000
_MAX_MEMO = 256
_ANTE_GAS = 25_000
_GAS_PER_BYTE = 10
_UNORDERED_GAS = 2_240

StakingMessage = supplier_pb.MsgStakeSupplier | supplier_pb.MsgUnstakeSupplier
ChainMessage = bank_pb.MsgSend | proof_pb.MsgCreateClaim | proof_pb.MsgSubmitProof | StakingMessage


@dataclass(frozen=True, slots=True)
class Transaction:
    """A decoded transaction."""

    raw: bytes
    tx_hash: str
    tx_raw: tx_pb.TxRaw
    body: tx_pb.TxBody
    auth_info: tx_pb.AuthInfo
    messages: tuple[ChainMessage, ...]

    @property
    def fee_upokt(self) -> int:
        """Return the offered fee in upokt."""
        return sum(int(coin.amount) for coin in self.auth_info.fee.amount if coin.denom == "upokt")

    @property
    def timeout_ns(self) -> int:
        """Return the timeout timestamp in nanoseconds, 0 when unset."""
        stamp = self.body.timeout_timestamp
        return stamp.seconds * 1_000_000_000 + stamp.nanos if self.body.HasField("timeout_timestamp") else 0

    @property
    def ante_gas(self) -> int:
        """Return the gas used before the messages run."""
        return _ANTE_GAS + _GAS_PER_BYTE * len(self.raw) + (_UNORDERED_GAS if self.body.unordered else 0)

    @property
    def gas_limit(self) -> int:
        """Return the gas limit."""
        return int(self.auth_info.fee.gas_limit)


_TYPES: dict[str, type[ChainMessage]] = {
    SEND: bank_pb.MsgSend,
    CREATE_CLAIM: proof_pb.MsgCreateClaim,
    SUBMIT_PROOF: proof_pb.MsgSubmitProof,
    STAKE_SUPPLIER: supplier_pb.MsgStakeSupplier,
    UNSTAKE_SUPPLIER: supplier_pb.MsgUnstakeSupplier,
}


def _parse_error(text: str) -> TxRejected:
    return TxRejected(2, "sdk", f"{text}: tx parse error: tx parse error")


def _reject_unknown(message: Message, name: str) -> None:
    unknown: Any = UnknownFieldSet(message)  # its stub omits that it is iterable
    for field in unknown:
        raise _parse_error(f'errUnknownField "*tx.{name}": {{TagNum: {field.field_number}, WireType:"bytes"}}')


def decode(raw: bytes) -> Transaction:
    """Decode a transaction. Raises TxRejected (code 2 or 18) as the chain does."""
    try:
        tx_raw = tx_pb.TxRaw.FromString(raw)
        body = tx_pb.TxBody.FromString(tx_raw.body_bytes)
        auth_info = tx_pb.AuthInfo.FromString(tx_raw.auth_info_bytes)
    except DecodeError as error:
        raise _parse_error("invalid length; proto: invalid field number") from error
    for part, name in ((tx_raw, "TxRaw"), (body, "TxBody"), (auth_info, "AuthInfo")):
        _reject_unknown(part, name)
    messages = []
    for row in body.messages:
        kind = _TYPES.get(row.type_url)
        if kind is None:
            raise _parse_error(f"unable to resolve type URL {row.type_url}")
        try:
            message = kind.FromString(row.value)
        except DecodeError as error:
            raise _parse_error("proto: cannot parse invalid wire-format data") from error
        _reject_unknown(message, kind.__name__)
        messages.append(message)
    if not messages:
        raise TxRejected(18, "sdk", "must contain at least one message: invalid request")
    transaction = Transaction(raw, transaction_hash(raw), tx_raw, body, auth_info, tuple(messages))
    for message in messages:
        _validate_basic(message)
    return transaction


def header_of(message: proof_pb.MsgCreateClaim | proof_pb.MsgSubmitProof) -> SessionHeader | None:
    """Return the session header of a message, None without one."""
    if not message.HasField("session_header"):
        return None
    h = message.session_header
    return SessionHeader(
        h.application_address, h.service_id, h.session_id, h.session_start_block_height, h.session_end_block_height
    )


def _validate_basic(message: ChainMessage) -> None:
    """Run the basic validation at broadcast, with codespace `proof` or `supplier`."""
    if isinstance(message, bank_pb.MsgSend):
        return
    if isinstance(message, supplier_pb.MsgStakeSupplier):
        staking_checks.check_stake(message)
        return
    if isinstance(message, supplier_pb.MsgUnstakeSupplier):
        staking_checks.check_unstake(message)
        return
    if not is_address(message.supplier_operator_address):
        raise TxRejected(1101, "proof", f"{message.supplier_operator_address}: invalid address")
    header = header_of(message)
    problem = "session header is nil" if header is None else header.problem()
    if problem:
        raise TxRejected(1115, "proof", f"session header: {problem}: invalid session header")
    if isinstance(message, proof_pb.MsgSubmitProof):
        if not message.proof:
            raise TxRejected(1108, "proof", "proof cannot be empty: invalid proof")
        return
    root = message.root_hash
    if len(root) != 48 or not any(root[32:40]) or not any(root[40:48]):
        raise TxRejected(
            1104, "proof", "root hash must have 48 bytes, a sum and a count above zero: invalid claim root hash"
        )


def signer_of(message: ChainMessage) -> str:
    """Return the address that must sign a message."""
    if isinstance(message, bank_pb.MsgSend):
        return message.from_address
    if isinstance(message, StakingMessage):
        return message.signer
    return message.supplier_operator_address


def _utc(nanoseconds: int) -> str:
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{nanos:09d} +0000 UTC"


def _check_timeouts(transaction: Transaction, state: State) -> None:
    body = transaction.body
    if body.timeout_height and state.height > body.timeout_height:
        raise TxRejected(
            30, "sdk", f"block height: {state.height}, timeout height: {body.timeout_height}: tx timeout height"
        )
    if transaction.timeout_ns and state.time_ns > transaction.timeout_ns:
        text = f"block time: {_utc(state.time_ns)}, timeout timestamp: {_utc(transaction.timeout_ns)}: tx timeout"
        raise TxRejected(42, "sdk", text)


def _check_gas(transaction: Transaction) -> None:
    used, wanted = transaction.ante_gas, transaction.gas_limit
    if wanted < used:
        log = f"out of gas in location: unordered tx; gasWanted: {wanted}, gasUsed: {used}: out of gas"
        raise TxRejected(11, "sdk", log)


def _charge_fee(transaction: Transaction, state: State, payer: str, *, checking: bool) -> None:
    fee = transaction.fee_upokt
    if checking and state.minimum_gas_price:
        required = GasPrice.parse(state.minimum_gas_price).fee_upokt(transaction.gas_limit)
        if fee < required:
            got = f"{fee}upokt" if fee else ""
            raise TxRejected(13, "sdk", f"insufficient fees; got: {got} required: {required}upokt: insufficient fee")
    if payer not in state.accounts:
        raise TxRejected(9, "sdk", f"fee payer address: {payer} does not exist: unknown address")
    balance = state.balances.get(payer, 0)
    if fee > balance:
        text = f"spendable balance {balance}upokt is smaller than {fee}upokt: insufficient funds: insufficient funds"
        raise TxRejected(5, "sdk", text)
    state.balances[payer] = balance - fee


def _check_signature(transaction: Transaction, state: State, signer: str, key: bytes, *, simulate: bool) -> None:
    body = transaction.body
    account = state.accounts[signer]
    sequence = transaction.auth_info.signer_infos[0].sequence
    if body.unordered:
        if sequence:
            raise TxRejected(18, "sdk", "sequence is not allowed for unordered transactions: invalid request")
        if not transaction.timeout_ns:
            raise TxRejected(18, "sdk", "unordered transaction must have timeout_timestamp set: invalid request")
        if transaction.timeout_ns > state.time_ns + _MAX_TTL_NS:
            raise TxRejected(18, "sdk", "unordered tx ttl exceeds 10m0s: invalid request")
    elif sequence != account.sequence:
        text = f"account sequence mismatch, expected {account.sequence}, got {sequence}: incorrect account sequence"
        raise TxRejected(32, "sdk", text)
    if simulate:
        return
    document = tx_pb.SignDoc(
        body_bytes=transaction.tx_raw.body_bytes,
        auth_info_bytes=transaction.tx_raw.auth_info_bytes,
        chain_id=state.chain_id,
        account_number=account.number,
    ).SerializeToString(deterministic=True)
    if not verify_signature(key, document, transaction.tx_raw.signatures[0]):
        text = f"please verify account number ({account.number}) and chain-id ({state.chain_id})"
        raise TxRejected(
            4, "sdk",
            f"signature verification failed; {text}: (unable to verify single signer signature): unauthorized",
        )  # fmt: skip
    if body.unordered:
        nonce = (signer, transaction.timeout_ns)
        if nonce in state.nonces:
            raise TxRejected(
                18, "sdk",
                f"failed to add unordered nonce: sender {signer} has already used timeout "
                f"{transaction.timeout_ns}: invalid request",
            )  # fmt: skip
        state.nonces[nonce] = None
    else:
        state.accounts[signer] = replace(account, sequence=account.sequence + 1)


def check(transaction: Transaction, state: State, *, checking: bool, simulate: bool = False) -> None:
    """Run the checks and apply fee, nonce, sequence and public key to `state`.

    Raises TxRejected.
    """
    if not transaction.tx_raw.signatures or not transaction.auth_info.signer_infos:
        raise TxRejected(15, "sdk", "no signatures supplied")
    _check_timeouts(transaction, state)
    if len(transaction.body.memo.encode()) > _MAX_MEMO:
        text = f"maximum number of characters is 256 but received {len(transaction.body.memo.encode())} characters"
        raise TxRejected(12, "sdk", f"{text}: memo too large")
    if not simulate:
        _check_gas(transaction)
    signer = signer_of(transaction.messages[0])
    _charge_fee(transaction, state, signer, checking=checking and not simulate)
    key = transaction.auth_info.signer_infos[0].public_key.value[2:]
    if not simulate and (
        address_of(key) != signer or any(signer_of(message) != signer for message in transaction.messages)
    ):
        raise TxRejected(
            8, "sdk", f"pubKey does not match signer address {signer} with signer index: 0: invalid pubkey"
        )
    if state.accounts[signer].public_key is None and not simulate:
        state.accounts[signer] = replace(state.accounts[signer], public_key=key)
    _check_signature(transaction, state, signer, key, simulate=simulate)
