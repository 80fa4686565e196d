"""A Redis server as data: the commands that this project uses, scripts included, on a clock that is passed in.

Replies are what redis-py gets from its parser. `tests/simulation/test_redis_model.py` holds it to the real server.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from lupa.lua51 import LuaRuntime
from redis.exceptions import NoScriptError, ResponseError

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_AN_INTEGER = "value is not an integer or out of range"


class Stream:
    """Entries of a stream in order.

    `last` is the greatest id ever given.
    """

    def __init__(
        self, ids: list[tuple[int, int]], rows: list[list[bytes]], last: tuple[int, int], added: int = 0
    ) -> None:
        self.ids, self.rows, self.last, self.added = ids, rows, last, added

    def copy(self) -> "Stream":
        return Stream(list(self.ids), list(self.rows), self.last, self.added)


class ZSet(dict[bytes, float]):
    """Members with their scores."""

    def copy(self) -> "ZSet":
        return ZSet(self)


Value = bytes | dict[bytes, bytes] | ZSet | Stream


class Data:
    """All keys, and when those that end do so (seconds)."""

    def __init__(self) -> None:
        self.values: dict[bytes, Value] = {}
        self.ends: dict[bytes, float] = {}
        self.first_end = 0.0

    def copy(self) -> "Data":
        made = Data()
        made.values = {key: value if isinstance(value, bytes) else value.copy() for key, value in self.values.items()}
        made.ends, made.first_end = dict(self.ends), self.first_end
        return made


def _id(text: bytes, missing: int) -> tuple[int, int]:
    first, _, second = text.partition(b"-")
    return int(first), int(second) if second else missing


def _shown(entry: tuple[int, int]) -> bytes:
    return b"%d-%d" % entry


class Scripts:
    """Runs Lua as Redis does.

    Scripts are compiled once for all simulations of this interpreter.
    """

    def __init__(self) -> None:
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self._compiled: dict[bytes, Any] = {}
        self._wrap = self._lua.eval(
            b"function(call, try) local function row(...) return {n = select('#', ...), ...} end "
            b"return {call = function(...) return call(row(...)) end, "
            b"pcall = function(...) return try(row(...)) end} end"
        )

    def run(self, source: bytes, keys: list[bytes], arguments: list[bytes], call: Callable[[list[bytes]], Any]) -> Any:
        compiled = self._compiled.get(source)
        if compiled is None:
            compiled = self._lua.execute(b"return function(KEYS, ARGV, redis) " + source + b"\nend")
            self._compiled[source] = compiled

        def called(row: Any) -> Any:
            return self._into(call([_bytes(row[n]) for n in range(1, int(row[b"n"]) + 1)]))

        def tried(row: Any) -> Any:
            try:
                return called(row)
            except ResponseError as error:
                return self._lua.table_from({b"err": str(error).encode()})

        table = self._lua.table_from
        return self._out(compiled(table(keys), table(arguments), self._wrap(called, tried)))

    def _into(self, reply: Any) -> Any:
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._lua.table_from([self._into(row) for row in reply])
        return reply

    def _out(self, value: Any) -> Any:
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, int | float):
            return int(value)
        if isinstance(value, bytes):
            return value
        rows, number = [], 1
        while (row := value[number]) is not None:
            rows.append(self._out(row))
            number += 1
        return rows


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return b"%d" % int(value) if value.is_integer() else b"%.17g" % value
    if isinstance(value, int):
        return b"%d" % value
    raise ResponseError("Lua redis() command arguments must be strings or integers")


SCRIPTS = Scripts()
_WRITES = frozenset(
    b"SET DEL UNLINK HSET HSETNX HDEL XADD ZADD ZREM ZREMRANGEBYSCORE INCR INCRBY DECRBY EXPIRE FLUSHALL".split()
)


class Model:
    """One server's data.

    `now` is its clock in seconds since 1970. `publish` receives messages on channels.
    """

    def __init__(self, now: Callable[[], float], publish: Callable[[bytes, bytes], int] = lambda *_: 0) -> None:
        self.data = Data()
        self.entries_added = 0
        self._now = now
        self._publish = publish
        self._scripts: dict[bytes, bytes] = {}
        self.info: Callable[[], bytes] = bytes
        """Returns what scripts read of INFO."""

    def execute(self, row: Sequence[bytes]) -> Any:
        """Execute a command and return its reply.

        Raises ResponseError.
        """
        name = bytes(row[0]).upper()
        command = getattr(self, f"_{name.decode().lower()}", None)
        if command is None:
            raise ResponseError(f"unknown command '{name.decode()}'")
        if self.data.ends and self._now() >= self.data.first_end:
            self._forget_ended()
        return command(*row[1:])

    def _forget_ended(self) -> None:
        now = self._now()
        for key in [key for key, end in self.data.ends.items() if end <= now]:
            self._remove(key)
        self.data.first_end = min(self.data.ends.values(), default=0.0)

    def _end_at(self, key: bytes, end: float) -> None:
        data = self.data
        data.first_end = min(data.first_end, end) if data.ends else end
        data.ends[key] = end

    def _remove(self, key: bytes) -> bool:
        self.data.ends.pop(key, None)
        return self.data.values.pop(key, None) is not None

    def _get_as(self, kind: type, key: bytes) -> Any:
        found = self.data.values.get(key)
        if found is not None and type(found) is not kind:
            raise ResponseError(WRONG_TYPE)
        return found

    # Strings.

    def _ping(self) -> bytes:
        return b"PONG"

    def _info(self, *_: bytes) -> bytes:
        return self.info()

    def _flushall(self) -> bytes:
        self.data = Data()
        return b"OK"

    def _get(self, key: bytes) -> Any:
        return self._get_as(bytes, key)

    def _set(self, key: bytes, value: bytes, *options: bytes) -> Any:
        rest = [option.upper() for option in options]
        if b"NX" in rest and key in self.data.values:
            return None
        self.data.values[key] = value
        self.data.ends.pop(key, None)
        if b"PX" in rest:
            self._end_at(key, self._now() + int(options[rest.index(b"PX") + 1]) / 1000)
        return b"OK"

    def _del(self, *keys: bytes) -> int:
        return sum(self._remove(key) for key in keys)

    _unlink = _del

    def _exists(self, *keys: bytes) -> int:
        return sum(key in self.data.values for key in keys)

    def _expire(self, key: bytes, seconds: bytes) -> int:
        if key not in self.data.values:
            return 0
        self._end_at(key, self._now() + int(seconds))
        return 1

    def _incrby(self, key: bytes, by: bytes) -> int:
        try:
            number = int(self._get_as(bytes, key) or 0) + int(by)
        except ValueError:
            raise ResponseError(NOT_AN_INTEGER) from None
        self.data.values[key] = b"%d" % number
        return number

    def _incr(self, key: bytes) -> int:
        return self._incrby(key, b"1")

    def _decrby(self, key: bytes, by: bytes) -> int:
        return self._incrby(key, b"%d" % -int(by))

    # Hashes.

    def _hget(self, key: bytes, name: bytes) -> Any:
        return (self._get_as(dict, key) or {}).get(name)

    def _hmget(self, key: bytes, *names: bytes) -> list[Any]:
        found = self._get_as(dict, key) or {}
        return [found.get(name) for name in names]

    def _hgetall(self, key: bytes) -> list[bytes]:
        return [part for pair in (self._get_as(dict, key) or {}).items() for part in pair]

    def _hkeys(self, key: bytes) -> list[bytes]:
        return list(self._get_as(dict, key) or {})

    def _hlen(self, key: bytes) -> int:
        return len(self._get_as(dict, key) or {})

    def _hexists(self, key: bytes, name: bytes) -> int:
        return int(name in (self._get_as(dict, key) or {}))

    def _hset(self, key: bytes, *rows: bytes) -> int:
        found = self._get_as(dict, key)
        if found is None:
            found = self.data.values[key] = {}
        before = len(found)
        found.update(zip(rows[::2], rows[1::2], strict=True))
        return len(found) - before

    def _hsetnx(self, key: bytes, name: bytes, value: bytes) -> int:
        return 0 if self._hexists(key, name) else self._hset(key, name, value)

    def _hdel(self, key: bytes, *names: bytes) -> int:
        found = self._get_as(dict, key) or {}
        gone = sum(found.pop(name, None) is not None for name in names)
        if not found:
            self._remove(key)
        return gone

    # Sorted sets.

    def _zadd(self, key: bytes, *rows: bytes) -> int:
        found = self._get_as(ZSet, key)
        if found is None:
            found = self.data.values[key] = ZSet()
        before = len(found)
        found.update({member: float(score) for score, member in zip(rows[::2], rows[1::2], strict=True)})
        return len(found) - before

    def _zrem(self, key: bytes, *members: bytes) -> int:
        found = self._get_as(ZSet, key) or {}
        gone = sum(found.pop(member, None) is not None for member in members)
        if not found:
            self._remove(key)
        return gone

    def _zremrangebyscore(self, key: bytes, low: bytes, high: bytes) -> int:
        found = self._get_as(ZSet, key) or {}
        return self._zrem(key, *[m for m, score in found.items() if float(low) <= score <= float(high)])

    def _zrange(self, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
        found = self._get_as(ZSet, key) or {}
        rows = [member for _, member in sorted((score, member) for member, score in found.items())]
        if b"REV" in [option.upper() for option in options]:
            rows.reverse()
        end = int(last)
        return rows[int(first) : None if end == -1 else end + 1]

    def _zrevrange(self, key: bytes, first: bytes, last: bytes) -> list[bytes]:
        return self._zrange(key, first, last, b"REV")

    # Streams.

    def _xadd(self, key: bytes, *rest: bytes) -> bytes | None:
        most = None
        row = list(rest)
        if row[0].upper() == b"NOMKSTREAM":
            if self._get_as(Stream, key) is None:
                return None
            row = row[1:]
        if row[0].upper() == b"MAXLEN":
            approximate = row[1] in (b"~", b"=")
            most = int(row[2 if approximate else 1])
            exact = row[1] != b"~"
            row = row[3 if approximate else 2 :]
            most = most if exact else most + 100
        stream = self._get_as(Stream, key)
        if stream is None:
            stream = self.data.values[key] = Stream([], [], (0, 0))
        milliseconds = int(self._now() * 1000)
        made = (milliseconds, 0) if milliseconds > stream.last[0] else (stream.last[0], stream.last[1] + 1)
        stream.ids.append(made)
        stream.rows.append(row[1:])
        stream.last = made
        stream.added += 1
        self.entries_added += 1
        if most is not None and len(stream.ids) > most:
            stream.ids, stream.rows = stream.ids[-most:], stream.rows[-most:]
        return _shown(made)

    def _xrevrange(self, key: bytes, last: bytes, first: bytes, *options: bytes) -> list[Any]:
        stream = self._get_as(Stream, key)
        if stream is None:
            return []
        low = 0 if first == b"-" else bisect_left(stream.ids, _id(first, 0))
        high = len(stream.ids) if last == b"+" else bisect_right(stream.ids, _id(last, 2**64))
        rows = [[_shown(stream.ids[n]), stream.rows[n]] for n in range(high - 1, low - 1, -1)]
        return rows[: int(options[1])] if options else rows

    def _xinfo(self, _: bytes, key: bytes) -> list[Any]:
        """Without what the project does not read."""
        stream = self._get_as(Stream, key)
        if stream is None:
            raise ResponseError("no such key")
        return [b"length", len(stream.ids), b"entries-added", stream.added]

    def _xread(self, *rest: bytes) -> Any:
        """Without waiting: whoever calls it waits."""
        words = [word.upper() for word in rest]
        count = int(rest[words.index(b"COUNT") + 1]) if b"COUNT" in words else None
        at = words.index(b"STREAMS") + 1
        half = (len(rest) - at) // 2
        found = []
        for key, after in zip(rest[at : at + half], rest[at + half :], strict=True):
            stream = self._get_as(Stream, key)
            if stream is None:
                continue
            low = bisect_right(stream.ids, _id(after, 0))
            high = len(stream.ids) if count is None else min(len(stream.ids), low + count)
            if low < high:
                found.append([key, [[_shown(stream.ids[n]), stream.rows[n]] for n in range(low, high)]])
        return found or None

    # Scripts and channels.

    def _publish_told(self, channel: bytes, message: bytes) -> int:
        return self._publish(channel, message)

    def _eval(self, source: bytes, number: bytes, *rest: bytes) -> Any:
        self._scripts[hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()] = source
        count = int(number)
        return SCRIPTS.run(source, list(rest[:count]), list(rest[count:]), self._from_script)

    def _evalsha(self, digest: bytes, number: bytes, *rest: bytes) -> Any:
        source = self._scripts.get(digest)
        if source is None:
            raise NoScriptError("No matching script. Please use EVAL.")
        return self._eval(source, number, *rest)

    def _from_script(self, row: list[bytes]) -> Any:
        if row[0].upper() == b"PUBLISH":
            return self._publish_told(row[1], row[2])
        return self.execute(row)

    def forget_scripts(self) -> None:
        """As a server that was started anew."""
        self._scripts.clear()
