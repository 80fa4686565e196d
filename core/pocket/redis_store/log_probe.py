"""Find out whether the write-ahead log takes relays.

The event loop does not wait for its disk.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from pocket.redis_store.write_ahead_log import WriteAheadLog

_SECONDS: Final = 2.0


@dataclass(slots=True)
class LogProbe:
    """Probes a log. `reserve_bytes` must be free for relays that are being served."""

    log: WriteAheadLog
    reserve_bytes: int
    _probing: asyncio.Future[str] | None = None

    async def problem(self) -> str:
        """Return why the log takes no relays, '' if it does.

        A disk that hangs holds one thread, and no relay.
        """
        if problem := self.log.open_problem():
            return problem
        if self._probing is None:
            self._probing = asyncio.ensure_future(asyncio.to_thread(self.log.problem, self.reserve_bytes))
        probing = self._probing
        done, _ = await asyncio.wait([probing], timeout=_SECONDS)
        if not done:
            return "the disk of the write-ahead log does not answer"
        self._probing = None
        return probing.result()
