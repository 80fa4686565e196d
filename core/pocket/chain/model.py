"""Immutable values of the chain's responses.

Amounts are in upokt, heights in blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pocket.errors import DecodingError
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.rings import Delegations
from pocket.protocol.sessions.session_id import config_active
from pocket.protocol.transactions.build import Timestamp

_HASH_BYTES: Final = 32
_OUT_OF_GAS: Final = 11


@dataclass(frozen=True, slots=True)
class Block:
    """A committed block. Its 32-byte block id hash seeds sessions and proofs."""

    height: int
    hash: bytes
    time: Timestamp


def checked_block(height: int, block_hash: bytes, time: Timestamp) -> Block:
    """Return a block that a chain can have. Raises DecodingError."""
    if not 0 < height < 1 << 63 or len(block_hash) != _HASH_BYTES:
        raise DecodingError(f"no block has the height {height} and a hash of {len(block_hash)} bytes")
    return Block(height, block_hash, time)


@dataclass(frozen=True, slots=True)
class Application:
    """An application's current record."""

    address: str
    stake_upokt: int
    service_ids: tuple[str, ...]
    gateway_addresses: tuple[str, ...]
    pending_undelegations: Mapping[int, tuple[str, ...]]
    unstake_session_end_height: int

    @property
    def delegations(self) -> Delegations:
        """Return the part of the record that decides the ring."""
        return Delegations(self.address, self.gateway_addresses, self.pending_undelegations)


@dataclass(frozen=True, slots=True)
class Session:
    """A hydrated session."""

    header: SessionHeader
    session_number: int
    num_blocks_per_session: int
    application_stake_upokt: int
    supplier_addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """One service of a supplier with its heights. A deactivation of 0 means no end."""

    service_id: str
    activation_height: int
    deactivation_height: int
    revenue_share: tuple[tuple[str, int], ...] = ()
    endpoints: tuple[tuple[int, str], ...] = ()
    options: tuple[tuple[tuple[int, str], ...], ...] = ()
    """Options of each endpoint as (key, value), empty if no endpoint has one."""


@dataclass(frozen=True, slots=True)
class StakedSupplier:
    """A supplier's current record."""

    operator_address: str
    owner_address: str
    stake_upokt: int
    service_ids: frozenset[str]
    unstake_session_end_height: int
    history: tuple[ServiceConfig, ...] = field(default=())

    def serves(self, service_id: str, height: int, session_end_height: int) -> bool:
        """Return True if the supplier may serve the session that ends at a height.

        Source: docs/protocol/sessions.md, section 5.

        Without history (older or dehydrated answers) the plain services count; height 0 means unknown.
        """
        if self.unstake_session_end_height and session_end_height > self.unstake_session_end_height:
            return False
        if not self.history or height <= 0:
            return service_id in self.service_ids
        return any(
            c.service_id == service_id and config_active(c.activation_height, c.deactivation_height, height)
            for c in self.history
        )


@dataclass(frozen=True, slots=True)
class StakingParams:
    """Parameters of the supplier module.

    Every accepted stake message costs the fee.
    """

    min_stake_upokt: int
    staking_fee_upokt: int


@dataclass(frozen=True, slots=True)
class Account:
    """An account. It has no public key until it has signed once."""

    address: str
    number: int
    sequence: int
    public_key: bytes | None


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Target of a service at a height."""

    service_id: str
    target_hash: bytes
    num_relays_ema: int


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """A node's result of a broadcast or included transaction. Code 0 means accepted."""

    tx_hash: str
    code: int
    codespace: str
    log: str
    height: int = 0
    gas_used: int = 0

    @property
    def fee_paid(self) -> bool:
        """Return True if an included transaction paid its fee.

        What fails before its messages run pays none.
        """
        return self.codespace != "sdk" or self.code in (0, _OUT_OF_GAS) or "message index" in self.log


@dataclass(frozen=True, slots=True)
class NodeRetention:
    """A node's retention: blocks `earliest` to `height`, transactions, past events."""

    earliest: int
    height: int
    transactions: bool
    events: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """A chain event. JSON quotes are stripped from the values."""

    type: str
    attributes: Mapping[str, str]
