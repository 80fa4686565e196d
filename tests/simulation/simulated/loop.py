"""An event loop with a virtual clock, whose order of processes follows from a seed.

It stands on asyncio's public interface alone. Within one simulated process callbacks run in the order in which they
became due, as asyncio promises; which process goes on next is drawn. Time passes only when nobody can go on.
"""

import asyncio
import contextvars
import hashlib
import heapq
import itertools
import random
import sys
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any


class Stuck(Exception):
    """Nothing is due any more, and what was waited for has not happened."""


@dataclass(eq=False)
class Process:
    """What is killed and stopped together: tasks, a wall clock, handlers of signals, seconds per disk call."""

    name: str
    wall_offset_seconds: float = 0.0
    disk_seconds: float = 0.0
    dead: bool = False
    frozen: bool = False
    went_on_at: float = 0.0
    ready: deque[asyncio.Handle] = field(default_factory=deque)
    signals: dict[int, Callable[[], Any]] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return self.name


OUTSIDE = Process("world")
PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process", default=OUTSIDE)


class _Future(asyncio.Future[Any]):
    """Its hash is its number: what asyncio keeps in sets comes out in the same order in every run."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class _Task(asyncio.Task[Any]):
    """As `_Future`."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class _Handle(asyncio.Handle):
    """A due callback, without the parts for debugging."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context) -> None:
        self._callback, self._args, self._context, self._cancelled = callback, args, context, False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = _nothing, ()


class _Timer(asyncio.TimerHandle):
    """As `_Handle`."""

    __slots__ = ("_moment",)

    def __init__(
        self, when: float, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context
    ) -> None:
        self._callback, self._args, self._context, self._cancelled = callback, args, context, False
        self._moment = when

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = _nothing, ()

    def when(self) -> float:
        return self._moment


def _over(pause: "asyncio.Future[Any]") -> None:
    if not pause.done():
        pause.set_result(None)


def _nothing(*_: Any) -> None:
    return


class _Server:
    """What listens in the simulation: nobody connects to it."""

    def close(self) -> None:
        return

    async def wait_closed(self) -> None:
        return


class Loop(asyncio.AbstractEventLoop):
    """Event loop on virtual time.

    `chance` chooses the next callback. `trace` is the digest of the events.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.turns = 0
        self.errors: list[str] = []
        self._trace = hashlib.sha256()
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Process]] = []
        self._numbers = itertools.count()
        self._going: list[Process] = []
        self._owners: weakref.WeakKeyDictionary[asyncio.Task[Any], Process] = weakref.WeakKeyDictionary()
        self._closed = False
        self._plain = contextvars.Context()
        OUTSIDE.ready.clear()
        OUTSIDE.kept = []
        OUTSIDE.frozen = OUTSIDE.dead = False

    # What the world does to processes.

    def note(self, *parts: object) -> None:
        """Add an event to the trace."""
        self._trace.update(f"{self._now:.6f} {' '.join(map(str, parts))}\n".encode())

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return context.run(lambda: self.create_task(work, context=context))

    def kill(self, process: Process) -> None:
        """SIGKILL: nothing of it ever runs again, not even a `finally`."""
        process.dead = True
        self.stop(process)
        # As long as they are kept, nothing closes their coroutines.
        process.kept = [task for task, owner in self._owners.items() if owner is process]

    def stop(self, process: Process) -> None:
        """SIGSTOP: time goes on, the process does not."""
        process.frozen = True
        if process in self._going:
            self._going.remove(process)

    def go_on(self, process: Process) -> None:
        """SIGCONT: everything that became due is late now."""
        process.frozen, process.went_on_at = False, self.time()
        if process.ready and process not in self._going:
            self._going.append(process)

    def bury(self) -> None:
        """Lets the tasks of the dead end, so that nothing is left when the simulation is over."""
        owners = list(self._owners.items())
        for task, _ in owners:
            task.cancel()
        for process in dict.fromkeys(owner for _, owner in owners):
            process.dead = False
            self.go_on(process)
            process.kept = []

    # asyncio's public interface.

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._timers.clear()
        for process in self._going:
            process.ready.clear()
        self._going.clear()

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:
        if context is None:
            context = contextvars.copy_context()
        handle = _Handle(callback, args, context)
        self._due(handle, context.get(PROCESS, OUTSIDE))
        return handle

    call_soon_threadsafe = call_soon

    def _due(self, handle: asyncio.Handle, process: Process) -> None:
        if not process.ready and not process.frozen:
            self._going.append(process)
        process.ready.append(handle)

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        if context is None:
            context = contextvars.copy_context()
        timer = _Timer(when, callback, args, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer, context.get(PROCESS, OUTSIDE)))
        return timer

    def pause(self, seconds: float) -> "asyncio.Future[Any]":
        """As `asyncio.sleep`, at a third of its cost: most of what happens is a message on its way."""
        made, when = self.create_future(), self._now + seconds
        timer = _Timer(when, _over, (made,), self._plain)
        heapq.heappush(self._timers, (when, next(self._numbers), timer, PROCESS.get()))
        return made

    def create_future(self) -> "asyncio.Future[Any]":
        made = _Future(loop=self)
        made.number = next(self._numbers)
        return made

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> "asyncio.Task[Any]":
        number = _Task.number = next(self._numbers)  # asyncio puts it into a set before it can be told its own
        task = _Task(coro, loop=self, name=name, context=context)
        task.number = number
        self._owners[task] = (context or contextvars.copy_context()).get(PROCESS, OUTSIDE)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Work of a thread happens at one moment, now or once the process's disk has taken its time."""
        done = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except BaseException as error:  # noqa: BLE001 - as a thread hands it over
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        seconds = PROCESS.get().disk_seconds
        if seconds:
            self.call_later(self.chance.uniform(0.2, 1.0) * seconds, work)
        else:
            self.call_soon(work)
        return done

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:
        context = contextvars.copy_context()
        PROCESS.get().signals[sig] = lambda: self.call_soon(callback, *args, context=context)

    def remove_signal_handler(self, sig: int) -> bool:
        return PROCESS.get().signals.pop(sig, None) is not None

    async def create_server(self, *_: Any, **__: Any) -> Any:
        return _Server()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{PROCESS.get()}: {context.get('message')}: {error!r}")

    default_exception_handler = call_exception_handler

    # Running.

    def run_until_complete(self, future: Any) -> Any:
        task = future if isinstance(future, asyncio.Future) else self.create_task(future)
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._close_generator)
        asyncio._set_running_loop(self)
        try:
            while not task.done():
                self._turn()
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*before)
        return task.result()

    def run_for(self, turns: int) -> None:
        """Lets go on who can, without waiting for anything in particular."""
        asyncio._set_running_loop(self)
        try:
            for _ in range(turns):
                self._turn()
        except Stuck:
            return
        finally:
            asyncio._set_running_loop(None)

    def _close_generator(self, made: Any) -> None:
        if not self._closed:
            self.create_task(made.aclose())

    def _turn(self) -> None:
        going = self._going
        if not going:
            self._pass_time()
            return
        at = int(self.chance.random() * len(going)) if len(going) > 1 else 0
        process = going[at]
        ready = process.ready
        self.turns += 1
        handle = ready.popleft()
        if not ready:
            going[at] = going[-1]
            going.pop()
        if handle._cancelled:
            return
        try:
            handle._context.run(handle._callback, *handle._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does: a callback does not end the loop
            self.call_exception_handler({"message": f"exception in callback {handle._callback}", "exception": error})

    def _pass_time(self) -> None:
        """Advance to the next timer.

        Everything due at that moment becomes ready.
        """
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Stuck("no timer is left")
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            _, _, timer, process = heapq.heappop(timers)
            if not timer._cancelled:
                self._due(timer, process)
