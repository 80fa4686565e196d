"""What is wrong between this machine and the chain's nodes though they answer; pure. Each text says what to do."""

from typing import Final

from shannon.errors import ConfigurationError
from shannon.transactions.build import DENOMINATION, GasPrice

LOW_BALANCE_UPOKT: Final = 1_000_000
"""Less than this hardly pays for the claims and proofs to come."""
_NANOSECONDS: Final = 1_000_000_000
_BEHIND_SECONDS: Final = 5
_AHEAD_SECONDS: Final = 60


def clock_problem(block_time_ns: int, now_ns: int, block_seconds: float) -> str:
    """For a block that was just announced; empty where the clock fits.

    A block's time is that of the votes for the one before, so it is one block's time old when it arrives.
    """
    if block_time_ns > now_ns + _BEHIND_SECONDS * _NANOSECONDS:
        return (
            "The newest block is from the future of this machine's clock, which is slow. "
            "Start time synchronisation (NTP) on its node."
        )
    if now_ns > block_time_ns + max(_AHEAD_SECONDS, 3 * block_seconds) * _NANOSECONDS:
        return (
            "New blocks are minutes old when they arrive: the chain's nodes are still catching up, or this machine's "
            "clock is fast. Look at catching_up in the node's /status, then at time synchronisation (NTP)."
        )
    return ""


def gas_price_problem(minimum: str, ours: GasPrice) -> str:
    """`minimum`: the node's minimum gas prices, coins separated by commas; empty where ours is enough."""
    for coin in minimum.split(","):
        if not coin.strip().endswith(DENOMINATION):
            continue
        try:
            least = GasPrice.parse(coin)
        except ConfigurationError:
            continue  # a node that words it in another way tells when it refuses
        if least.upokt > ours.upokt:
            return (
                f"The node takes no transaction below {least.upokt:f}{DENOMINATION} a gas, spec.chain.gasPrice is "
                f"{ours.upokt:f}{DENOMINATION}: claims and proofs would be refused. Raise spec.chain.gasPrice."
            )
    return ""
