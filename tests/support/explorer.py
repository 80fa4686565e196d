"""A scheduler that decides, by a seed, who goes on at every await on the outside world.

Actors run one at a time: each stops before every command to Redis, every question to the chain and every wait of its
own until it is chosen. A schedule is the list of choices; the same seed gives the same one.
"""

import asyncio
import contextlib
import contextvars
import random
from collections.abc import Awaitable, Callable
from typing import Any

_ACTOR: contextvars.ContextVar[str] = contextvars.ContextVar("actor")


class Killed(BaseException):
    """SIGKILL: whatever the actor wanted to do next it does not do."""


class Explorer:
    """`choose(names)` may forbid choices by leaving names out of what it returns."""

    def __init__(self, seed: int, choose: Callable[[list[str]], list[str]] = lambda names: names) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.steps: list[str] = []
        self._choose = choose
        self._waiting: dict[str, asyncio.Event] = {}
        self._dead: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._running = 0

    @property
    def alive(self) -> set[str]:
        return {name for name, task in self._tasks.items() if not task.done()}

    async def gate(self, what: str) -> None:
        """Wait until this actor is chosen."""
        name = _ACTOR.get("")
        if not name:
            return  # the test itself looks at the world
        if name in self._dead:
            raise Killed
        event = self._waiting[name] = asyncio.Event()
        self._pause()
        await event.wait()
        if name in self._dead:
            raise Killed
        self.steps.append(f"{name}: {what}")

    def _pause(self) -> None:
        self._running -= 1
        if self._running == 0:
            self._idle.set()

    def spawn(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Create an actor, which begins when it is first chosen."""

        async def run() -> None:
            _ACTOR.set(name)
            with contextlib.suppress(Killed):
                await self.gate("begins")
                await work()

        self._running += 1
        self._idle.clear()
        task = asyncio.create_task(run(), name=name)
        self._tasks[name] = task

        def ended(done: "asyncio.Task[None]") -> None:
            self._waiting.pop(name, None)
            self._pause()

        task.add_done_callback(ended)

    def kill(self, name: str) -> None:
        """Kill an actor at the gate where it waits."""
        self._dead.add(name)
        self.steps.append(f"{name}: killed")
        self._go(name)

    def _go(self, name: str) -> None:
        event = self._waiting.pop(name)
        self._running += 1
        self._idle.clear()
        event.set()

    async def run(self, on_step: Callable[[], Awaitable[None]], most: int = 5000) -> None:
        """Run until every actor has ended.

        Raises the error of an actor.
        """
        for _ in range(most):
            await self._idle.wait()
            for task in self._tasks.values():
                if task.done() and not task.cancelled() and task.exception() is not None:
                    await self._stop()
                    task.result()
            if not self._waiting:
                return
            await on_step()
            await self._idle.wait()
            if self._waiting:
                self._go(self.chance.choice(self._choose(sorted(self._waiting))))
        await self._stop()
        raise AssertionError(f"no end after {len(self.steps)} steps; waiting: {sorted(self._waiting)}")

    async def _stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


class GatedRedis:
    """The real client with a gate before every command."""

    def __init__(self, redis: Any, explorer: Explorer) -> None:
        self._redis = redis
        self._explorer = explorer

    def pipeline(self, **options: Any) -> Any:
        pipe = self._redis.pipeline(**options)
        execute = pipe.execute

        async def gated(*arguments: Any, **more: Any) -> Any:
            await self._explorer.gate("pipeline")
            return await execute(*arguments, **more)

        pipe.execute = gated
        return pipe

    def __getattr__(self, name: str) -> Any:
        command = getattr(self._redis, name)

        async def gated(*arguments: Any, **more: Any) -> Any:
            await self._explorer.gate(name)
            return await command(*arguments, **more)

        return gated
