"""Handle messages: claims, proofs and transfers.

Source: claims-and-proofs.md, section 2.
"""

from dataclasses import dataclass

from pocket.chain.model import Event
from pocket.errors import DecodingError, InvalidProof
from pocket.protocol.claims.amounts import Price, claimed_upokt, estimated_relays
from pocket.protocol.claims.proof_requirement import Claim, ProofRequirement, proof_requirement
from pocket.protocol.pb import cosmos_bank_v1beta1_pb2 as bank_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.relays.difficulty import is_applicable
from pocket.protocol.relays.messages import RelayRequest, RelayResponse, SessionHeader, decode_relay, relay_hash
from pocket.protocol.smst.digest import Root
from pocket.protocol.smst.verify import decompact, leaf_value, unmarshal
from pocket_localnet.ante import ChainMessage, header_of, signer_of
from pocket_localnet.hydration import HydratedSession, HydrationError, hydrate
from pocket_localnet.staking_handlers import stake, unstake
from pocket_localnet.state import BlockHash, State, StoredProof
from pocket_localnet.tx_rejected import TxRejected, handler_error

MESSAGE_GAS = 40_000
PROOF_GAS_PER_BYTE = 12


@dataclass(frozen=True, slots=True)
class MessageResult:
    """Gas and events of a message."""

    gas: int
    event: Event


def claimed_amount(state: State, claim: Claim) -> int:
    """Return the worth of a claim at its session's start, upokt."""
    start = claim.header.session_start_block_height
    target = state.difficulty_at(claim.header.service_id, start).target_hash
    return claimed_upokt(Root(claim.root_hash), target, Price.of(state.shared_params_at(start)))


def requirement_of(state: State, claim: Claim, block_hash: BlockHash) -> ProofRequirement:
    """Return whether and why the claim needs a proof."""
    end = claim.header.session_end_block_height
    seed = block_hash(state.shared_params_at(end).windows(end).proof_seed)
    return proof_requirement(claim, claimed_amount(state, claim), seed, state.proof_params)


def _session(state: State, block_hash: BlockHash, header: SessionHeader, supplier: str, index: int) -> HydratedSession:
    try:
        session = hydrate(
            state, block_hash, header.application_address, header.service_id, header.session_start_block_height
        )
    except HydrationError as error:
        raise handler_error(index, str(error), "InvalidArgument") from error
    if session.header.session_id != header.session_id:
        text = f'expected "{session.header.session_id}", got "{header.session_id}"'
        raise handler_error(index, f"session ID does not match onchain session ID; {text}: invalid session ID")
    if not session.has(supplier):
        text = f'supplier operator address "{supplier}" not found in session ID "{header.session_id}"'
        raise handler_error(index, f"{text}: supplier not found")
    return session


def claim_attributes(state: State, claim: Claim) -> dict[str, str]:
    """Return the attributes that every event about a claim has."""
    root = Root(claim.root_hash)
    target = state.difficulty_at(claim.header.service_id, claim.header.session_start_block_height).target_hash
    return {
        "num_relays": str(root.count),
        "num_claimed_compute_units": str(root.total),
        "num_estimated_compute_units": str(root.total),
        "num_estimated_relays": str(estimated_relays(root, target)),
        "claimed_upokt": f"{claimed_amount(state, claim)}upokt",
        "service_id": claim.header.service_id,
        "application_address": claim.header.application_address,
        "session_end_block_height": str(claim.header.session_end_block_height),
        "claim_proof_status_int": str(claim.proof_validation_status),
        "supplier_operator_address": claim.supplier_operator_address,
    }


def _create_claim(state: State, block_hash: BlockHash, message: proof_pb.MsgCreateClaim, index: int) -> MessageResult:
    header, supplier = header_of(message), message.supplier_operator_address
    if header is None:
        raise handler_error(index, "session header is nil", "InvalidArgument")
    _session(state, block_hash, header, supplier, index)
    windows = state.shared_params_at(header.session_end_block_height).windows(header.session_end_block_height)
    window_text = "claim attempted outside of the session's claim window"
    if state.height < windows.earliest_claim_commit:
        text = f"less than the session's earliest claim commit height ({windows.earliest_claim_commit})"
        raise handler_error(index, f"current block height ({state.height}) is {text}: {window_text}")
    if state.height > windows.claim_close:
        text = f"greater than session claim window close height ({windows.claim_close})"
        raise handler_error(index, f"current block height ({state.height}) is {text}: {window_text}")
    root = Root(message.root_hash)
    service = state.services[header.service_id]
    units = service.compute_units_at(header.session_start_block_height)
    if root.total != root.count * units:
        raise handler_error(
            index,
            f"claim compute units: {root.total} is not equal to number of relays {root.count} * compute units per "
            f"relay {units} for service {service.id}: mismatch: claim compute units != number of relays * service "
            "compute units per relay",
        )
    key = (header.session_id, supplier)
    claim = Claim(supplier, header, bytes(message.root_hash))
    kind = "pocket.proof.EventClaimUpdated" if key in state.claims else "pocket.proof.EventClaimCreated"
    state.claims[key] = claim
    return MessageResult(MESSAGE_GAS, Event(kind, claim_attributes(state, claim)))


_HEADER_FIELDS = (
    ("application_address", "application addresses"),
    ("service_id", "service IDs"),
    ("session_start_block_height", "session start heights"),
    ("session_end_block_height", "session end heights"),
    ("session_id", "session IDs"),
)


