"""Active health checks: expected response, and lag behind the pool."""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from yarl import URL

from pocket.api.services import Backend, HealthCheck
from pocket_relayer import relayer_metrics
from pocket_relayer.backends.pools import BackendEndpoint, Pool
from pocket_relayer.backends.service import ServiceBackends
from pocket_relayer.rejection import Rejected

_ANSWER_BYTES = 1024 * 1024


def height_in(body: bytes, field: str) -> int | None:
    """Return the block height in a response, or None if it holds none."""
    try:
        found = json.loads(body)
        for name in field.split("."):
            found = found[int(name)] if isinstance(found, list) else found[name]
        if isinstance(found, str):
            return int(found, 16) if found.lower().startswith("0x") else int(found)
        return found if isinstance(found, int) and not isinstance(found, bool) else None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def check_problem(check: HealthCheck, status: int, body: bytes) -> str:
    """Return why a response is not the expected one, or an empty text."""
    if status not in check.expect_status if check.expect_status else not 200 <= status < 300:
        return f"the check got status {status}"
    if check.expect_body and check.expect_body.encode() not in body:
        return "the check's answer lacks the expected text"
    return ""


def endpoints_behind(heights: dict[str, int], limit: int) -> dict[str, str]:
    """Return the endpoints over `limit` blocks behind the highest, with the reason."""
    top = max(heights.values(), default=0)
    return {url: f"{top - h} blocks behind" for url, h in heights.items() if top - h > limit}


@dataclass(slots=True)
class _Streak:
    failures: int = 0
    successes: int = 0


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
        if fresh is not None:
            problems |= endpoints_behind(heights, fresh.max_behind_blocks)
        for endpoint in self._pool.endpoints:
            result = "failed" if problems[endpoint.url] else "passed"
            relayer_metrics.CHECKS.labels(self._backends.service.id, result).inc()
            self._record_result(endpoint, problems[endpoint.url])

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
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, Rejected) as error:
            return f"the check failed: {type(error).__name__}", b""
        return check_problem(check, answer.status, body), body


def checkers(backends: ServiceBackends) -> list[PoolChecker]:
    """Return a checker for each pool that declares a health check."""
    return [
        PoolChecker(backends, pool)
        for pool in backends.pools.values()
        if isinstance(pool.backend, Backend) and pool.backend.health_check is not None
    ]
