"""Redis as processes meet it: a service name that leads to one of two instances, with durability and fail-over.

An instance keeps pictures of its data: what it comes back with after a crash, and what its replica had. A connection
stays with the instance that it was made to.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import BusyLoadingError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisDown
from redis.exceptions import TimeoutError as RedisTimeout

from pocket.redis_store.connection import _CancelSafeConnection, connect
from simulated.loop import Loop
from simulated.redis_model import _WRITES, Data, Model

_KEPT_SECONDS = 12.0


@dataclass(eq=False)
class Instance:
    """One redis-server."""

    model: Model
    run_id: str
    started: float
    role: str = "master"
    up: bool = True
    loading: bool = False
    full: bool = False
    connections: dict["SimulatedConnection", None] = field(default_factory=dict)
    pictures: deque[tuple[float, Data]] = field(default_factory=deque)


class RedisService:
    """A Redis service with its replica.

    `link` returns how a call fails, if it does. `slow` returns whether calls may take long, `hangs` whether they are
    not answered.
    """

    def __init__(
        self, loop: Loop, wall: Callable[[], float], link: Callable[[str, str], Any], slow: Callable[[], object],
        report: Callable[[str], None] = lambda text: None, hangs: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.loop, self._wall, self.link, self.slow, self.report = loop, wall, link, slow, report
        self.hangs = hangs
        self._lives = 0
        self.behind_seconds = 0.0  # by which the next instance's clock is behind
        # In the order in which they came: what a set gives differs from run to run.
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._subscribers: dict[bytes, dict[SimulatedConnection, None]] = {}
        self.primary = self._instance(Data())

    def _instance(self, data: Data) -> Instance:
        self._lives += 1
        behind = self.behind_seconds
        model = Model(lambda: self._wall() - behind, self._publish)
        model.data = data
        instance = Instance(model, f"run{self._lives:04d}", self.loop.time())
        model.info = functools.partial(self._info, instance)
        return instance

    def _publish(self, channel: bytes, message: bytes) -> int:
        heard = [c for c in self._subscribers.get(channel, ()) if c.instance is self.primary]
        for connection in heard:
            connection.push([b"message", channel, message])
        return len(heard)

    def client(self, url: str, _access: object = None) -> "Redis":
        service = self

        class Made(_CancelSafeConnection, SimulatedConnection):
            redis_service = service

        return connect(url, transport=Made, clock=self.loop.time)

    # What happens to it.

    def picture(self) -> None:
        """Save a snapshot of the data, which `older` returns."""
        kept = self.primary.pictures
        kept.append((self.loop.time(), self.primary.model.data.copy()))
        while kept[0][0] < self.loop.time() - _KEPT_SECONDS:
            kept.popleft()

    def older(self, seconds: float) -> Data:
        """Return the data of at least so many seconds ago."""
        at = self.loop.time() - seconds
        found = [data for when, data in self.primary.pictures if when <= at]
        return (found[-1] if found else self.primary.pictures[0][1] if self.primary.pictures else Data()).copy()

    def crash(self) -> None:
        self.primary.up = False
        self._cut(self.primary)

    def restart(self, data: Data) -> None:
        """Restart with these data under another run id and without scripts."""
        self.primary = self._instance(data)
        self.picture()

    def fail_over(self, data: Data, *, cut: bool) -> None:
        """Promote a replica with these data.

        Connections to the former primary stay unless they are cut.
        """
        former, self.primary = self.primary, self._instance(data)
        former.role = "slave"
        if cut:
            self._cut(former)
        self.picture()

    def _cut(self, instance: Instance) -> None:
        for connection in list(instance.connections):
            connection.cut()

    # What connections ask.

    def execute(self, instance: Instance, row: Sequence[bytes]) -> Any:
        name = bytes(row[0]).upper()
        if name == b"INFO":
            return self._info(instance)
        if name in (b"CLIENT", b"SELECT", b"PING"):
            return b"OK"
        if instance.loading:
            raise BusyLoadingError("Redis is loading the dataset in memory")
        writes = name in _WRITES or name in (b"EVAL", b"EVALSHA")
        if instance.role != "master" and writes:
            raise ReadOnlyError("You can't write against a read only replica.")
        if instance.full and writes and name not in (b"DEL", b"UNLINK", b"HDEL"):
            raise ResponseError("OOM command not allowed when used memory > 'maxmemory'.")
        before = instance.model.entries_added
        reply = instance.model.execute(row)
        if instance.model.entries_added != before:
            self.wake()
        if name == b"EVALSHA" and b":fence:" in row[3]:
            self._check_fence(instance, row, reply)
        return reply

    def _check_fence(self, instance: Instance, row: Sequence[bytes], reply: Any) -> None:
        """Report an owner's write that was accepted under a smaller epoch than the fence's."""
        epoch, fence = int(row[3 + int(row[2])]), int(instance.model.execute((b"GET", row[3])) or 0)
        if epoch < fence and reply[0] not in (b"fenced", b"reborn"):
            self.report(f"a write under epoch {epoch} was accepted though {fence} is fenced")

    def wake(self) -> None:
        """Has every blocked read try again."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _info(self, instance: Instance) -> bytes:
        rows = {
            "loading": int(instance.loading), "role": instance.role, "aof_enabled": 0 if instance.loading else 1,
            "run_id": instance.run_id, "master_replid": "replication", "maxmemory_policy": "noeviction",
            "used_memory": 95 if instance.full else 10, "maxmemory": 100,
            "uptime_in_seconds": int(self.loop.time() - instance.started),
            "server_time_usec": int(self._wall() * 1_000_000),
        }  # fmt: skip
        return "".join(f"{name}:{value}\r\n" for name, value in rows.items()).encode()

    async def added(self, seconds: float) -> None:
        """Wait until a stream may have grown, or for the given time."""
        future = self.loop.create_future()
        self._waiting[future] = None
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return
        finally:
            self._waiting.pop(future, None)


