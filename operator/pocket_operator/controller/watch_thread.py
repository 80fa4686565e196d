"""Run the watches in a thread with an event loop of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

_END_SECONDS = 20.0
"""Longest wait for watches that were asked to end."""

Watches = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


async def run_in_thread(watches: Watches, end: asyncio.Event) -> None:
    """Run watches until `end` is set.

    Raises the error that ended them, TimeoutError if they do not end. When one watcher fails, kopf ends all others and
    cancels every task of its event loop that is younger than itself. In a loop of its own these are its own tasks.
    """
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    done: Future[None] = Future()
    done.set_running_or_notify_cancel()  # a waiter that is cancelled does not cancel it

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(watches(stop))
        except BaseException as error:  # noqa: BLE001 - handed to the one who waits
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=work, name="watches", daemon=True).start()
    finished = asyncio.wrap_future(done)
    asked = asyncio.create_task(end.wait())
    try:
        await asyncio.wait((finished, asked), return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(stop.set)
        await asyncio.wait((finished,), timeout=_END_SECONDS)
        error = finished.exception() if finished.done() else TimeoutError("the watches do not end")
    if error is not None:
        raise error


def handed_over(handle: Callable[[Any], None], loop: asyncio.AbstractEventLoop) -> Callable[[Any], Awaitable[None]]:
    """Return a coroutine function that has another thread's loop handle a value.

    It waits for the end.
    """

    async def handled(value: Any) -> None:
        handle(value)

    async def hand_over(value: Any) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(handled(value), loop))

    return hand_over
