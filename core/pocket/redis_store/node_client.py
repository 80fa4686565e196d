"""A client of one server whose scripts and reads of one key share a connection."""

from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import InvalidResponse

_SHARED: Final = frozenset({"EVALSHA", "GET", "HGETALL"})
"""Commands that take the shared connection. INFO does not: it must be answered while the server holds back writes."""
Info = dict[str, str | int]
"""An answer to INFO: field → value, an integer if it is one."""


def parse_info(reply: bytes | str) -> Info:
    """Parse an answer to INFO.

    redis-py's parser also reads the fractions and lists among its two hundred values, in seven times the time, and each
    process asks once or twice a second.
    """
    if not isinstance(reply, bytes | str):
        raise InvalidResponse(f"this is not Redis's answer to INFO: {ascii(reply)[:60]}")
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    rows = (line.partition(":") for line in text.splitlines())
    return {name: int(value) if value.isdecimal() else value for name, colon, value in rows if colon}


class NodeClient(Redis):
    """A client of one server."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.set_response_callback("INFO", parse_info)  # type: ignore[arg-type]  # it takes no options

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command. A script that the server knows, and a read of one key, take the shared connection."""
        if args[0] in _SHARED and (scripts := getattr(self.connection_pool, "scripts", None)) is not None:
            reply = await scripts.call(args)
            callback = self.response_callbacks.get(args[0])
            return reply if callback is None else callback(reply)
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's own
