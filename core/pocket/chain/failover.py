"""Node addresses and the choice among several nodes."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from pocket.chain.failures import error_of
from pocket.chain.first_answers import first_in_time, staggered
from pocket.chain.node_health import NodeHealthTable
from pocket.errors import STATED, ChainError, ChainUnavailable, ConfigurationError, DecodingError, FailureClass

T = TypeVar("T")
N = TypeVar("N")

_COOLDOWN_SECONDS = 5.0
GRACE_SECONDS: Final = 1.0
"""Seconds that are left to the other nodes once one has answered a query of all."""
PATIENCE_SHARE: Final = 0.2
"""Share of a query's deadline after which a silent node no longer keeps the next one waiting."""
_PATIENCE_ANSWERS: Final = 4
"""The same in times that the nodes take to answer: who is slow but well is not asked twice."""
_SHARE: Final = 0.2  # of a new answer in the mean
_ASKS: Final = 3
"""How often the only address is asked while it is silent: several nodes may stand behind it."""
_LAG_RETRY_SECONDS = (0.05, 0.1, 0.15)
"""Pauses in seconds before nodes that all lag are queried again."""
_COOLDOWN_FAILURES = frozenset({FailureClass.TRANSIENT, FailureClass.LAGGING_NODE, FailureClass.WRONG_NODE})
"""Failures after which a node is queried last for some seconds."""

_NOT_ASKED: Final = ChainUnavailable("not asked")
_NOT_SILENT = STATED | {FailureClass.PRUNED_NODE}
"""Answers that leave no doubt about another node's statement."""


def _is_address(text: str, schemes: Collection[str]) -> bool:
    """Return True for a URL with an allowed scheme and a host.

    Its port is valid, or it has none.
    """
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """One chain node: its gRPC and its CometBFT RPC.

    gRPC is `grpc://` or `grpcs://` with host and port, RPC is `http(s)://`.
    """

    grpc: str
    rpc: str

    @classmethod
    def parse(cls, grpc: str, rpc: str) -> "NodeAddress":
        """Return the normalised address. Raises ConfigurationError.

        `tcp://` counts as `http://`, and trailing slashes are removed.
        """
        if "://" not in grpc:
            grpc = "grpc://" + grpc
        if not _is_address(grpc, ("grpc", "grpcs", "http", "https")):
            raise ConfigurationError(f"chain node gRPC address {grpc!r}: write grpc://host:port, or grpcs:// with TLS")
        rpc = rpc.rstrip("/").replace("tcp://", "http://", 1)
        if not _is_address(rpc, ("http", "https")):
            raise ConfigurationError(f"chain node RPC address {rpc!r}: write http://host:port or https://host:port")
        return cls(grpc.rstrip("/"), rpc)

    @property
    def grpc_target(self) -> tuple[str, bool]:
        """Return (host:port, TLS)."""
        parts = urlsplit(self.grpc)
        secure = parts.scheme in ("grpcs", "https")
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        return f"{host}:{parts.port or (443 if secure else 9090)}", secure

    @property
    def name(self) -> str:
        """Return host:port of the gRPC address for logs and metrics, without credentials."""
        return self.grpc_target[0]

    @property
    def websocket_url(self) -> str:
        """Return the URL of the CometBFT WebSocket."""
        return self.rpc.replace("http", "ws", 1) + "/websocket"


QueryObserver = Callable[[str, float], None]
"""Called with the result of a query of one node and its seconds."""
ANSWERED: Final = "answered"
"""Result of a query that has a usable answer."""


def _cause(method: str, error: ChainError) -> str:
    """Return the text of one node's error with the node's name, without the method."""
    text, nodes = str(error).removeprefix(f"{method}: "), ", ".join(error.nodes)
    return text if text.startswith(nodes) else f"{nodes}: {text}"


