"""Compute the amount of a claim and the relay meter's limits.

Sources: docs/protocol/claims-and-proofs.md, section 7, and docs/protocol/relay-lifecycle.md, section 7.
"""

from dataclasses import dataclass
from fractions import Fraction

from pocket.protocol.relays.difficulty import multiplier
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.smst.digest import Root

_MASK_64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Price:
    """The two price parameters effective at the session's start."""

    compute_units_to_tokens_multiplier: int
    compute_unit_cost_granularity: int

    @classmethod
    def of(cls, params: SharedParams) -> "Price":
        """Price of a params record."""
        return cls(params.compute_units_to_tokens_multiplier, params.compute_unit_cost_granularity)


def estimated_compute_units(root: Root, target_hash: bytes) -> int:
    """Claimed units scaled up by the difficulty, low 64 bits."""
    return int(root.total * multiplier(target_hash)) & _MASK_64


def estimated_relays(root: Root, target_hash: bytes) -> int:
    """Return the number of served relays that the claim stands for.

    Returns 0 for a root without relays or without compute units.
    """
    per_relay = root.total // root.count if root.count else 0
    return estimated_compute_units(root, target_hash) // per_relay if per_relay else 0


def claimed_upokt(root: Root, target_hash: bytes, price: Price) -> int:
    """Return the claimed amount in upokt, rounded down once at the end."""
    exact = root.total * multiplier(target_hash)
    return int(exact * Fraction(price.compute_units_to_tokens_multiplier, price.compute_unit_cost_granularity))


def relay_cost_upokt(compute_units_per_relay: int, price: Price) -> int:
    """Return the cost of one served relay for the application, in upokt."""
    return compute_units_per_relay * price.compute_units_to_tokens_multiplier // price.compute_unit_cost_granularity


def meter_limit_upokt(
    app_stake_upokt: int, num_suppliers_per_session: int, params: SharedParams, service_factor: float | None = None
) -> int:
    """Return the upokt that one supplier serves in one session.

    It is the share that the application's stake pays for certain. A service factor, read as its shortest decimal form,
    replaces it by that share of the whole stake, which the chain may cap at settlement.
    """
    if service_factor is not None:
        return int(app_stake_upokt * Fraction(str(service_factor)))
    pending = -(-max(params.window_blocks, 1) // params.num_blocks_per_session) + 1
    return app_stake_upokt // max(num_suppliers_per_session, 1) // pending
