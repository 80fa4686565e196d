"""Active health checks: expected response, and lag behind the pool."""

import asyncio
import json
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import aiohttp
import structlog
from structlog.typing import FilteringBoundLogger
from yarl import URL

from pocket.api.services import Backend, HealthCheck
from pocket.runtime.public_urls import connection_problem
from pocket_relayer import relayer_metrics
from pocket_relayer.backends.paths import public_origin
from pocket_relayer.backends.pools import BackendEndpoint, Pool
from pocket_relayer.backends.service import ServiceBackends
from pocket_relayer.limits.rejection import Rejected

_LOG: FilteringBoundLogger = structlog.get_logger()
_ANSWER_BYTES = 1024 * 1024
_HIGHEST: Final = 2**63  # of a block height
_STILL_CHECKS: Final = 10  # an endpoint advances if its height grew within so many checks


def height_in(body: bytes, field: str) -> int | None:
    """Return the block height in a response, or None if it holds none."""
    try:
        value = json.loads(body)
        for name in field.split("."):
            value = value[int(name)] if isinstance(value, list) else value[name]
        if isinstance(value, str):
            value = int(value, 16) if value.lower().startswith("0x") else int(value)
        plausible = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _HIGHEST
        return value if plausible else None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def check_problem(check: HealthCheck, status: int, body: bytes) -> str:
    """Return why a response is not the expected one, or an empty text."""
    if status not in check.expect_status if check.expect_status else not 200 <= status < 300:
        return f"the check got status {status}"
    if check.expect_body and check.expect_body.encode() not in body:
        return "the check's answer lacks the expected text"
    return ""


def endpoint_ahead(heights: dict[str, int], limit: int, advancing: Collection[str]) -> str:
    """Return the endpoint whose height is not that of the others' chain, or ''.

    It is alone and over `limit` blocks ahead, while at least two others agree and advance. One answer does not take
    all others out. Endpoints that stand still agree, too, so they do not outvote one that is ahead.
    """
    first, second, *_ = (*sorted(heights.values(), reverse=True), 0, 0)
    agreeing = [url for url, h in heights.items() if url in advancing and second - limit <= h <= second]
    if first - second <= limit or len(agreeing) < 2:
        return ""
    return max(heights, key=heights.__getitem__)


def endpoints_behind(heights: dict[str, int], limit: int, advancing: Collection[str] = ()) -> dict[str, str]:
    """Return the endpoints over `limit` blocks behind the highest, with the reason.

    `advancing` are the endpoints whose height grew in the last checks, see `endpoint_ahead`.
    """
    ahead = endpoint_ahead(heights, limit, advancing)
    counted = {url: h for url, h in heights.items() if url != ahead}
    top = max(counted.values(), default=0)
    return {url: f"{top - h} blocks behind" for url, h in counted.items() if top - h > limit}


@dataclass(slots=True)
class _Streak:
    """Results of one endpoint's last checks.

    The number of checks in which its height did not grow is counted, too.
    """

    failures: int = 0
    successes: int = 0
    height: int | None = None
    still: int = _STILL_CHECKS

    def observe(self, height: int) -> None:
        """Take the height of a check."""
        grew = self.height is not None and height > self.height
        self.height, self.still = height, 0 if grew else self.still + 1


class PoolChecker:
    """Health checks of the endpoints of one pool."""

    def __init__(self, backends: ServiceBackends, pool: Pool, rng: Callable[[], float] = random.random) -> None:
        assert isinstance(pool.backend, Backend)  # noqa: S101 - only HTTP backends have checks
        assert pool.backend.health_check is not None  # noqa: S101 - `checkers` picks those
        self._backends = backends
        self._pool = pool
        self._backend = pool.backend
        self._check = pool.backend.health_check
        self._streaks = {endpoint.url: _Streak() for endpoint in pool.endpoints}
        self._rng = rng
        self._ahead = ""

    async def run(self) -> None:
        """Check until cancelled, with jitter."""
        while True:
            await self.check_once()
            await asyncio.sleep(self._check.interval_seconds * (0.9 + 0.2 * self._rng()))

    async def check_once(self) -> None:
        """Check every endpoint once."""
        answers = await asyncio.gather(*(self._probe(endpoint) for endpoint in self._pool.endpoints))
        heights: dict[str, int] = {}
        fresh = self._check.freshness
        problems: dict[str, str] = {}
        for endpoint, (problem, body) in zip(self._pool.endpoints, answers, strict=True):
            problems[endpoint.url] = problem
            if not problem and fresh is not None:
                height = height_in(body, fresh.field)
                if height is None:
                    problems[endpoint.url] = f"the check's answer has no block height in {fresh.field}"
                else:
                    heights[endpoint.url] = height
                    self._streaks[endpoint.url].observe(height)
        if fresh is not None:
            problems |= self._behind(heights, fresh.max_behind_blocks)
        for endpoint in self._pool.endpoints:
            result = "failed" if problems[endpoint.url] else "passed"
            relayer_metrics.CHECKS.labels(self._backends.service.id, result).inc()
            self._record_result(endpoint, problems[endpoint.url])

    def _behind(self, heights: dict[str, int], limit: int) -> dict[str, str]:
        advancing = {url for url, streak in self._streaks.items() if streak.still < _STILL_CHECKS}
        ahead = endpoint_ahead(heights, limit, advancing)
        if ahead and ahead != self._ahead:
            _LOG.warning(
                "endpoint is far ahead of the others, its height is not used",
                service=self._backends.service.id,
                endpoint=public_origin(ahead),
                height=heights[ahead],
            )
        self._ahead = ahead
        return endpoints_behind(heights, limit, advancing)

    def _record_result(self, endpoint: BackendEndpoint, problem: str) -> None:
        streak = self._streaks[endpoint.url]
        if problem:
            streak.failures, streak.successes = streak.failures + 1, 0
            if streak.failures >= self._check.unhealthy_threshold:
                endpoint.failed_check = problem
            return
        streak.failures, streak.successes = 0, streak.successes + 1
        if streak.successes >= self._check.healthy_threshold or not endpoint.failed_check:
            endpoint.failed_check = ""
            endpoint.succeeded()

    async def _probe(self, endpoint: BackendEndpoint) -> tuple[str, bytes]:
        check = self._check
        try:
            base = URL(endpoint.url)
            path = (base.path.rstrip("/") or "") + "/" + check.path.lstrip("/")
            target = base.with_path(path) if check.path else base
            headers = self._backends.configured_headers(self._pool)
            if check.body.startswith(("{", "[")):
                headers.setdefault("Content-Type", "application/json")
            async with asyncio.timeout(check.timeout_seconds):
                async with self._backends.http.kept.request(
                    check.method, target, data=check.body or None, headers=headers, allow_redirects=False
                ) as answer:
                    body = b""
                    while len(body) < _ANSWER_BYTES and (chunk := await answer.content.readany()):
                        body += chunk
        except TimeoutError:
            return f"no answer within {check.timeout_seconds:g} s", b""
        except aiohttp.ClientConnectorError as error:
            return f"it cannot be reached ({connection_problem(error.os_error)})", b""
        except (aiohttp.ClientError, OSError, ValueError, Rejected) as error:
            return f"the check failed: {type(error).__name__}", b""
        return check_problem(check, answer.status, body), body


def checkers(backends: ServiceBackends) -> list[PoolChecker]:
    """Return a checker for each pool that declares a health check."""
    return [
        PoolChecker(backends, pool)
        for pool in backends.pools.values()
        if isinstance(pool.backend, Backend) and pool.backend.health_check is not None
    ]
