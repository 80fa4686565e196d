"""Compute the minted amount of a settled claim and the supplier's part of it."""

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class TokenomicsParams:
    """Live tokenomics params that decide the supplier's part, as fractions of one."""

    mint_ratio: float
    supplier_share: float
    """Of what a claim mints against the application's stake."""
    global_inflation_per_claim: float = 0.0
    inflation_supplier_share: float = 0.0
    """Of what a claim mints on top of it."""


def share_of(upokt: int, share: float) -> int:
    """Return a share of an amount, rounded down.

    The float is read as its shortest decimal form, which is how governance writes it.
    """
    return int(upokt * Fraction(str(share)))


def minted_upokt(settled_upokt: int, mint_ratio: float) -> int:
    """Return what is minted for a settled amount."""
    return share_of(settled_upokt, mint_ratio)


def supplier_reward_upokt(settled_upokt: int, params: TokenomicsParams) -> int:
    """Return what operator, owner and shareholders get together for a settled amount.

    Inflation is rounded up: the exact rule is the chain's, and an estimate must not be too small.
    """
    pot = share_of(minted_upokt(settled_upokt, params.mint_ratio), params.supplier_share)
    inflation = math.ceil(settled_upokt * Fraction(str(params.global_inflation_per_claim)))
    return pot + share_of(inflation, params.inflation_supplier_share)
