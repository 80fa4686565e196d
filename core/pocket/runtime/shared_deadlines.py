"""Deadlines for many short waits that share one timer."""

import asyncio
from types import TracebackType
from typing import Final

TICK_SECONDS: Final = 0.05


class SharedDeadline:
    """A context like that of asyncio.timeout.

    It raises TimeoutError once its time is over.
    """

    __slots__ = ("_before", "_deadlines", "_expired", "_task", "_tick")

    def __init__(self, deadlines: "SharedDeadlines", tick: int, task: "asyncio.Task[object]") -> None:
        self._deadlines = deadlines
        self._tick = tick
        self._task = task
        self._before = task.cancelling()
        self._expired = False

    def __enter__(self) -> None:
        self._deadlines.add(self, self._tick)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._deadlines.remove(self, self._tick)
        if self._expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task that waits."""
        self._expired = True
        self._task.cancel()


class SharedDeadlines:
    """Deadlines of one event loop, each at most one tick late.

    asyncio.timeout starts and stops a timer of the event loop for each wait, which nearly always ends long before its
    deadline.
    """

    def __init__(self, tick_seconds: float = TICK_SECONDS) -> None:
        self._tick_seconds = tick_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due: dict[int, set[SharedDeadline]] = {}
        """Deadlines by the tick at which they expire."""
        self._timer: asyncio.TimerHandle | None = None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    @property
    def watched(self) -> int:
        """Return the number of deadlines that have not ended."""
        return sum(map(len, self._due.values()))

    def time(self) -> float:
        """Return the time of the event loop in seconds."""
        return self._running_loop().time()

    def within(self, seconds: float) -> SharedDeadline:
        """Return the context in which the current task may wait for `seconds`.

        Raises TimeoutError beyond them.
        """
        loop = self._running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline needs a task that it can cancel")
        return SharedDeadline(self, int((loop.time() + seconds) / self._tick_seconds) + 1, task)

    def add(self, deadline: SharedDeadline, tick: int) -> None:
        """Watch a deadline."""
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = set()
        due.add(deadline)
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(self._tick_seconds, self._expire_due)

    def remove(self, deadline: SharedDeadline, tick: int) -> None:
        """Forget a deadline."""
        due = self._due.get(tick)
        if due is not None:
            due.discard(deadline)
            if not due:
                del self._due[tick]

    def _expire_due(self) -> None:
        """Expire what is due, and come back while deadlines are watched."""
        self._timer = None
        if self._loop is None:
            return
        now = int(self._loop.time() / self._tick_seconds)
        for tick in [tick for tick in self._due if tick <= now]:
            for deadline in self._due.pop(tick):
                deadline.expire()
        if self._due:
            self._timer = self._loop.call_later(self._tick_seconds, self._expire_due)
