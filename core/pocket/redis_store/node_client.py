"""Send a server's frequent commands over connections of their own.

They do not use redis-py's pool.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import InvalidResponse

_SCRIPTS, _INSPECTIONS, _WAITS = "scripts", "inspections", "waits"
_CONNECTIONS: Final = {"EVALSHA": _SCRIPTS, "GET": _SCRIPTS, "HGETALL": _SCRIPTS, "INFO": _INSPECTIONS}
"""Command → its connection. INFO must be answered while the server holds back writes, and a read that waits for news
holds up what comes after it, so that they do not take that of scripts."""


def waits_for_news(args: Sequence[object]) -> bool:
    """Return True for a read that waits until there is something new."""
    return args[0] == "XREAD" and args[1] == b"BLOCK"


def _connection_of(args: tuple[Any, ...]) -> str | None:
    """Return the name of the pool's connection for a command, None for any free one."""
    return _WAITS if waits_for_news(args) else _CONNECTIONS.get(args[0])


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
        text, start = self._text, f"\n{name}:"
        if (at := text.find(start)) < 0:
            raise KeyError(name)
        value = text[at + len(start) : text.index("\n", at + len(start))]
        return int(value) if value.isdecimal() else value

    def __contains__(self, name: object) -> bool:
        return f"\n{name}:" in self._text

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
        """Execute a command, over the connection for its kind if there is one."""
        name = _connection_of(args)
        if name is not None and (connection := getattr(self.connection_pool, name, None)) is not None:
            reply = await connection.call(args)
            callback = self.response_callbacks.get(args[0])
            return reply if callback is None else callback(reply)
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's own
