"""Compute relay mining difficulty.

Sources: docs/protocol/smst.md, section 1, and docs/protocol/sessions.md, section 7.
"""

from fractions import Fraction
from typing import Final

BASE_TARGET: Final = b"\xff" * 32
_BASE: Final = int.from_bytes(BASE_TARGET, "big")


def is_applicable(relay_hash: bytes, target_hash: bytes) -> bool:
    """Return whether a relay hash is strictly below the target, compared as bytes."""
    return relay_hash < target_hash


def multiplier(target_hash: bytes) -> Fraction:
    """Exact difficulty multiplier, int(ff…ff) / int(target)."""
    return Fraction(_BASE, int.from_bytes(target_hash, "big"))


def next_ema(previous: int, mined_relays: int) -> int:
    """Return the moving average of mined relays per settlement.

    It is exponential: trunc(0.1·relays + 0.9·previous).
    """
    return int(0.1 * mined_relays + 0.9 * previous)


def target_for(num_relays_ema: int, target_num_relays: int) -> bytes:
    """Return the target that thins `num_relays_ema` relays to `target_num_relays`.

    Returns the base target if no thinning is needed.
    """
    if num_relays_ema in (target_num_relays, 0):
        return BASE_TARGET
    scaled = _BASE * target_num_relays // num_relays_ema
    raw = scaled.to_bytes((scaled.bit_length() + 7) // 8, "big")
    return BASE_TARGET if len(raw) > 32 else raw.rjust(32, b"\x00")
