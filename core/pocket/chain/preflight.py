"""Diagnose problems between this machine and nodes that answer. Pure.

Each text names the remedy.
"""

from typing import Final

from pocket.errors import ConfigurationError
from pocket.protocol.transactions.build import DENOMINATION, GasPrice

LOW_BALANCE_UPOKT: Final = 1_000_000
"""Less than this hardly pays for the claims and proofs to come."""
_NANOSECONDS: Final = 1_000_000_000
_BEHIND_SECONDS: Final = 5
_AHEAD_SECONDS: Final = 60


def clock_problem(block_time_ns: int, now_ns: int, block_seconds: float) -> str:
    """Return the clock problem that a just announced block shows, or an empty text.

    A block's time is that of the votes for the previous one, so a block is one block interval old when it arrives.
    """
    if block_time_ns > now_ns + _BEHIND_SECONDS * _NANOSECONDS:
        return (
            "The newest block is from the future of this machine's clock, which is slow. "
            "Start time synchronisation (NTP) on its node."
        )
    if now_ns > block_time_ns + max(_AHEAD_SECONDS, 3 * block_seconds) * _NANOSECONDS:
        return (
            "New blocks are minutes old when they arrive: the chain's nodes are still catching up, or this machine's "
            "clock is fast. Check catching_up in the node's /status, then time synchronisation (NTP)."
        )
    return ""


def gas_price_problem(minimum: str, ours: GasPrice) -> str:
    """Return the problem of a gas price below the node's minimum, or an empty text.

    `minimum` holds the node's minimum gas prices, coins separated by commas.
    """
    for coin in minimum.split(","):
        if not coin.strip().endswith(DENOMINATION):
            continue
        try:
            least = GasPrice.parse(coin)
        except ConfigurationError:
            continue  # another notation shows when the node rejects a transaction
        if least.upokt > ours.upokt:
            return (
                f"The node rejects transactions below {least.upokt:f}{DENOMINATION} a gas, spec.chain.gasPrice is "
                f"{ours.upokt:f}{DENOMINATION}: it would reject claims and proofs. Raise spec.chain.gasPrice."
            )
    return ""
