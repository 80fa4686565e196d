"""Faults that begin with an act upon the world around the processes: chain, Redis, disks, clocks."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

from simulated import promises
from simulated.plan import NODES, SERVICES, Fault, Kind
from simulated.system import System
from world import address


async def _redis_full(system: System, fault: Fault) -> None:
    system.tell(f"{fault}")
    instance = system.redis.primary
    instance.full = True
    await asyncio.sleep(fault.seconds)
    instance.full = system.redis.primary.full = False
    system.tell("Redis: has space again")


def _mempool_loss(system: System, fault: Fault) -> None:
    system.tell(f"{fault}")
    system.losing = int(fault.share)


def _mempool_refuses(system: System, fault: Fault) -> None:
    system.tell(f"{fault}")
    rows = [(20, "sdk", "mempool is full"), (18, "sdk", "failed to add unordered nonce: x"),
            (13, "sdk", "insufficient fees; got: 0upokt required: 1upokt")]  # fmt: skip
    system.chain.faults.refuse += [rows[fault.seed % len(rows)]] * int(fault.share) * len(NODES)  # by each


def _no_transactions(system: System, fault: Fault) -> None:
    if promises.reaches_last_chance(system.chain.height, int(fault.share)):
        return
    system.tell(f"{fault}")
    system.chain.faults.hold_blocks = int(fault.share)


def _proof_params(system: System, fault: Fault) -> None:
    if promises.leaves_no_proof(system.chain.height):
        return
    state = system.chain.state
    old = state.proof_params.proof_request_probability
    others = [chance for chance in (0.0, 0.5, 1.0) if chance != old]
    state.proof_params = replace(state.proof_params, proof_request_probability=others[fault.seed % 2] if old else 1.0)
    system.tell(f"{fault}: probability {state.proof_params.proof_request_probability}")


def _shared_params(system: System, fault: Fault) -> None:
    """Change the session grid, the windows and the price of all sessions that begin after the current one."""
    chance = random.Random(fault.seed)
    changed = replace(
        system.chain.state.live_shared_params,
        num_blocks_per_session=chance.choice((2, 4, 7, 20, 60)),
        grace_period_end_offset_blocks=chance.choice((0, 1, 5)),
        claim_window_open_offset_blocks=chance.choice((1, 3, 9)),
        claim_window_close_offset_blocks=chance.choice((1, 2, 4, 20)),
        proof_window_open_offset_blocks=chance.choice((0, 1, 5)),
        proof_window_close_offset_blocks=chance.choice((1, 2, 4, 20)),
        compute_units_to_tokens_multiplier=chance.choice((500_000, 1_000_000, 3_000_000)),
    )
    system.tell(f"{fault}: {changed}")
    system.chain.change_shared_params(changed)


def _prices(system: System, fault: Fault) -> None:
    system.tell(f"{fault}")
    system.chain.change_compute_units(SERVICES[fault.seed % 2], 50 + fault.seed % 200)


def _garbage_rows(system: System, fault: Fault) -> None:
    system.tell(f"{fault}")
    system.put_garbage(fault.target)


def _clock_jumps(system: System, fault: Fault) -> None:
    program = system.programs.get(fault.target)
    if program is not None and program.process is not None:
        system.tell(f"{fault}")
        program.process.wall_offset_seconds += fault.share


async def _disk_slow(system: System, fault: Fault) -> None:
    program = system.programs.get(fault.target)
    programs = [program] if program else [p for p in system.programs.values() if not p.relayer]
    slow = [p.process for p in programs if p.process is not None]
    system.tell(f"{fault}")
    for process in slow:
        process.disk_seconds = fault.share
    await asyncio.sleep(fault.seconds)
    for process in slow:
        process.disk_seconds = 0.0
    system.tell(f"over: {fault.kind.value} {fault.target}")


async def _keys_away(system: System, fault: Fault) -> None:
    """Take away all key files, as while a Secret is empty, and bring them back."""
    system.tell(f"begins: {fault}")
    folder, aside = system.folder / "keys", system.folder / "keys aside"
    aside.mkdir()
    for path in folder.iterdir():
        path.rename(aside / path.name)
    system.network.holding.append(fault)
    await asyncio.sleep(fault.seconds)
    system.network.holding.remove(fault)
    for path in aside.iterdir():
        path.rename(folder / path.name)
    aside.rmdir()
    system.tell(f"over: {fault.kind.value}")


async def _no_funds(system: System, fault: Fault) -> None:
    """Take a supplier's balance away for a while."""
    system.tell(f"{fault}")
    balances, operator = system.chain.state.balances, address(fault.target)
    gone, balances[operator] = balances.get(operator, 0), 0
    await asyncio.sleep(fault.seconds)
    balances = system.chain.state.balances
    balances[operator] = balances.get(operator, 0) + gone
    system.tell(f"over: {fault.kind.value} {fault.target}")


ACTS: dict[Kind, Callable[[System, Fault], object]] = {
    Kind.REDIS_FULL: _redis_full, Kind.MEMPOOL_LOSS: _mempool_loss, Kind.MEMPOOL_REFUSES: _mempool_refuses,
    Kind.NO_TRANSACTIONS: _no_transactions, Kind.PROOF_PARAMS: _proof_params, Kind.PRICES: _prices,
    Kind.CLOCK_JUMP: _clock_jumps, Kind.GARBAGE_ROWS: _garbage_rows, Kind.DISK_SLOW: _disk_slow,
    Kind.DISK_HANGS: _disk_slow, Kind.KEYS_AWAY: _keys_away, Kind.NO_FUNDS: _no_funds,
    Kind.SHARED_PARAMS: _shared_params,
}  # fmt: skip
"""What is no state that lasts and ends (`Network.holding`), by kind. A coroutine is awaited."""