def _compare_headers(got: SessionHeader | None, expected: SessionHeader, index: int) -> None:
    for name, text in _HEADER_FIELDS:
        theirs = None if got is None else getattr(got, name)
        if theirs != (ours := getattr(expected, name)):
            shown = (f'"{ours}"', f'"{theirs}"') if isinstance(ours, str) else (str(ours), str(theirs))
            raise handler_error(
                index, f"session headers {text} mismatch; expected: {shown[0]}, got: {shown[1]}: invalid relay"
            )


def _proven_relay(message: proof_pb.MsgSubmitProof, index: int) -> tuple[bytes, RelayRequest, RelayResponse]:
    try:
        value = leaf_value(decompact(unmarshal(message.proof))[0])
    except InvalidProof as error:
        text = f"failed to unmarshal sparse compact merkle closest proof: {error}: invalid proof"
        raise handler_error(index, text) from error
    try:
        relay = decode_relay(value)
    except DecodingError as error:
        raise handler_error(index, f"failed to unmarshal relay: {error}: invalid relay") from error
    request, response = relay.request, relay.response
    if request is None or (problem := request.problem()):
        raise handler_error(index, f"{problem if request else 'request is nil'}: invalid relay request")
    if response is None or (problem := response.problem()):
        if response is not None and response.header and not response.supplier_operator_signature:
            problem = "missing supplier operator signature"
        raise handler_error(index, f"{problem if response else 'response is nil'}: invalid relay response")
    return value, request, response


def _submit_proof(state: State, block_hash: BlockHash, message: proof_pb.MsgSubmitProof, index: int) -> MessageResult:
    header, supplier = header_of(message), message.supplier_operator_address
    if header is None:
        raise handler_error(index, "session header is nil", "InvalidArgument")
    session = _session(state, block_hash, header, supplier, index)
    onchain = session.header
    end = onchain.session_end_block_height
    windows = state.shared_params_at(end).windows(end)
    window_text = "proof attempted outside of the session's proof window"
    if state.height < windows.earliest_proof_commit:
        text = f"less than session's earliest proof commit height ({windows.earliest_proof_commit})"
        raise handler_error(index, f"current block height ({state.height}) is {text}: {window_text}")
    if state.height > windows.proof_close:
        text = f"greater than session proof window close height ({windows.proof_close})"
        raise handler_error(index, f"current block height ({state.height}) is {text}: {window_text}")
    value, request, response = _proven_relay(message, index)
    if request.supplier_operator_address != supplier:
        text = "supplier type mismatch: supplier operator address does not match the claim or proof"
        raise handler_error(index, text)
    _compare_headers(request.header, onchain, index)
    _compare_headers(response.header, onchain, index)
    target = state.difficulty_at(onchain.service_id, onchain.session_start_block_height).target_hash
    if not is_applicable(relay_hash(value), target):
        raise handler_error(
            index,
            f"failed to validate relay difficulty for service {onchain.service_id} due to: the difficulty relay being "
            "proven is below the target: invalid relay difficulty",
        )
    key = (onchain.session_id, supplier)
    claim = state.claims.get(key)
    if claim is None:
        text = f'no claim found for session ID "{onchain.session_id}" and supplier "{supplier}": claim not found'
        raise handler_error(index, text)
    if claim.header != onchain:
        claimed_end = claim.header.session_end_block_height
        text = f"claim session end height {claimed_end} does not match proof session end height {end}"
        raise handler_error(index, f"{text}: invalid session end height")
    fee = state.proof_params.proof_submission_fee_upokt
    balance = state.balances.get(supplier, 0)
    if fee and balance <= fee:
        text = f"account has {balance}, but the proof submission fee is {fee}upokt: not enough funds to submit proof"
        raise handler_error(index, text)
    state.balances[supplier] = balance - fee
    if requirement_of(state, claim, block_hash) is ProofRequirement.NOT_REQUIRED:
        raise handler_error(index, "proof not required")
    kind = "pocket.proof.EventProofUpdated" if key in state.proofs else "pocket.proof.EventProofSubmitted"
    state.proofs[key] = StoredProof(supplier, onchain.session_id, bytes(message.proof))
    return MessageResult(
        MESSAGE_GAS + PROOF_GAS_PER_BYTE * len(message.proof), Event(kind, claim_attributes(state, claim))
    )


def _send(state: State, message: bank_pb.MsgSend, index: int) -> MessageResult:
    total = sum(int(coin.amount) for coin in message.amount)
    balance = state.balances.get(message.from_address, 0)
    if total > balance:
        text = f"spendable balance {balance}upokt is smaller than {total}upokt: insufficient funds"
        raise TxRejected(5, "sdk", f"failed to execute message; message index: {index}: {text}")
    state.balances[message.from_address] = balance - total
    state.credit(message.to_address, total)
    return MessageResult(
        20_000,
        Event("transfer", {"sender": signer_of(message), "recipient": message.to_address, "amount": f"{total}upokt"}),
    )


def handle(state: State, block_hash: BlockHash, message: ChainMessage, index: int) -> MessageResult:
    """Run one message on `state`. Raises TxRejected."""
    if isinstance(message, proof_pb.MsgCreateClaim):
        return _create_claim(state, block_hash, message, index)
    if isinstance(message, proof_pb.MsgSubmitProof):
        return _submit_proof(state, block_hash, message, index)
    if isinstance(message, supplier_pb.MsgStakeSupplier):
        return MessageResult(*stake(state, message, index))
    if isinstance(message, supplier_pb.MsgUnstakeSupplier):
        return MessageResult(*unstake(state, message, index))
    return _send(state, message, index)
