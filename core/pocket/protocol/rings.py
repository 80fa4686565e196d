"""Compute the expected ring of a relay request.

Source: docs/protocol/ring-signatures.md, section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

PLACEHOLDER_ADDRESS: Final = "6178B12D0711F3A930A6133C39AE3B89E9E79A04"
PLACEHOLDER_PUBLIC_KEY: Final = bytes.fromhex("021066f293709356a33e9c13017867586baf52513e845bc4335233a15ed1e00baf")
PLACEHOLDER_PRIVATE_KEY: Final = bytes.fromhex("60c6cbe6b5011807d6486f351cbde6f964356df1d0bc1b04f8589cead5ab5206")


@dataclass(frozen=True, slots=True)
class Delegations:
    """The part of an application's record that decides its ring.

    `pending_undelegations` maps an undelegation height to gateway addresses.
    """

    application_address: str
    gateway_addresses: tuple[str, ...]
    pending_undelegations: Mapping[int, tuple[str, ...]]


def ring_addresses(delegations: Delegations, session_end_height: int) -> tuple[str, ...]:
    """Return the sorted member addresses of the ring (section 5.1).

    An application without delegated gateways gets the placeholder address.
    """
    pending: dict[str, None] = {}
    for height, addresses in delegations.pending_undelegations.items():
        if height >= session_end_height:
            pending.update(dict.fromkeys(addresses))
    gateways = [*delegations.gateway_addresses, *pending] or [PLACEHOLDER_ADDRESS]
    return tuple(sorted([delegations.application_address, *gateways]))


def ring_keys(addresses: Sequence[str], public_keys: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """Return the member keys in address order.

    Raises KeyError with the address that has no key on chain.
    """
    return tuple(
        PLACEHOLDER_PUBLIC_KEY if address == PLACEHOLDER_ADDRESS else public_keys[address] for address in addresses
    )
