"""Send every command to the primary of its slot in a Redis Cluster.

The primary may change at any time. Redirections (MOVED, ASK) and states that pass (TRYAGAIN, CLUSTERDOWN) are handled
here, once for all commands. A failed connection is the caller's: whether a command that may have been executed is sent
again is not decided here.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pocket.redis_store.cluster_slots import SlotMap, slot_of
from pocket.redis_store.node_addresses import Address, format_address
from pocket.redis_store.node_backoff import NodeBackoff
from pocket.redis_store.node_client import NodeClient
from pocket.runtime.single_flight import SingleFlight

_REDIRECTIONS: Final = 16
_PAUSE_SECONDS: Final = 0.05
_KEPT_SECONDS: Final = 60.0
_REFRESH_SECONDS: Final = 0.1
_LOST: Final = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)
_PASSING: Final = (TryAgainError, ClusterDownError, MasterDownError)
_REDIRECTED: Final = (MovedError, AskError, *_PASSING)

Command = tuple[tuple[Any, ...], dict[str, Any]]


class ClusterClient(Redis):
    """A client with the interface of `Redis`, over all primaries of a Cluster.

    The keys of a command, of a script and of a blocking read must be in one slot. A pipeline may span slots: it is sent
    to all primaries at once, and its commands are independent of each other.
    """

    def __init__(
        self, seeds: Sequence[Address], pool_of: Callable[[Address], ConnectionPool], *, timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._seeds = tuple(seeds)
        self._pool_of = pool_of
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._nodes: dict[Address, Redis] = {}
        self._used_at: dict[Address, float] = {}
        self._refreshing = SingleFlight()
        self._background: asyncio.Task[SlotMap] | None = None
        self._slots: SlotMap | None = None
        self._stale = False
        self._asked_at = float("-inf")
        self._failed: set[Address] = set()
        self._turn = 0
        self._backoff = NodeBackoff(clock, timeout_seconds)
        super().__init__(connection_pool=self.node(self._seeds[0]).connection_pool)

    # Topology.

    def node(self, address: Address) -> Redis:
        """Return a client of one node."""
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = NodeClient.from_pool(self._pool_of(address))
        self._used_at[address] = self._clock()
        return node

    async def refresh(self) -> SlotMap:
        """Ask the nodes for the primaries of all slots.

        Concurrent callers share one query. Raises redis-py's ConnectionError if no node answers.
        """
        return await self._refreshing.do("slots", self._refresh)

    async def _refresh(self) -> SlotMap:
        self._asked_at, self._stale = self._clock(), False
        known = self._slots.primaries if self._slots is not None else ()
        self._turn += 1
        candidates = list(dict.fromkeys((*known, *self._seeds)))
        candidates = candidates[self._turn % len(candidates) :] + candidates[: self._turn % len(candidates)]
        failure: Exception = RedisConnectionError("no node of the Cluster was asked")
        outdated: SlotMap | None = None
        for address in sorted(candidates, key=self._failed.__contains__):
            try:
                slots, healthy = await self._ask(address)
            except (RedisError, OSError, TimeoutError, ValueError) as error:
                self._failed.add(address)
                failure = error
                continue
            self._failed.discard(address)
            if slots.primaries and healthy:
                break
            outdated = outdated or (slots if slots.primaries else None)
        else:
            if outdated is None:
                raise (
                    failure
                    if isinstance(failure, ResponseError)
                    else RedisConnectionError(f"no node of the Cluster answers: {failure}")
                ) from failure
            slots = outdated
        self._slots = slots
        await self._forget_unused()
        return slots

    async def _ask(self, address: Address) -> tuple[SlotMap, bool]:
        """Return what a node knows, and whether it is part of a majority.

        One that is cut off reports an earlier state.
        """
        async with asyncio.timeout(self._timeout_seconds):
            async with self.node(address).pipeline(transaction=False) as pipe:
                pipe.execute_command("CLUSTER SLOTS")
                pipe.execute_command("CLUSTER INFO")
                reply, info = await pipe.execute()
        slots = SlotMap.parse(reply, address)
        if not slots.primaries:
            raise RedisConnectionError(f"{format_address(address)} knows no slots: create the Cluster")
        return slots, info.get("cluster_state") == "ok"

    def _refresh_soon(self) -> None:
        """Refresh while commands go on.

        A node that does not answer must not delay those of the others.
        """
        running = self._background is not None and not self._background.done()
        if not running and self._clock() - self._asked_at >= _REFRESH_SECONDS:
            self._background = asyncio.create_task(self.refresh())
            self._background.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _forget_unused(self) -> None:
        """Close the connections to nodes that were not used for a while.

        Those to primaries stay open.
        """
        primaries = self._slots.primaries if self._slots is not None else ()
        now = self._clock()
        for address in [a for a in self._nodes if a not in primaries and a not in self._seeds]:
            if now - self._used_at[address] > _KEPT_SECONDS:
                self._backoff.forget(address)
                await self._nodes.pop(address).aclose()

    async def _current(self) -> SlotMap:
        if self._slots is None:
            return await self.refresh()
        if self._stale:
            self._refresh_soon()
        return self._slots

    async def _primary(self, slot: int | None) -> Address:
        """Return the address of the primary of a slot, or of any for None.

        Raises ClusterDownError while the slot has none.
        """
        slots = await self._current()
        if slot is None:
            self._turn += 1
            return slots.primaries[self._turn % len(slots.primaries)]
        address = slots.primary(slot)
        if address is None:
            raise ClusterDownError(f"no primary serves slot {slot}", status_code="CLUSTERDOWN")
        return address

    def primary_of(self, name: str) -> Address | None:
        """Return the address of the primary of a key, as far as known."""
        slot = slot_of(("GET", name))
        return self._slots.primary(slot) if self._slots is not None and slot is not None else None

    async def primaries(self) -> dict[Address, Redis]:
        """Return a client of each primary, by address, after asking for the present ones.

        Raises ClusterDownError if a slot has no primary.
        """
        slots = await self.refresh()
        if not slots.complete:
            raise ClusterDownError("not every slot has a primary", status_code="CLUSTERDOWN")
        return {address: self.node(address) for address in slots.primaries}

    @property
    def nodes(self) -> list["Redis"]:
        """Return a client of every node that was used."""
        return list(self._nodes.values())

    # Commands.

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command on the primary of its keys.

        Raises what redis-py raises, and after the deadline the last TRYAGAIN or CLUSTERDOWN.
        """
        slot = slot_of(args)
        deadline = self._clock() + self._timeout_seconds
        target: Address | None = None
        asking = False
        for _ in range(_REDIRECTIONS + int(self._timeout_seconds / _PAUSE_SECONDS)):
            address: Address | None = target
            try:
                address = target or await self._primary(slot)
                return await self._send(address, (args, options), asking=asking)
            except MovedError as error:
                target, asking = self._target(error, address), False
                self._moved(error.slot_id, target)
            except AskError as error:
                target, asking = self._target(error, address), True
            except _PASSING as error:
                self._stale = self._stale or not isinstance(error, TryAgainError)
                if self._clock() >= deadline:
                    raise
                target, asking = None, False
                await asyncio.sleep(_PAUSE_SECONDS)
            except _LOST:
                self._stale = True
                raise
        raise RedisConnectionError(f"slot {slot} is redirected again and again: the nodes disagree")

    async def _send(self, address: Address, command: Command, *, asking: bool) -> Any:
        args, options = command
        node: Any = self.node(address)
        if not asking:
            with self._backoff.asked(address):
                return await node.execute_command(*args, **options)
        async with node.pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.execute_command(*args, **options)
            with self._backoff.asked(address):
                _, reply = await pipe.execute(raise_on_error=False)
        if isinstance(reply, Exception):
            raise reply
        return reply

    @staticmethod
    def _target(error: AskError, source: Address | None) -> Address:
        """Return where a redirection leads.

        Without a host it leads to the host that sent it.
        """
        return (error.host or (source[0] if source is not None else ""), error.port)

    def _moved(self, slot: int, address: Address) -> None:
        if self._slots is not None:
            self._slots.move(slot, address)
        self._stale = True  # others will have moved, too

    async def execute_all(self, commands: Iterable[Command]) -> list[Any]:
        """Execute independent commands, one pipeline for each primary.

        Returns their replies in order, errors among them: those of the server, and for all commands to a primary that
        of its connection.
        """
        rows = list(commands)
        replies: list[Any] = [None] * len(rows)
        by_primary: dict[Address, list[int]] = {}
        again: list[int] = []
        for number, (args, _) in enumerate(rows):
            try:
                by_primary.setdefault(await self._primary(slot_of(args)), []).append(number)
            except ClusterDownError:
                again.append(number)

        async def send(address: Address, numbers: list[int]) -> None:
            async with self.node(address).pipeline(transaction=False) as pipe:
                for number in numbers:
                    args, options = rows[number]
                    pipe.execute_command(*args, **options)
                with self._backoff.asked(address):
                    results = await pipe.execute(raise_on_error=False)
                for number, reply in zip(numbers, results, strict=True):
                    replies[number] = reply
                    if isinstance(reply, _REDIRECTED):
                        again.append(number)

        sent = await asyncio.gather(*(send(*item) for item in by_primary.items()), return_exceptions=True)
        for numbers, failure in zip(by_primary.values(), sent, strict=True):
            if isinstance(failure, _LOST):
                self._stale = True
                replies = [failure if number in numbers else reply for number, reply in enumerate(replies)]
            elif failure is not None:
                raise failure

        async def repeat(number: int) -> None:
            args, options = rows[number]
            try:
                replies[number] = await ClusterClient.execute_command(self, *args, **options)
            except (ResponseError, *_LOST) as error:
                replies[number] = error

        # Together: each waits up to a deadline of its own for its slot.
        await asyncio.gather(*map(repeat, again))
        return replies

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "ClusterPipeline":
        """Return a pipeline over all slots.

        Raises RedisClusterException for a transaction, which cannot span nodes.
        """
        if transaction:
            raise RedisClusterException("a transaction cannot span slots: use a script")
        return ClusterPipeline(self)

    def pubsub(self, **options: Any) -> PubSub:
        """Return a subscription on one primary.

        Nodes forward published messages to each other. Another one is used at each call, so that a subscriber leaves
        one that is down.
        """
        self._turn += 1
        known = self._slots.primaries if self._slots is not None else self._seeds
        node = self.node(known[self._turn % len(known)])
        pubsub: PubSub = node.pubsub(**options)
        return pubsub

    async def scan_iter(  # type: ignore[override]  # redis-py annotates its blocking client
        self, *args: Any, **options: Any
    ) -> AsyncIterator[Any]:
        """Iterate over the keys of all primaries."""
        for node in (await self.primaries()).values():
            async for name in node.scan_iter(*args, **options):
                yield name

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections to all nodes."""
        if self._background is not None:
            self._background.cancel()
            with contextlib.suppress(asyncio.CancelledError, *_LOST, RedisError):
                await self._background
        nodes, self._nodes = list(self._nodes.values()), {}
        for node in nodes:
            await node.aclose(close_connection_pool)


class ClusterPipeline(Pipeline):
    """Commands that are sent together, to as many primaries as their keys need."""

    def __init__(self, cluster: ClusterClient) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction=False, shard_hint=None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Execute the commands and return their replies in order.

        Raises the first error unless `raise_on_error` is False: then the replies of primaries that answer are returned
        with the errors of the others.
        """
        commands, self.command_stack = self.command_stack, []
        replies = await self._cluster.execute_all((tuple(args), dict(options)) for args, options in commands)
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, _LOST):
                    raise reply
            self.raise_first_error(commands, replies)
        return replies
