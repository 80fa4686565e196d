"""One life of the whole system: drawn from a seed, lived on a virtual clock, judged."""

import asyncio
import contextlib
import gc
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulated import acts, promises
from simulated.draw import draw, probability
from simulated.judges import Judges
from simulated.limits import limited
from simulated.loop import Loop, Stuck
from simulated.plan import BLOCK_SECONDS, SERVICES, SESSION_BLOCKS, SUPPLIERS, Fault, Kind
from simulated.redis_faults import RedisFaults
from simulated.result import Result
from simulated.system import RELAYS, SETTLED, STARTS, Program, System, world
from world import address

VOLUMES = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
_AFTER_BLOCKS = 12  # after the last settlement, in which everything must be over
_AGAIN_SECONDS = 1.5
_BURST_SECONDS = 5.0  # for relays that a stopped relayer may hold


class Life(RedisFaults):
    """`faults`: instead of those that the seed draws. `hasty`: it ends with the first thing that is wrong."""

    def __init__(self, seed: int, faults: Sequence[Fault] | None = None, *, hasty: bool = False) -> None:
        self.seed, self._hasty = seed, hasty
        self.loop = Loop(seed)
        folder = Path(tempfile.mkdtemp(prefix="life-", dir=VOLUMES))
        self.system = System(seed, self.loop, folder, kubernetes=bool(seed % 3), proofs=probability(seed))
        self.faults = tuple(draw(seed) if faults is None else faults)
        self.judges = Judges(self.system, self.faults)
        self._held: set[str] = set()
        self._stopped_until: dict[str, float] = {}  # names of relayers
        self._destroyed: set[str] = set()  # kinds of copies that a fault has destroyed
        self._redis_back_at = 0  # height
        self._pace, self._halted = 1.0, False
        for number in range(2):
            self._program(f"relayer-{number}", relayer=True)
            self._program(f"miner-{number}", relayer=False)

    def _program(self, name: str, *, relayer: bool) -> Program:
        made = self.system.programs[name] = Program(name, relayer, self.system.folder / name)
        return made

    def run(self) -> Result:
        begun = time.process_time()
        system = self.system
        try:
            with system.machine.installed():
                try:
                    with limited(self.judges.wrong):
                        self.loop.run_until_complete(self._live())
                except Stuck as error:
                    self.judges.wrong(f"nothing goes on: {error}")
                errors = list(self.loop.errors)
                self.loop.bury()
                self.loop.run_for(20_000)
        finally:
            self.loop.close()
            system.clean()
        return Result(
            self.seed, self.faults, self.judges.problems, self.loop.trace, system.events, system.network.hits,
            system.network.calls, sum(map(len, system.acknowledged.values())), len(system.acknowledged),
            self.loop.turns, time.process_time() - begun, errors,
        )  # fmt: skip

    async def _live(self) -> None:
        for program in list(self.system.programs.values()):
            self.system.start(program)
        tasks = [asyncio.create_task(work) for work in (self._kubelet(), self._pictures(), self._gateways())]
        tasks += [asyncio.create_task(self._happen(fault)) for fault in self.faults]
        try:
            await self._blocks()
        finally:
            for task in tasks:
                task.cancel()
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception() or AssertionError
        if not (self._hasty and self.judges.problems):
            self.judges.at_end()

    async def _blocks(self) -> None:
        system = self.system
        while True:
            await asyncio.sleep(BLOCK_SECONDS * self._pace)
            while self._halted:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(1.0)
            system.step()
            self.judges.at_block()
            if self._hasty and self.judges.problems:
                return
            if system.chain.height >= SETTLED + 2 and not self.judges.unsettled():
                return
            if system.chain.height >= SETTLED + _AFTER_BLOCKS:
                return

    async def _kubelet(self) -> None:
        """Restart processes that ended and should run."""
        while True:
            await asyncio.sleep(_AGAIN_SECONDS)
            for program in list(self.system.programs.values()):
                if program.wanted and program.name not in self._held and not program.alive:
                    self.system.start(program)

    async def _pictures(self) -> None:
        while True:
            self.system.redis.picture()
            await asyncio.sleep(0.5)

    async def _gateways(self) -> None:
        chance, system, number = self.loop.chance, self.system, 0
        for start in STARTS:
            while system.chain.height < start:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.3)
            rows = []
            for service in SERVICES:
                header = system.session(service, start)
                for supplier in SUPPLIERS:
                    if (drawn := chance.random()) < 0.1:
                        continue  # only a burst may send it relays
                    late = drawn < 0.25  # of some sessions the only relay comes at their end
                    for _ in range(1 if late else chance.randint(1, RELAYS)):
                        number += 1
                        at = chance.uniform(SESSION_BLOCKS - 1 if late else 0, SESSION_BLOCKS + 1.5) * BLOCK_SECONDS
                        rows.append((at, header, supplier, number))
            await asyncio.gather(*(self._relay_at(*row) for row in rows))

    async def _relay_at(self, after: float, header, supplier: str, number: int) -> None:
        await asyncio.sleep(after)
        sent_at, height = self.loop.time(), self.system.chain.height
        served = await self.system.relay(header, supplier, number)
        if not served and height < header.session_end_block_height:
            self.judges.refused(header, supplier, sent_at)

    # What goes wrong.

    async def _happen(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        program = self.system.programs.get(fault.target)
        act: Callable[[Fault, Program | None], object] | None = _ACTS.get(fault.kind)
        if fault.kind in promises.DELAYING and self._leaves_no_time(fault):
            return
        if fault.kind in acts.ACTS:
            done = acts.ACTS[fault.kind](self.system, fault)
        elif act is not None:
            done = act(self, fault, program)
        else:
            done = self._hold(fault)
        if asyncio.iscoroutine(done):
            await done

    async def _hold(self, fault: Fault) -> None:
        """Let a fault last, unless nothing could survive it now."""
        if self._leaves_no_time(fault):
            return
        self.system.tell(f"begins: {fault}")
        self.system.network.holding.append(fault)
        if fault.kind in (Kind.NODE_DOWN, Kind.NODE_RESTART):
            for name, node in self.system.nodes.items():
                if fault.target in ("", name):
                    node.cut()
        await asyncio.sleep(fault.seconds)
        self.system.network.holding.remove(fault)
        if fault.kind is Kind.NODE_RESTART:
            self.system.nodes[fault.target].waits_for_block = self.system.chain.height + 1
        self.system.tell(f"over: {fault.kind.value} {fault.target}")

    def _leaves_no_time(self, fault: Fault) -> bool:
        height, lost_at = self.system.chain.height, self.system.lost_at
        put_off = promises.puts_off(self.judges.unclaimed_ends(), self._redis_back_at)
        return promises.leaves_no_time(fault, height if put_off else lost_at, height)

    async def _kill(self, fault: Fault, program: Program) -> None:
        if not program.alive or program.name in self._held:
            return
        if fault.kind is Kind.GONE and (
            self._is_last_owner() or self._is_last_miner(program) or self._is_last_prover(program)
        ):
            return
        if self._is_late_owner(fault, program):
            return
        self._kill_and_hold(program)
        await self._back(fault, program)

    def _is_late_owner(self, fault: Fault, program: Program) -> bool:
        """Return whether an owner that goes for more than a block leaves no time for what others would send."""
        return (
            not program.relayer and fault.seconds > BLOCK_SECONDS and
            (self._is_last_owner() or self._is_last_miner(program))
        )  # fmt: skip

    def _is_last_owner(self) -> bool:
        return promises.takes_the_last_owner(self.judges.unclaimed_ends(), self.system.chain.height)

    def _is_last_prover(self, program: Program) -> bool:
        unproven = self.judges.unproven_ends()
        return not program.relayer and promises.takes_the_last_prover(unproven, self.system.chain.height)

    def _waits_for_its_own_leases(self, program: Program) -> bool:
        """Return whether one on another volume, which has another name there, would act too late."""
        return not self.system.kubernetes and (
            self._is_last_prover(program) or (not program.relayer and self._is_last_owner())
        )

    def _is_last_miner(self, program: Program) -> bool:
        others = (p for p in self.system.programs.values() if not p.relayer and p is not program and p.alive)
        running = sum(1 for other in others if other.process is not None and not other.process.frozen)
        return not program.relayer and promises.takes_the_last_miner(
            self.judges.unclaimed_ends(), self.judges.unproven_ends(), running, self.system.chain.height
        )

    def _kill_and_hold(self, program: Program) -> None:
        self._held.add(program.name)
        self.system.tell(f"{program.name}: killed")
        self.system.kill(program)

    async def _back(self, fault: Fault, program: Program) -> None:
        await asyncio.sleep(fault.seconds)
        self._held.discard(program.name)
        if program.wanted and not program.alive:
            self.system.tell(f"{program.name}: started again")
            self.system.start(program)

    async def _terminate(self, fault: Fault, program: Program) -> None:
        if not program.alive or program.name in self._held or self._is_late_owner(fault, program):
            return
        self._held.add(program.name)
        self.system.tell(f"{program.name}: told to end")
        self.system.terminate(program)
        if program.task is not None:
            await asyncio.wait([program.task], timeout=15.0)
        if program.alive:
            self.system.tell(f"{program.name}: did not end in time, killed")
            self.system.kill(program)
        await self._back(fault, program)

    async def _freeze(self, fault: Fault, program: Program) -> None:
        process = program.process
        if not program.alive or process is None or (not program.relayer and self._is_last_owner()):
            return
        if fault.seconds > BLOCK_SECONDS and (self._is_last_miner(program) or self._is_last_prover(program)):
            return
        if program.relayer:
            self._stopped_until[program.name] = until = self.loop.time() + fault.seconds
            late = promises.replays_too_late(until, self.system.chain.height)
            if late and self.judges.missing(without=program):
                return
        self.system.tell(f"{program.name}: stopped for {fault.seconds:.1f} s")
        self.loop.stop(process)
        await asyncio.sleep(fault.seconds)
        if not process.dead:
            self.system.tell(f"{program.name}: goes on")
            self.loop.go_on(process)

    def _burst(self, fault: Fault, first: Program | None = None) -> list["asyncio.Task[None]"]:
        """Relays of the session that ends next, of those three suppliers that have none yet, where there are such."""
        height, system = self.system.chain.height, self.system
        start = max((at for at in STARTS if at <= height - SESSION_BLOCKS // 2), default=STARTS[0])
        pairs = [(system.session(service, start), supplier) for service in SERVICES for supplier in SUPPLIERS]
        pairs.sort(key=lambda row: bool(system.acknowledged.get((address(row[1]), row[0].session_id))))
        return [
            asyncio.create_task(system.relay(header, supplier, 900 + fault.number * 10 + number, first=first))
            for number, (header, supplier) in enumerate(pairs[:3])
        ]

    async def _freeze_at_end(self, fault: Fault, program: Program) -> None:
        """Freeze a relayer while it serves relays of sessions that end."""
        tasks = self._burst(fault, program)
        await asyncio.sleep(self.loop.chance.uniform(0.0, 0.06))
        await self._freeze(fault, program)
        await asyncio.gather(*tasks)

    async def _redis_empty_unread(self, fault: Fault, _: Program | None) -> None:
        """Lose the data of Redis while no miner reads. In half of the cases relayers with the last relays end."""
        relays = self._burst(fault)
        async with self._miners_stopped():
            await asyncio.wait(relays, timeout=_BURST_SECONDS)
            await asyncio.sleep(fault.share)
            relayers = [p for p in self.system.programs.values() if p.relayer and p.alive and fault.seed % 2]
            ends = [program for program in relayers if program.name not in self._held]
            for program in ends:
                self._kill_and_hold(program)
            await self._redis_crash(replace(fault, kind=Kind.REDIS_EMPTY), None)
        for program in ends:
            await self._back(replace(fault, seconds=1.0), program)
        await asyncio.gather(*relays)

    async def _unread(self, fault: Fault, _: Program | None) -> None:
        """Stop the miners before a session's last relays, so that these are unread when it is sealed."""
        relays = self._burst(fault)
        async with self._miners_stopped():
            await asyncio.sleep(fault.seconds)
        await asyncio.gather(*relays)

    @contextlib.asynccontextmanager
    async def _miners_stopped(self) -> AsyncIterator[None]:
        miners = [p.process for p in self.system.programs.values() if not p.relayer and p.alive]
        stopped = [process for process in miners if process and not process.frozen]
        self.system.tell("the miners: stopped")
        for process in stopped:
            self.loop.stop(process)
        yield
        for process in stopped:
            if not process.dead:
                self.loop.go_on(process)
        self.system.tell("the miners: go on")

    def _may_lose(self, what: str, **lost: Any) -> bool:
        """Return whether a copy may be destroyed: after another kind was, it may be the only one.

        While peers cannot be reached, a copy on one volume alone counts for nothing, nor does one on the volume of a
        miner that is gone or in the log of a relayer that is stopped for long.
        """
        apart = promises.peers_are_away(self.faults, self.loop.time())
        height = self.system.chain.height
        late = {name for name, until in self._stopped_until.items() if promises.replays_too_late(until, height)}
        gone = [*(p for p in self.system.programs.values() if p.relayer and p.name in late), *self._held_miners()]
        if (apart or gone or self._destroyed - {what}) and self.judges.missing(**lost, apart=apart, gone=gone):
            return False
        self._destroyed.add(what)
        return True

    def _held_miners(self) -> list[Program]:
        return [p for p in self.system.programs.values() if not p.relayer and p.name in self._held]

    async def _upgrade(self, fault: Fault, _: Program | None) -> None:
        programs = [p for p in self.system.programs.values() if p.wanted]
        for program in programs:
            # A StatefulSet replaces no pod while another one is away.
            while not (program.relayer or all(p.relayer or p.alive for p in programs)):  # noqa: ASYNC110
                await asyncio.sleep(1.0)
            await self._terminate(replace(fault, seconds=1.0), program)
            await asyncio.sleep(fault.seconds)

    async def _scale_up(self, fault: Fault, _: Program | None) -> None:
        """Add a third miner and remove it when the fault ends."""
        program = self._program("miner-2", relayer=False)
        self.system.tell("miner-2: added")
        self.system.start(program)
        await asyncio.sleep(fault.seconds)
        while self.judges.missing(gone=[program, *self._held_miners()]):  # noqa: ASYNC110
            await asyncio.sleep(1.0)  # it has the only copy that can be reached
        program.wanted = False
        self.system.tell("miner-2: removed")
        self.system.terminate(program)

    async def _volume_lost(self, fault: Fault, program: Program) -> None:
        what = "log" if program.relayer else "volume"
        if program.name in self._held or self._waits_for_its_own_leases(program):
            return
        if not self._may_lose(what, without=program):
            return
        self._held.add(program.name)
        self.system.tell(f"{program.name}: killed, its {'log' if program.relayer else 'volume'} is lost")
        self.system.kill(program)
        shutil.rmtree(program.folder, ignore_errors=True)
        self.system.lost_volumes += not program.relayer
        await self._back(fault, program)

    async def _volume_older(self, fault: Fault, program: Program) -> None:
        """Lose what a volume has taken for some seconds, as with a snapshot or unsynced writes."""
        if not program.alive or program.name in self._held:
            return
        aside = program.folder.with_name(f"{program.name} before")
        shutil.copytree(program.folder, aside)
        await asyncio.sleep(fault.share)
        gone = program.name in self._held or not program.alive
        if gone or self._waits_for_its_own_leases(program) or not self._may_lose("volume", without=program):
            shutil.rmtree(aside)
            return
        self.system.tell(f"{program.name}: killed, {fault.kind.value} {fault.share:.1f} s ago")
        self._held.add(program.name)
        self.system.kill(program)
        shutil.rmtree(program.folder)
        aside.rename(program.folder)
        self.system.lost_volumes += 1
        await self._back(fault, program)

    async def _chain_halts(self, fault: Fault, _: Program | None) -> None:
        """Make no block for a while. In half of the cases nodes are away until its end, as for an upgrade.

        Afterwards subscriptions may stay open and silent for some blocks.
        """
        end, system = self.loop.time() + fault.seconds, self.system
        system.tell(f"begins: {fault}")
        self._halted = True
        system.network.holding.append(fault)
        if fault.seed % 2:
            await self._hold(replace(fault, kind=Kind.NODE_DOWN, seconds=fault.seconds - BLOCK_SECONDS))
            for node in system.nodes.values():
                node.waits_for_block = system.chain.height + 1
        await asyncio.sleep(max(0.0, end - self.loop.time()))
        system.network.holding.remove(fault)
        self._halted = False
        system.tell(f"over: {fault.kind.value}")
        if fault.seed % 3:
            await self._hold(replace(fault, kind=Kind.NODE_SILENT, seconds=fault.seed % 60))

    async def _pace_changes(self, fault: Fault, _: Program | None) -> None:
        self.system.tell(f"{fault}")
        self._pace = fault.share
        await asyncio.sleep(fault.seconds)
        self._pace = 1.0


_ACTS = {
    Kind.KILL: Life._kill, Kind.TERMINATE: Life._terminate, Kind.FREEZE: Life._freeze,
    Kind.FREEZE_AT_END: Life._freeze_at_end, Kind.GONE: Life._kill, Kind.UNREAD: Life._unread,
    Kind.REDIS_AWAY: Life._redis_crash,
    Kind.REDIS_EMPTY_UNREAD: Life._redis_empty_unread, Kind.UPGRADE: Life._upgrade,
    Kind.SCALE_UP: Life._scale_up, Kind.VOLUME_LOST: Life._volume_lost, Kind.VOLUME_OLDER: Life._volume_older,
    Kind.LOG_LOST: Life._volume_lost,
    Kind.REDIS_CRASH: Life._redis_crash, Kind.REDIS_EMPTY: Life._redis_crash, Kind.REDIS_OLDER: Life._redis_crash,
    Kind.REDIS_FAIL_OVER: Life._redis_fail_over, Kind.BLOCKS_SLOW: Life._pace_changes,
    Kind.BLOCKS_FAST: Life._pace_changes, Kind.REDIS_KEY_LOST: Life._redis_key_lost,
    Kind.CHAIN_HALTS: Life._chain_halts,
}  # fmt: skip


def live(seed: int, faults: Sequence[Fault] | None = None, *, hasty: bool = False) -> Result:
    """Lives one life in a fresh world, quietly."""
    world()
    gc.freeze()  # what is there already is not searched again and again
    gc.disable()
    made = Life(seed, faults, hasty=hasty)
    try:
        return made.run()
    finally:
        del made
        gc.enable()
        gc.collect()
