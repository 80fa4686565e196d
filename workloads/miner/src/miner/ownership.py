"""Which miner of a RelayMiner mines: the one that holds the Lease; the others stand by.

The Lease gives liveness only. Safety is the fence of each supplier in Redis and the seal: a former owner's writes are
refused, and nothing but sealed roots is ever broadcast.
"""

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coordination.elector import timing_for_blocks
from coordination.kube_api import KubeError, connect
from coordination.lease import LeaseElector
from shannon.errors import ConfigurationError

_LOG = logging.getLogger("miner.ownership")


class Ownership:
    """`role` is what /report shows."""

    def __init__(self, elector: LeaseElector | None) -> None:
        self._elector = elector
        self.role = "active" if elector is None else "standby"

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Waits for the Lease; False when stopped first. Without a Lease there is nothing to wait for."""
        if self._elector is None:
            return True
        if not await self._elector.acquire(stop):
            return False
        self.role = "active"
        return True

    async def hold(self, stop: asyncio.Event) -> None:
        """Sets `stop` once another miner holds the Lease.

        An API server that cannot be reached ends nothing: nobody else can take the Lease then either, and should
        somebody have done so, its fence stops this one.
        """
        if self._elector is None:
            return
        while not stop.is_set():
            reason = await self._elector.hold(stop)
            if not reason or stop.is_set():
                return
            if self._elector.holder not in ("", self._elector.identity):
                _LOG.error("%s: this miner stops", reason)
                stop.set()
                return
            _LOG.warning("%s: mining goes on while the fence is ours", reason)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stop.wait()

    async def release(self) -> None:
        """Hands over at once."""
        if self._elector is not None:
            self.role = "standby"
            await self._elector.release()


@asynccontextmanager
async def ownership(namespace: str, lease: str | None, block_seconds: float) -> AsyncIterator[Ownership]:
    """With the API server of the pod, or without one; raises ConfigurationError."""
    if lease is None:
        yield Ownership(None)
        return
    identity = f"{os.environ.get('POD_NAME', 'miner')}_{os.environ.get('POD_UID', '')}_{secrets.token_hex(4)}"
    try:
        async with connect() as api:
            owner = Ownership(LeaseElector(api, namespace, lease, identity, timing=timing_for_blocks(block_seconds)))
            try:
                yield owner
            finally:
                await owner.release()
    except KubeError as error:
        raise ConfigurationError(f"miner: {error}") from error
