"""Diagnose problems between this machine and nodes that answer. Pure.

Each text names the remedy.
"""

from typing import Final

from pocket.errors import ConfigurationError
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import DENOMINATION, GasPrice

LOW_BALANCE_UPOKT: Final = 1_000_000
"""Less than this hardly pays for the claims and proofs to come."""
SUPPLIERS_PER_PROCESSOR: Final = 50
_NANOSECONDS: Final = 1_000_000_000
_BEHIND_SECONDS: Final = 5
_AHEAD_SECONDS: Final = 60


def params_advice(params: SharedParams) -> tuple[str, ...]:
    """Return likely problems of the chain's own parameters.

    Only the chain's governance can change them.
    """
    found = []
    for who, sessions in (
        ("applications", params.application_unbonding_period_sessions),
        ("suppliers", params.supplier_unbonding_period_sessions),
    ):
        blocks = sessions * params.num_blocks_per_session
        if blocks < params.window_blocks:
            found.append(
                f"The chain lets {who} leave {blocks} blocks after they unstake, and settles a session after "
                f"{params.window_blocks}: relays served just before may not be paid."
            )
    if params.grace_period_end_offset_blocks > params.claim_window_open_offset_blocks:
        found.append(
            f"The chain takes relays until {params.grace_period_end_offset_blocks} blocks after a session, and claims "
            f"from block {params.claim_window_open_offset_blocks + 1}: relays that come after the claim are not paid."
        )
    return tuple(found)


def capacity_advice(suppliers: int, processors: int) -> str:
    """Return advice if a miner has too few processors for its suppliers, or an empty text."""
    if suppliers <= SUPPLIERS_PER_PROCESSOR * processors:
        return ""
    return (
        f"{suppliers} suppliers on {processors} processors are more than {SUPPLIERS_PER_PROCESSOR} each: at a window's "
        "opening all are sealed at once. Give miners more CPU, or add replicas."
    )


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
