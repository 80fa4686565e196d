"""Where the system's promise ends, decided when a fault would begin: one that nothing could survive does not.

What depends on the plan alone is in `draw`. Here counts what has happened: blocks that came late, transactions that
were lost long after their fault was drawn, the place of the last copy.
"""

from collections.abc import Collection, Sequence

from simulated.plan import BLOCK_SECONDS, NO_ANSWER_SHARE, SESSION_BLOCKS, SESSION_ENDS, WINDOW_BLOCKS, Fault, Kind

_CLOSES = tuple(sorted(end + 2 + number * WINDOW_BLOCKS for end in SESSION_ENDS for number in (1, 2)))
"""Heights at which windows of claims and of proofs close."""
_BLOCKS_TO_TAKE_OVER = 5
_BLOCKS_TO_DECIDE = 3
_BLOCKS_TO_PROVE = _BLOCKS_TO_TAKE_OVER + 1  # the next owner may have to adopt the claim first
_MOST_SECONDS_AWAY = 2 * BLOCK_SECONDS
_TO_SEAL_SECONDS = 10 * BLOCK_SECONDS  # from the loss of a copy to the seals, at most


DELAYING = frozenset({Kind.DISK_HANGS, Kind.NO_FUNDS, Kind.KEYS_AWAY})
"""Faults during which a miner sends nothing."""


def reaches_last_chance(height: int, empty_blocks: int) -> bool:
    """Return True if blocks without transactions after `height` reach the last blocks of a window.

    There is no later block to wait for then, and nobody can tell an empty block from a lost transaction. So bytes that
    came late are signed again, and both may be included: a second fee is less than a claim or stake.
    """
    last = height + empty_blocks
    return any(height < close <= last + empty_blocks for close in _CLOSES)


def is_last_chance(height: int) -> bool:
    """Return True if a block is the last one of a window: a transaction that it does not take comes too late."""
    return height in _CLOSES


def leaves_no_time(fault: Fault, lost_at: int, height: int) -> bool:
    """Return True if no node can be reached for blocks of a window in which a transaction was lost, at `lost_at`.

    The same holds where a miner lacks its disk, its keys or money for as long, and where a Redis that came back then
    puts off the seals.

    Nodes may still say that they have it. It is given up once as many blocks have passed as are left, and without
    nodes in these there is nobody to give new bytes to.
    """
    nobody = fault.kind in DELAYING or (
        not fault.target
        and (fault.kind is Kind.NODE_DOWN or (fault.kind is Kind.NODE_FAILS and fault.share > NO_ANSWER_SHARE))
    )
    same = any(close - WINDOW_BLOCKS <= lost_at <= height < close for close in _CLOSES)
    return nobody and same and fault.seconds > _MOST_SECONDS_AWAY


def puts_off(unclaimed: Collection[int], redis_back_at: int) -> list[int]:
    """Return the ends of those sessions that are sealed in the second half of their window: Redis came back since.

    `unclaimed` are the ends of sessions without a claim on chain.
    """
    return [end for end in unclaimed if redis_back_at > end - SESSION_BLOCKS]


def leaves_no_proof(height: int) -> bool:
    """Return True if proofs that become required at `height` cannot be decided, sent and included in time."""
    return any(height < end + 2 + 2 * WINDOW_BLOCKS <= height + _BLOCKS_TO_DECIDE for end in SESSION_ENDS)


def replays_too_late(back_at: float, height: int) -> bool:
    """Return True if a relayer that resumes after `back_at` seconds cannot replay its log before sessions are sealed.

    Those are the ones that are open at `height`: their seals wait for it until the middle of their window.
    """
    middles = (end + 2 + WINDOW_BLOCKS // 2 for end in SESSION_ENDS)
    return any(height < middle <= back_at / BLOCK_SECONDS + 1 for middle in middles)


def takes_the_last_owner(unclaimed: Collection[int], height: int) -> bool:
    """Return True if nobody could claim in time what an owner that goes now leaves without a claim on chain.

    `unclaimed` are the ends of such sessions: a mempool lost their claims, or they are sealed late because Redis came
    back. The next owner takes over in five blocks.
    """
    closes = (end + 2 + WINDOW_BLOCKS for end in unclaimed)
    return any(close - _BLOCKS_TO_TAKE_OVER <= height < close for close in closes)


def takes_the_last_prover(unproven: Collection[int], height: int) -> bool:
    """Return True if an owner that goes now, and does not get its Leases back, leaves no time for its proofs.

    `unproven` are the ends of sessions with a claim on chain that lacks a valid proof.
    """
    closes = (end + 2 + 2 * WINDOW_BLOCKS for end in unproven)
    return any(close - _BLOCKS_TO_PROVE <= height < close for close in closes)


def takes_the_last_miner(
    unclaimed: Collection[int], unproven: Collection[int], others_running: int, height: int
) -> bool:
    """Return True if a miner that goes for long would leave sessions in their windows to no running miner.

    They are given by their ends: those without a claim, and those with one that lacks a proof. A miner that resumes
    waits for the Lease of the one that is gone.
    """
    claims = any(end <= height < end + 2 + WINDOW_BLOCKS for end in unclaimed)
    proofs = any(end + 2 + WINDOW_BLOCKS <= height < end + 2 + 2 * WINDOW_BLOCKS for end in unproven)
    return not others_running and (claims or proofs)


def peers_are_away(faults: Sequence[Fault], now: float) -> bool:
    """Return True if peers cannot be reached before the sessions that are open now are sealed.

    A copy on one miner's volume is then out of the others' reach, and any of them may be the next owner.
    """
    ends = now + _TO_SEAL_SECONDS
    return any(
        f.kind in (Kind.PEERS_AWAY, Kind.PEERS_GARBAGE) and f.at < ends and now < f.at + f.seconds for f in faults
    )
