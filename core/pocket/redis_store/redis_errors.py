"""Translate redis-py's errors.

So nothing above decides by their wording. The code that the server puts first in its answer is looked up in a table.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from typing import Final

from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError

from pocket.redis_store.store_errors import CommandRejected, RedisTrouble, RedisUnavailable

NATIVE_ERRORS: Final = (RedisError, OSError, TimeoutError)
"""Every error of redis-py's own clients: a reply, the connection or the deadline. `connect` returns clients that
translate them, so only what makes a client of its own needs them."""

_BY_CODE: Final = {
    "LOADING": RedisTrouble.LOADING,
    "READONLY": RedisTrouble.REPLICA,
    "MASTERDOWN": RedisTrouble.REPLICA,
    "BUSY": RedisTrouble.BUSY,
    "TRYAGAIN": RedisTrouble.BUSY,
    "CLUSTERDOWN": RedisTrouble.BUSY,
    "NOREPLICAS": RedisTrouble.BUSY,
    "NOAUTH": RedisTrouble.LOGIN,
    "WRONGPASS": RedisTrouble.LOGIN,
    "NOPERM": RedisTrouble.REJECTED,
    "OOM": RedisTrouble.OUT_OF_MEMORY,
    "MISCONF": RedisTrouble.DISK,
}
_SAID: Final = {
    RedisTrouble.LOADING: "Redis is loading its data file",
    RedisTrouble.REPLICA: "this Redis is a replica and rejects writes: point spec.redis at the primary",
    RedisTrouble.BUSY: "Redis is busy",
    RedisTrouble.LOGIN: "Redis rejected the login: check user and password of spec.redis",
    RedisTrouble.OUT_OF_MEMORY: "Redis is full: raise its maxmemory",
    RedisTrouble.DISK: "Redis cannot write its data file: check its volume",
    RedisTrouble.REJECTED: "Redis rejected the command",
    RedisTrouble.UNREACHABLE: "Redis does not answer: check spec.redis and that the server runs",
}
_LEADING = re.compile(r"([A-Z]{2,})(?: |$)")
_IN_SCRIPT = re.compile(r"(?:^|\s)-([A-Z]{2,}) ")


def code_of(error: BaseException) -> str:
    """Return the server's error code, such as `READONLY`, '' without an answer.

    Servers before version 7 wrap the code of a command that fails within a script: `ERR Error running script … -OOM …`.
    """
    known = getattr(error, "status_code", None)
    if known and known != "ERR":
        return str(known)
    text = str(error)
    if isinstance(error, ResponseError):
        if inner := _IN_SCRIPT.search(text):
            return inner[1]
        if (leading := _LEADING.match(text)) and leading[1] in _BY_CODE:
            return leading[1]
        return "ERR"
    return ""


def trouble_of(error: BaseException) -> RedisTrouble:
    """Return the kind of an error of redis-py or of the network."""
    trouble = _BY_CODE.get(code_of(error))
    if trouble is not None:
        return trouble
    if isinstance(error, AuthenticationError):
        return RedisTrouble.LOGIN
    return RedisTrouble.REJECTED if isinstance(error, ResponseError) else RedisTrouble.UNREACHABLE


def translate(error: BaseException) -> BaseException:
    """Return our error for one of redis-py or of the network.

    It is a CommandRejected for a rejected command, else a RedisUnavailable. An unknown script stays as it is:
    `Script.run` loads it.
    """
    if isinstance(error, NoScriptError):
        return error
    trouble = trouble_of(error)
    detail = str(error) or type(error).__name__
    kind = CommandRejected if trouble is RedisTrouble.REJECTED else RedisUnavailable
    return kind(f"{_SAID[trouble]} ({detail})", trouble)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate the errors of redis-py within the context. Raises RedisUnavailable."""
    try:
        yield
    except NATIVE_ERRORS as error:
        raise translate(error) from error


@contextlib.asynccontextmanager
async def redis_deadline(seconds: float) -> AsyncIterator[None]:
    """Bound calls to Redis. Raises RedisUnavailable if they take longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RedisUnavailable(f"{_SAID[RedisTrouble.UNREACHABLE]} (nothing within {seconds:g} s)") from error
