"""`/debug` of a process: tasks, threads, memory and a CPU profile, on localhost only and off by default.

Nothing shows values: only names of functions and types, files, lines and numbers, so no key can be among them.
"""

import asyncio
import cProfile
import gc
import io
import pstats
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
"""Of the first process of a pod; workers follow."""
_LONGEST_SECONDS = 60.0
_ROWS = 40


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename.rsplit('/src/', 1)[-1]}:{frame.f_lineno} {code.co_qualname}"


def tasks() -> str:
    """Every task with where it waits; equal ones are counted."""
    rows = Counter(
        " <- ".join(_place(frame) for frame in reversed(task.get_stack(limit=4))) or "not begun"
        for task in asyncio.all_tasks()
    )
    return "\n".join(f"{number:5} {row}" for row, number in rows.most_common())


def threads() -> str:
    """Every thread with its stack."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way to see other threads
        stack = "\n".join(f"    {_place(row)}" for row, _ in traceback.walk_stack(frame))
        parts.append(f"{names.get(ident, ident)}\n{stack}")
    return "\n".join(parts)


def heap() -> str:
    """Objects by type; where memory was allocated, once `?trace=1` was asked for."""
    rows = Counter(type(thing).__qualname__ for thing in gc.get_objects())
    told = [f"{number:9} {name}" for name, number in rows.most_common(_ROWS)]
    if tracemalloc.is_tracing():
        told += ["", "allocated since tracing began:"]
        told += [str(row) for row in tracemalloc.take_snapshot().statistics("lineno")[:_ROWS]]
    return "\n".join(told)


async def profile(seconds: float) -> str:
    """Where this event loop spends its CPU."""
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
        found = float(request.query.get("seconds", "5"))
    except ValueError:
        found = 0.0
    if not 0 < found <= _LONGEST_SECONDS:
        raise web.HTTPBadRequest(text=f"seconds: a number up to {_LONGEST_SECONDS:g}")
    return found


class Debug:
    """Serves until closed; one profile at a time."""

    def __init__(self) -> None:
        self._profiling = False

    async def _profile(self, request: web.Request) -> str:
        seconds = _seconds(request)
        if self._profiling:
            raise web.HTTPConflict(text="a profile is being made")
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
        """On localhost; raises ConfigurationError where the port is taken."""
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
            raise ConfigurationError(f"debug port {port} is taken: {error.strerror}") from error
        return runner
