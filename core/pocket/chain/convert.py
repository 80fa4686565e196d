"""Convert protobuf responses to model values.

Raises DecodingError for invalid ones.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.message import DecodeError

from pocket.chain.model import (
    Account,
    Application,
    Block,
    Difficulty,
    Event,
    ServiceConfig,
    Session,
    StakedSupplier,
    StakingParams,
    TransactionResult,
    checked_block,
)
from pocket.errors import DecodingError
from pocket.protocol.claims.proof_requirement import Claim, ProofParams
from pocket.protocol.claims.rewards import TokenomicsParams
from pocket.protocol.crypto.addresses import address_of, is_address
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import cosmos_base_abci_v1beta1_pb2 as abci_pb
from pocket.protocol.pb import cosmos_base_v1beta1_pb2 as base_pb
from pocket.protocol.pb import cosmos_crypto_secp256k1_pb2 as secp_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.pb import tendermint_types_pb2 as comet_pb
from pocket.protocol.relays import wire
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import DENOMINATION, SECP256K1_PUBLIC_KEY, Timestamp

_AMOUNT: Final = re.compile(r"[0-9]{1,78}")  # of 256 bits


def amount(coin: base_pb.Coin) -> int:
    """Return the amount of a coin in upokt, 0 for a coin that is not set.

    Raises DecodingError.
    """
    if not coin.amount and not coin.denom:
        return 0
    if not _AMOUNT.fullmatch(coin.amount):
        raise DecodingError(f"amount {coin.amount[:40]!r} is not a whole number")
    return int(coin.amount)


def _stake(record: application_pb.Application | shared_pb.Supplier) -> int:
    """Return the stake of a record in upokt. Raises DecodingError if it has none."""
    if not record.HasField("stake") or record.stake.denom != DENOMINATION:
        raise DecodingError(f"the record has no stake in {DENOMINATION}")
    return amount(record.stake)


def header_of(message: session_pb.SessionHeader) -> SessionHeader:
    """Session header."""
    return SessionHeader(
        message.application_address,
        message.service_id,
        message.session_id,
        message.session_start_block_height,
        message.session_end_block_height,
    )


def shared_params(message: shared_pb.Params) -> SharedParams:
    """Convert shared params. Older chains leave session number and anchor unset."""
    if message.num_blocks_per_session == 0 or message.compute_unit_cost_granularity == 0:
        raise DecodingError("shared params without blocks per session or price granularity")
    return SharedParams(**{f.name: getattr(message, f.name) for f in shared_pb.Params.DESCRIPTOR.fields})


def proof_params(message: proof_pb.Params) -> ProofParams:
    """Proof params. Raises DecodingError for an impossible probability."""
    if not 0 <= message.proof_request_probability <= 1:
        raise DecodingError(f"proof params with the probability {message.proof_request_probability}")
    return ProofParams(
        message.proof_request_probability,
        amount(message.proof_requirement_threshold),
        amount(message.proof_missing_penalty),
        amount(message.proof_submission_fee),
    )


def staking_params(message: supplier_pb.Params) -> StakingParams:
    """Parameters of supplier stakes."""
    return StakingParams(amount(message.min_stake), amount(message.staking_fee))


def tokenomics_params(message: tokenomics_pb.Params) -> TokenomicsParams:
    """Convert tokenomics params.

    Raises DecodingError for missing or impossible shares.
    """
    minted, distributed = message.mint_allocation_percentages, message.mint_equals_burn_claim_distribution
    if not message.HasField("mint_equals_burn_claim_distribution") or not _adds_up(distributed):
        raise DecodingError("tokenomics params without shares of a claim that add up to one")
    if not 0 < message.mint_ratio <= 1:
        raise DecodingError(f"tokenomics params with the mint ratio {message.mint_ratio}")
    inflation = message.global_inflation_per_claim
    if not 0 <= inflation < float("inf") or (inflation and not _adds_up(minted)):
        raise DecodingError(f"tokenomics params with an inflation of {inflation} that is not distributed")
    return TokenomicsParams(
        mint_ratio=message.mint_ratio,
        supplier_share=distributed.supplier,
        global_inflation_per_claim=inflation,
        inflation_supplier_share=minted.supplier if inflation else 0.0,
    )


def _adds_up(shares: tokenomics_pb.MintAllocationPercentages | tokenomics_pb.MintEqualsBurnClaimDistribution) -> bool:
    parts = (shares.dao, shares.proposer, shares.supplier, shares.source_owner, shares.application)
    return all(part >= 0 for part in parts) and math.isclose(sum(parts), 1.0, abs_tol=1e-6)


def application(message: application_pb.Application) -> Application:
    """Application record."""
    return Application(
        message.address,
        _stake(message),
        tuple(c.service_id for c in message.service_configs),
        tuple(message.delegatee_gateway_addresses),
        {height: tuple(row.gateway_addresses) for height, row in message.pending_undelegations.items()},
        message.unstake_session_end_height,
    )


def session(message: session_pb.Session) -> Session:
    """Hydrated session."""
    return Session(
        header_of(message.header),
        message.session_number,
        message.num_blocks_per_session,
        _stake(message.application),
        frozenset(supplier.operator_address for supplier in message.suppliers),
    )


def _service_config(row: shared_pb.ServiceConfigUpdate) -> ServiceConfig:
    options = tuple(tuple((int(o.key), o.value) for o in endpoint.configs) for endpoint in row.service.endpoints)
    return ServiceConfig(
        row.service.service_id,
        row.activation_height,
        row.deactivation_height,
        tuple((share.address, share.rev_share_percentage) for share in row.service.rev_share),
        tuple((endpoint.rpc_type, endpoint.url) for endpoint in row.service.endpoints),
        options if any(options) else (),
    )


def supplier(message: shared_pb.Supplier) -> StakedSupplier:
    """Supplier record."""
    return StakedSupplier(
        message.operator_address,
        message.owner_address,
        _stake(message),
        frozenset(config.service_id for config in message.services),
        message.unstake_session_end_height,
        tuple(_service_config(row) for row in message.service_config_history),
    )


_FIRST_FIELD = {1: wire.Field("inner", wire.BYTES)}


def _base_account(value: bytes) -> auth_pb.BaseAccount:
    """Return the base account inside an account.

    Module accounts hold it at field 1, vesting accounts one level deeper.
    """
    for _ in range(3):
        with contextlib.suppress(DecodeError):
            base = auth_pb.BaseAccount.FromString(value)
            if is_address(base.address):
                return base
        inner = wire.decode(_FIRST_FIELD, value).get("inner", b"")
        value = bytes(inner)
    raise DecodingError("no base account inside")


def account(type_url: str, value: bytes) -> Account:
    """Convert an account from its Any. Raises DecodingError."""
    try:
        base = _base_account(value)
        key = None
        if base.HasField("pub_key") and base.pub_key.type_url == SECP256K1_PUBLIC_KEY:
            key = secp_pb.PubKey.FromString(base.pub_key.value).key or None
    except (DecodeError, DecodingError) as error:
        raise DecodingError(f"account of type {type_url[:80]!r} cannot be read") from error
    if key is not None and address_of(key) != base.address:
        raise DecodingError(f"the public key of {base.address} is that of another account")
    return Account(base.address, base.account_number, base.sequence, key)


def difficulty(message: service_pb.RelayMiningDifficulty) -> Difficulty:
    """Convert a difficulty.

    An empty target means the base target. Raises DecodingError.
    """
    target = message.target_hash or BASE_TARGET
    if len(target) != len(BASE_TARGET) or not any(target):
        raise DecodingError(f"target {target[:40].hex()} is not a number of 32 bytes above zero")
    return Difficulty(message.service_id, target, message.num_relays_ema)


def claim(message: proof_pb.Claim) -> Claim:
    """Claim with its validation status."""
    return Claim(
        message.supplier_operator_address,
        header_of(message.session_header),
        message.root_hash,
        int(message.proof_validation_status),
    )


def block(block_id: comet_pb.BlockID, header: comet_pb.Header) -> Block:
    """Block from the gRPC form. Raises DecodingError."""
    return checked_block(header.height, block_id.hash, Timestamp(header.time.seconds, header.time.nanos))


def transaction_result(message: abci_pb.TxResponse) -> TransactionResult:
    """Broadcast or inclusion result."""
    return TransactionResult(
        message.txhash, message.code, message.codespace, message.raw_log, message.height, message.gas_used
    )


def _plain(value: str) -> str:
    if value.startswith('"'):
        try:
            text = json.loads(value)
        except ValueError:
            return value
        return text if isinstance(text, str) else value
    return value


def events(rows: Iterable[Mapping[str, Any]]) -> tuple[Event, ...]:
    """Convert events from CometBFT JSON and strip quotes from attribute values."""
    return tuple(
        Event(str(row["type"]), {str(a["key"]): _plain(str(a.get("value") or "")) for a in row.get("attributes") or []})
        for row in rows
    )
