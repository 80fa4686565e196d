"""Hold the operator's Lease in a thread of its own, with a connection of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from pocket.coordination.leader_lease import LeaseElector
from pocket.kube.api_client import KubeApi

_END_SECONDS = 20.0
"""Longest wait for the Lease to be released. Without a release the next candidate waits until it expires."""


class LeaseThread:
    """Elects and renews apart from everything else.

    Neither a queue of other requests nor a long decision delays a renewal. The liveness probe ends a process that
    hangs. The Lease is released when the context ends, after all that needs it.
    """

    def __init__(
        self,
        connection: Callable[[], AbstractAsyncContextManager[KubeApi]],
        candidate: Callable[[KubeApi], LeaseElector],
    ) -> None:
        self._connection = connection
        self._candidate = candidate
        self._elector: LeaseElector | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._acquired: Future[bool] = Future()
        self._lost: Future[str] = Future()
        for future in (self._acquired, self._lost):
            future.set_running_or_notify_cancel()  # a waiter that is cancelled does not cancel it
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    async def __aenter__(self) -> "LeaseThread":
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the thread has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, _END_SECONDS)

    @property
    def leads(self) -> bool:
        """Return True if this process may act as leader now."""
        return self._elector is not None and self._elector.leads

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until this process leads.

        Returns False when `stop` was set first. Raises what ended the election.
        """
        acquired = asyncio.wrap_future(self._acquired)
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((acquired, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        return acquired.done() and await acquired and not stop.is_set()

    async def lost(self) -> str:
        """Wait until leadership ends and return the reason.

        Raises what ended the election.
        """
        return await asyncio.wrap_future(self._lost)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop or asyncio.new_event_loop()) as runner:
            try:
                runner.run(self._elect())
            except BaseException as error:  # noqa: BLE001 - handed to those who wait
                for future in (self._acquired, self._lost):
                    if not future.done():
                        future.set_exception(error)

    async def _elect(self) -> None:
        async with self._connection() as api:
            self._elector = elector = self._candidate(api)
            try:
                leads = await elector.acquire(self._stop)
                self._acquired.set_result(leads)
                self._lost.set_result(await elector.hold(self._stop) if leads else "")
                await self._stop.wait()  # what it led has to end first
            finally:
                await elector.release()
