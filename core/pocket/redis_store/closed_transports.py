"""Closed transports of uvloop as redis-py's connection errors.

uvloop closes a transport as soon as its connection is reset, and raises RuntimeError for every use after that, where
asyncio's own transports only log it. redis-py knows neither error.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError


@contextlib.contextmanager
def closed_transports() -> Iterator[None]:
    """Translate the error of a closed transport. Raises redis-py's ConnectionError."""
    try:
        yield
    except RuntimeError as error:
        if type(error) is not RuntimeError:
            raise  # such as a RecursionError
        raise RedisConnectionError("the connection was closed") from error


class TranslatedTransport:
    """A connection of redis-py whose closed transport is a ConnectionError.

    It is opened again when it is used next.
    """

    async def _connect(self) -> None:
        parent: Any = super()
        with closed_transports():
            await parent._connect()  # noqa: SLF001 - the one hook of redis-py before anything is sent

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send as redis-py does. Raises ConnectionError."""
        parent: Any = super()
        with closed_transports():
            await parent.send_packed_command(command, check_health)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read as redis-py does. Raises ConnectionError."""
        parent: Any = super()
        with closed_transports():
            return await parent.read_response(*args, **options)
