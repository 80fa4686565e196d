"""The `/debug` endpoint of a process, on localhost only and off by default.

It shows tasks, threads, memory and a CPU profile. Responses hold names of functions and types, files, lines and
numbers, never values, so they cannot hold a key.
"""

import asyncio
import gc
import io
import sys
import threading
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from types import FrameType

from aiohttp import web

from pocket.errors import ConfigurationError

HOST = "127.0.0.1"
PORT = 6060
"""Port of the first process of a pod. The ports of workers follow."""
_LONGEST_SECONDS = 60.0
_ROWS = 40


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename.rsplit('/src/', 1)[-1]}:{frame.f_lineno} {code.co_qualname}"


def tasks() -> str:
    """List every task with where it waits. Equal ones are counted."""
    rows = Counter(
        " <- ".join(_place(frame) for frame in reversed(task.get_stack(limit=4))) or "not started"
        for task in asyncio.all_tasks()
    )
    return "\n".join(f"{number:5} {row}" for row, number in rows.most_common())


def threads() -> str:
    """List every thread with its stack."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way to see other threads
        stack = "\n".join(f"    {_place(row)}" for row, _ in traceback.walk_stack(frame))
        parts.append(f"{names.get(ident, ident)}\n{stack}")
    return "\n".join(parts)


def heap() -> str:
    """Count objects by type, and allocations by line while `?trace=1` is in force."""
    rows = Counter(type(thing).__qualname__ for thing in gc.get_objects())
    lines = [f"{number:9} {name}" for name, number in rows.most_common(_ROWS)]
    if tracemalloc.is_tracing():
        lines += ["", "allocated since tracing started:"]
        lines += [str(row) for row in tracemalloc.take_snapshot().statistics("lineno")[:_ROWS]]
    return "\n".join(lines)


async def profile(seconds: float) -> str:
    """Profile this event loop's CPU use for some seconds."""
    import cProfile  # noqa: PLC0415 - most processes are never profiled
    import pstats  # noqa: PLC0415 - as above

    profiler = cProfile.Profile()
    profiler.enable()
    try:
        await asyncio.sleep(seconds)
    finally:
        profiler.disable()
    out = io.StringIO()
    pstats.Stats(profiler, stream=out).sort_stats("tottime").print_stats(_ROWS)
    return out.getvalue()


def _seconds(request: web.Request) -> float:
    try:
        seconds = float(request.query.get("seconds", "5"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise web.HTTPBadRequest(text=f"seconds must be a number above 0, up to {_LONGEST_SECONDS:g}")
    return seconds


class Debug:
    """Serves the debug endpoint, with at most one profile running."""

    def __init__(self) -> None:
        self._profiling = False

    async def _profile(self, request: web.Request) -> str:
        seconds = _seconds(request)
        if self._profiling:
            raise web.HTTPConflict(text="another profile is running: retry when it has ended")
        self._profiling = True
        try:
            return await profile(seconds)
        finally:
            self._profiling = False

    async def _heap(self, request: web.Request) -> str:
        if request.query.get("trace") == "1" and not tracemalloc.is_tracing():
            tracemalloc.start()
        if request.query.get("trace") == "0":
            tracemalloc.stop()
        return heap()

    async def serve(self, port: int) -> web.AppRunner:
        """Listen on localhost. Raises ConfigurationError if the port is taken."""
        app = web.Application()

        def text(make: Callable[[web.Request], Awaitable[str]]) -> Callable[[web.Request], Awaitable[web.Response]]:
            async def answer(request: web.Request) -> web.Response:
                return web.Response(text=await make(request) + "\n")

            return answer

        async def show_tasks(_: web.Request) -> str:
            return tasks()

        async def show_threads(_: web.Request) -> str:
            return threads()

        app.add_routes(
            [
                web.get("/debug/tasks", text(show_tasks)),
                web.get("/debug/threads", text(show_threads)),
                web.get("/debug/heap", text(self._heap)),
                web.get("/debug/profile", text(self._profile)),
            ]
        )
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigurationError(f"cannot listen on debug port {port}: {error.strerror}. Free the port.") from error
        return runner
