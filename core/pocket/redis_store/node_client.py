"""A client of one server whose scripts and reads of one key share a connection."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import InvalidResponse

_SHARED: Final = frozenset({"EVALSHA", "GET", "HGETALL"})
"""Commands that take the shared connection. INFO does not: it must be answered while the server holds back writes."""


class Info(Mapping[str, str | int]):
    """An answer to INFO: field → value, an integer if it is one.

    Of its two hundred fields ten are read, once a second by each process, so they are searched when they are read.
    """

    def __init__(self, reply: bytes | str) -> None:
        """Keep an answer. Raises InvalidResponse for one that is not Redis's."""
        if not isinstance(reply, bytes | str):
            raise InvalidResponse(f"this is not Redis's answer to INFO: {ascii(reply)[:60]}")
        text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
        self._text = "\n{}\n".format(text.replace("\r", ""))

    def __getitem__(self, name: str) -> str | int:
        _, separator, rest = self._text.partition(f"\n{name}:")
        if not separator:
            raise KeyError(name)
        value = rest[: rest.index("\n")]
        return int(value) if value.isdecimal() else value

    def __iter__(self) -> Iterator[str]:
        rows = (line.partition(":") for line in self._text.split("\n"))
        return (name for name, colon, _ in rows if colon)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class NodeClient(Redis):
    """A client of one server."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.set_response_callback("INFO", Info)  # type: ignore[arg-type]  # it takes no options

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command.

        A script that the server knows, and a read of one key, take the shared connection.
        """
        if args[0] in _SHARED and (scripts := getattr(self.connection_pool, "scripts", None)) is not None:
            reply = await scripts.call(args)
            callback = self.response_callbacks.get(args[0])
            return reply if callback is None else callback(reply)
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's own