def _plain(argument: Any) -> bytes:
    if isinstance(argument, bytes):
        return argument
    return argument.encode("utf-8", "surrogateescape") if isinstance(argument, str) else str(argument).encode()


class SimulatedConnection(Connection):
    """redis-py's connection without a socket: commands go to the model, each under the network's whims."""

    redis_service: RedisService
    instance: Instance | None = None

    async def _connect(self) -> None:
        service = self.redis_service
        await service.link("redis", "connect")
        if not service.primary.up:
            raise ConnectionRefusedError("connection refused")
        self.instance = service.primary
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.instance.connections[self] = None

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self._reset_himport_state()

    @property
    def is_connected(self) -> bool:
        return self.instance is not None

    def pack_command(self, *args: Any) -> Any:
        words = args[0].split() if isinstance(args[0], str) and " " in args[0] else [args[0]]
        return [tuple(_plain(part) for part in (*words, *args[1:]))]

    def pack_commands(self, commands: Any) -> Any:
        return [row for command in commands for row in self.pack_command(*command)]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        service, rows = self.redis_service, command
        name = bytes(rows[0][0]).decode() + (f"x{len(rows)}" if len(rows) > 1 else "")
        try:
            lost = await service.link("redis", name)
        except OSError as error:
            await self.disconnect(nowait=True)
            raise RedisDown(f"Error while writing to socket. {error}") from error
        if self.instance is None or not self.instance.up:
            await self.disconnect(nowait=True)
            raise RedisDown("Connection closed by server.")
        if service.hangs():
            return
        for row in rows:
            await self._run(row)
        if lost:
            self.cut()

    async def _run(self, row: Sequence[bytes]) -> None:
        instance, service = self.instance, self.redis_service
        if instance is None:
            return
        name = bytes(row[0]).upper()
        if name in (b"SUBSCRIBE", b"UNSUBSCRIBE"):
            if name == b"SUBSCRIBE":
                service._subscribers.setdefault(row[1], {})[self] = None
            self.push([name.lower(), row[1], 1])
            return
        if name == b"XREAD" and b"BLOCK" in row:
            self.push(("block", row, service.loop.time() + int(row[row.index(b"BLOCK") + 1]) / 1000))
            return
        try:
            self.push(service.execute(instance, row))
        except ResponseError as error:
            self.push(error)
        except BusyLoadingError as error:
            self.push(error)

    def push(self, reply: Any) -> None:
        self._incoming.put_nowait(reply)

    def cut(self) -> None:
        """Cut the connection and fail the pending replies."""
        if self.instance is not None:
            self.instance.connections.pop(self, None)
            self.instance = None
            self._incoming.put_nowait(RedisDown("Connection closed by server."))
            self.redis_service.wake()

    async def read_response(  # redis-py's interface
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - redis-py's interface
        **_: Any,
    ) -> Any:
        service = self.redis_service
        seconds = timeout if timeout is not None else self.socket_timeout
        if self.instance is None and self._incoming.empty():
            raise RedisDown("Connection closed by server.")
        try:
            if self._incoming.empty() or service.slow():
                async with asyncio.timeout(seconds):
                    reply = await self._reply()
            else:
                reply = await self._reply()  # it is there: a timer would end before it is due
        except TimeoutError:
            if timeout is not None:
                return None
            await self.disconnect(nowait=True)
            raise RedisTimeout(f"Timeout reading from {self.host}") from None
        if isinstance(reply, RedisDown):
            await self.disconnect(nowait=True)
            raise RedisDown(*reply.args)
        if isinstance(reply, ResponseError | BusyLoadingError):
            raise type(reply)(*reply.args)
        return reply

    async def _reply(self) -> Any:
        reply = await self._incoming.get()
        if isinstance(reply, tuple) and reply and reply[0] == "block":
            reply = await self._blocked(reply[1], reply[2])
        if not isinstance(reply, list) or not reply or reply[0] != b"message":
            await self.redis_service.link("reply", "")
        return reply

    async def _blocked(self, row: Sequence[bytes], until: float) -> Any:
        service = self.redis_service
        while True:
            instance = self.instance
            if instance is None or not instance.up:
                return RedisDown("Connection closed by server.")
            try:
                found = service.execute(instance, row)
            except ResponseError as error:
                return error
            left = until - service.loop.time()
            if (found is not None or left <= 0) and not service.hangs():
                return found
            await service.added(max(left, 0.1))

    async def can_read_destructive(self) -> bool:
        return not self._incoming.empty()

    async def can_read(self) -> bool:
        return not self._incoming.empty()

    async def disconnect(self, *_: Any, **__: Any) -> None:
        if self.instance is not None:
            self.instance.connections.pop(self, None)
        for connections in self.redis_service._subscribers.values():
            connections.pop(self, None)
        self.instance = None
        self._incoming = asyncio.Queue()

    def __del__(self, *_: Any) -> None:
        return
