"""Clients of Redis that raise the errors of this package instead of redis-py's."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from redis.asyncio.client import Pipeline

from pocket.redis_store.cluster import ClusterClient, ClusterPipeline
from pocket.redis_store.node_addresses import Address
from pocket.redis_store.node_backoff import NodeBackoff
from pocket.redis_store.node_client import NodeClient, waits_for_news
from pocket.redis_store.redis_errors import NATIVE_ERRORS, translate, translated

_SERVER: Final[Address] = ("", 0)
"""The pool's server, whichever address it has at present."""


def _with_ours(replies: list[Any]) -> list[Any]:
    """Return replies whose errors are of this package."""
    return [translate(reply) if isinstance(reply, NATIVE_ERRORS) else reply for reply in replies]


def _asked(pool: Any, *, waits: bool = False) -> AbstractContextManager[None]:
    """Return the context of a command to a pool's server.

    Raises redis-py's ConnectionError while the server hangs.
    """
    backoff: NodeBackoff | None = getattr(pool, "backoff", None)
    return nullcontext() if backoff is None else backoff.asked(_SERVER, waits=waits)


class StorePipeline(Pipeline):
    """Commands for one server that are sent together."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Execute the commands. Raises RedisUnavailable."""
        with translated(), _asked(self.connection_pool):
            replies: list[Any] = await super().execute(raise_on_error)
        return replies if raise_on_error else _with_ours(replies)


class StoreClient(NodeClient):
    """A client of one server, or of the primary that Sentinels name.

    While the server hangs, one command at a time waits for it, and all others fail immediately.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command.

        Raises RedisUnavailable, and CommandRejected if the server rejects it.
        """
        try:
            with _asked(self.connection_pool, waits=waits_for_news(args)):
                return await super().execute_command(*args, **options)
        except NATIVE_ERRORS as error:
            raise translate(error) from error

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> StorePipeline:
        """Return a pipeline that raises as `execute_command` does."""
        return StorePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class StoreClusterPipeline(ClusterPipeline):
    """Commands that are sent together, to as many primaries as their keys need."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Execute the commands. Raises RedisUnavailable."""
        with translated():
            replies = await super().execute(raise_on_error)
        return replies if raise_on_error else _with_ours(replies)


class StoreClusterClient(ClusterClient):
    """A client of all primaries of a Cluster."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command.

        Raises RedisUnavailable, and CommandRejected if the server rejects it.
        """
        with translated():
            return await super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> StoreClusterPipeline:
        """Return a pipeline that raises as `execute_command` does."""
        super().pipeline(transaction, shard_hint)  # rejects a transaction
        return StoreClusterPipeline(self)

    async def scan_iter(  # type: ignore[override]  # redis-py annotates its blocking client
        self, *args: Any, **options: Any
    ) -> AsyncIterator[Any]:
        """Iterate over the keys of all primaries. Raises RedisUnavailable."""
        with translated():
            async for name in super().scan_iter(*args, **options):
                yield name
