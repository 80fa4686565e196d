"""A client of one server whose scripts share a connection."""

from typing import Any

from redis.asyncio import Redis


class NodeClient(Redis):
    """A client of one server."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command. A script that the server knows takes the shared connection."""
        if args[0] == "EVALSHA" and (scripts := getattr(self.connection_pool, "scripts", None)) is not None:
            return await scripts.call(args)
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's own