@dataclass(slots=True)
class Failover(Generic[N]):
    """Queries nodes in order of health (`node_health`), recently failed ones last.

    `on_query` gets the result of each query of one node, `answered` or a `FailureClass`, and its seconds. `renew` has
    later queries of a node use a new connection. It is called after failures that another connection may not meet: the
    node's name, or the address of a load balancer, may lead to another node by now.
    """

    nodes: Sequence[N]
    clock: Callable[[], float] = time.monotonic
    node_health: NodeHealthTable | None = None
    names: Sequence[str] = ()
    on_query: QueryObserver | None = None
    renew: Callable[[N], None] = lambda node: None
    _failed_until: dict[int, float] = field(default_factory=dict)
    _mean_seconds: float = 0.0
    """Mean time of recent answers."""

    def order(self) -> list[int]:
        """Return the indices of usable nodes, those in cooldown last.

        Nodes on another fork or chain are excluded.
        """
        now = self.clock()
        node_health = self.node_health or NodeHealthTable(len(self.nodes))
        ranked = [(rank, i) for i in range(len(self.nodes)) if (rank := node_health.rank(i)) is not None]
        return [i for _, i in sorted(ranked, key=lambda row: (self._failed_until.get(row[1], 0.0) > now, row))]

    def better_node_exists(self, index: int) -> bool:
        """Return whether another node is healthier. Recent failures do not count."""
        if self.node_health is None:
            return False
        ranks = [self.node_health.rank(i) for i in range(len(self.nodes))]
        own = ranks[index]
        return any(rank is not None and (own is None or rank < own) for rank in ranks)

    def name(self, index: int) -> str:
        """Return the name of a node in messages."""
        return self.names[index] if index < len(self.names) else f"node {index + 1}"

    async def call(
        self, method: str, ask: Callable[[N], Awaitable[T]], deadline_seconds: float,
        patience_share: float = PATIENCE_SHARE,
    ) -> T:  # fmt: skip
        """Return the first usable answer. Every node is queried before an error is raised.

        A node that is silent for `patience_share` of the deadline goes on while the next one is queried, or the same
        address once more if there is no other: several nodes may stand behind it.

        If all of them lag they are queried again, a few times within a third of a second. Raises ChainUnavailable
        if no node answered in time. Raises what the nodes state about the chain (NotFound, ChainQueryRejected) as of
        the greatest height, with the names of all that state it and of the healthy nodes that failed otherwise;
        MethodNotImplemented if no healthy node knows the method.
        """
        errors: dict[int, ChainError] = {}
        end, patience = self.clock() + deadline_seconds, patience_share * deadline_seconds
        order = self.order()
        if not order:
            raise ChainUnavailable(
                f"{method}: every chain node is on another fork or chain. Check spec.chain.nodes.",
                failure=FailureClass.WRONG_NODE,
            )
        for pause in (0.0, *_LAG_RETRY_SECONDS):
            # Behind one address there may be several nodes: where this one lags, the next call may reach another.
            if pause:
                if {error.failure for error in errors.values()} != {
                    FailureClass.LAGGING_NODE
                } or end - self.clock() <= pause:
                    break
                await asyncio.sleep(pause)
                errors.clear()
            answer = await self._in_turn(order, ask, end, patience, errors)
            if answer is not None:
                return answer[0]
        raise self._merge(method, order, errors)

    async def _in_turn(
        self, order: Sequence[int], ask: Callable[[N], Awaitable[T]], end: float, patience: float,
        errors: dict[int, ChainError],
    ) -> tuple[T] | None:  # fmt: skip
        """Query nodes one after the other, the only one again while it is silent.

        Returns the first usable answer. Adds the errors of all that failed before.
        """
        only = len(order) == 1
        patience = max(patience, _PATIENCE_ANSWERS * self._mean_seconds)
        indices = list(order) * (_ASKS if only else 1)
        silent_since: dict[int, float] = {}

        async def one(position: int) -> tuple[int, T | ChainError]:
            left = end - self.clock()
            if left <= 0 or (only and errors and not silent_since):
                return position, _NOT_ASKED
            if only and silent_since:
                self.renew(self.nodes[indices[position]])
            silent_since[position] = self.clock()
            return position, await self.ask_one(indices[position], ask, left)

        async with contextlib.aclosing(staggered(map(one, range(len(indices))), patience)) as answers:
            async for position, answer in answers:
                silent_since.pop(position, None)
                if answer is _NOT_ASKED:
                    continue
                if isinstance(answer, ChainError):
                    errors[indices[position]] = answer
                    if only and answer.failure in STATED:
                        break
                    continue
                for other, since in silent_since.items():
                    if not only and self.clock() - since >= patience:
                        self._failed(indices[other], self._silent(indices[other], since), since)
                return (answer,)
        return None

    async def ask_all(
        self, ask: Callable[[N], Awaitable[T]], deadline_seconds: float, grace_seconds: float = GRACE_SECONDS,
        patience_share: float = PATIENCE_SHARE,
    ) -> dict[str, T | ChainError]:  # fmt: skip
        """Query every usable node concurrently. Returns the answers by node name.

        The only address is queried again while it is silent, as by `call`.

        Once a node has answered, the others have `grace_seconds` left: a node that hangs must not use up the blocks of
        a window.
        """
        order, began = self.order(), self.clock()
        if len(order) == 1:
            errors: dict[int, ChainError] = {}
            reply = await self._in_turn(order, ask, began + deadline_seconds, patience_share * deadline_seconds, errors)
            return {self.name(order[0]): reply[0] if reply else errors.get(order[0]) or self._silent(order[0], began)}
        asking = [self.ask_one(index, ask, deadline_seconds) for index in order]
        answers = await first_in_time(asking, grace_seconds, lambda answer: not isinstance(answer, ChainError))
        return {
            self.name(index): self._failed(index, self._silent(index, began), began) if answer is None else answer
            for index, answer in zip(order, answers, strict=True)
        }

    async def ask_one(self, index: int, ask: Callable[[N], Awaitable[T]], seconds: float) -> T | ChainError:
        """Query the node at an index within a deadline. Returns its answer or its error."""
        name, began = self.name(index), self.clock()
        try:
            async with asyncio.timeout(seconds):
                answer = await ask(self.nodes[index])
        except ChainError as error:
            error.nodes = error.nodes or (name,)
            failed: ChainError = error
        except DecodingError as error:
            failed = ChainUnavailable(str(error), nodes=(name,))
        except TimeoutError:
            failed = self._silent(index, began)
        except Exception as error:  # noqa: BLE001 - whatever a node answers, the others are asked
            failed = ChainUnavailable(f"{name}: its answer raised {type(error).__name__}: {error}", nodes=(name,))
        else:
            self._failed_until.pop(index, None)
            self._mean_seconds += (self.clock() - began - self._mean_seconds) * _SHARE
            self._observe(ANSWERED, began)
            return answer
        return self._failed(index, failed, began)

    def _silent(self, index: int, began: float) -> ChainUnavailable:
        name = self.name(index)
        return ChainUnavailable(f"{name}: no answer within {self.clock() - began:.1f} s", nodes=(name,))

    def _failed(self, index: int, failed: ChainError, began: float) -> ChainError:
        """Count a failure of a node, which is asked last for some seconds.

        Returns the failure.
        """
        self._observe(failed.failure.value, began)
        if failed.failure in _COOLDOWN_FAILURES:
            self._failed_until[index] = self.clock() + _COOLDOWN_SECONDS
            self.renew(self.nodes[index])
        return failed

    def _observe(self, result: str, began: float) -> None:
        if self.on_query is not None:
            self.on_query(result, self.clock() - began)

    def _is_healthy(self, index: int) -> bool:
        """Return whether a node is known neither to lag nor to be unreachable."""
        rank = (0, 0) if self.node_health is None else self.node_health.rank(index)
        return rank is not None and rank[0] == 0

    def _merge(self, query: str, order: Sequence[int], errors: Mapping[int, ChainError]) -> ChainError:
        """Merge the nodes' errors.

        A statement about the chain outranks a node's own failure. It carries the healthy nodes that made no statement.
        That one node does not know a method means nothing while a healthy one fails otherwise.
        """
        healthy = [index for index in order if self._is_healthy(index)]
        stated = [error for error in errors.values() if error.failure in STATED]
        if stated:
            best = max(stated, key=lambda error: error.height)
            same = dict.fromkeys(name for error in stated if error.failure is best.failure for name in error.nodes)
            silent = (i for i in healthy if i not in errors or errors[i].failure not in _NOT_SILENT)
            return error_of(best.failure, str(best), best.height, tuple(same), tuple(map(self.name, silent)))
        names = tuple(name for error in errors.values() for name in error.nodes)
        method = query.rpartition("/")[2]
        causes = "; ".join(_cause(method, error) for error in errors.values()) or "deadline passed"
        of_healthy = {errors[i].failure if i in errors else FailureClass.TRANSIENT for i in healthy}
        failures = {error.failure for error in errors.values()}
        if (of_healthy or failures) == {FailureClass.UNSUPPORTED}:
            return error_of(FailureClass.UNSUPPORTED, causes, nodes=names)
        only = next(iter(failures)) if len(failures) == 1 else FailureClass.TRANSIENT
        failure = FailureClass.TRANSIENT if only is FailureClass.UNSUPPORTED else only
        return error_of(failure, f"{method}: no chain node answered ({causes})", nodes=names)
