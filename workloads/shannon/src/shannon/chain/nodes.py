"""Node addresses and the choice among several nodes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from shannon.chain.standing import Standings
from shannon.errors import ChainRefusal, ChainUnavailable, ConfigurationError

T = TypeVar("T")
N = TypeVar("N")

_COOLDOWN_SECONDS = 5.0


class NotHere(ChainUnavailable):
    """A node that answers, and does not have what it was asked for: the next one is asked, this one does not rest."""

    def __init__(self, where: str, refusal: ChainRefusal) -> None:
        super().__init__(f"{where}: {refusal}")
        self.refusal = refusal


def _is_address(text: str, schemes: Collection[str]) -> bool:
    """Whether it is a URL with one of the schemes, a host, and a port that can be one or none."""
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """One node: `grpc://` or `grpcs://` host and port, and the CometBFT RPC as `http(s)://`."""

    grpc: str
    rpc: str

    @classmethod
    def parse(cls, grpc: str, rpc: str) -> "NodeAddress":
        """Normalised address: `tcp://` counts as `http://`, trailing slashes go; raises ConfigurationError."""
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
        """(host:port, TLS)."""
        parts = urlsplit(self.grpc)
        secure = parts.scheme in ("grpcs", "https")
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        return f"{host}:{parts.port or (443 if secure else 9090)}", secure

    @property
    def name(self) -> str:
        """host:port of the gRPC address, for logs and metrics: never a password."""
        return self.grpc_target[0]

    @property
    def websocket_url(self) -> str:
        """The CometBFT WebSocket."""
        return self.rpc.replace("http", "ws", 1) + "/websocket"


@dataclass(slots=True)
class Failover(Generic[N]):
    """Asks nodes in order, preferring those that stand well (`standings`) and did not fail lately."""

    nodes: Sequence[N]
    clock: Callable[[], float] = time.monotonic
    standings: Standings | None = None
    _failed_until: dict[int, float] = field(default_factory=dict)

    def order(self) -> list[int]:
        """Indices of nodes, the resting ones last; those on another fork or chain are not among them."""
        now = self.clock()
        standings = self.standings or Standings(len(self.nodes))
        ranked = [(rank, i) for i in range(len(self.nodes)) if (rank := standings.rank(i)) is not None]
        return [i for _, i in sorted(ranked, key=lambda row: (self._failed_until.get(row[1], 0.0) > now, row))]

    def outranked(self, index: int) -> bool:
        """Whether another node stands better; one that only failed lately is not outranked."""
        if self.standings is None:
            return False
        ranks = [self.standings.rank(i) for i in range(len(self.nodes))]
        own = ranks[index]
        return any(rank is not None and (own is None or rank < own) for rank in ranks)

    async def call(self, what: str, ask: Callable[[N], Awaitable[T]], deadline_seconds: float) -> T:
        """The first usable answer; ChainUnavailable with all causes when no node gives one in time.

        A refusal, where every node that was asked does not have it (`NotHere`): one may keep less than others.
        """
        causes: list[str] = []
        refusals: list[ChainRefusal] = []
        end = self.clock() + deadline_seconds
        order = self.order()
        if not order:
            raise ChainUnavailable(f"{what}: every chain node is on another fork or chain. Check spec.chain.nodes.")
        for place, index in enumerate(order):
            left = end - self.clock()
            if left <= 0:
                break
            # Every node but the last leaves time for the next one.
            share = left if place == len(order) - 1 else left * 0.6
            try:
                async with asyncio.timeout(share):
                    answer = await ask(self.nodes[index])
            except NotHere as error:
                causes.append(str(error))
                refusals.append(error.refusal)
                continue
            except ChainUnavailable as error:
                causes.append(str(error))
            except TimeoutError:
                causes.append(f"node {index + 1}: no answer within {share:.1f} s")
            else:
                self._failed_until.pop(index, None)
                return answer
            self._failed_until[index] = self.clock() + _COOLDOWN_SECONDS
        if refusals and len(refusals) == len(causes):
            raise refusals[0]
        raise ChainUnavailable(f"{what}: no chain node answered ({'; '.join(causes) or 'deadline passed'})")
