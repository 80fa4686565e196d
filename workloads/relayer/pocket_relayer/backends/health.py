"""Active checks of endpoints: expected answer, and chain height beside the others of the pool."""

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
    """The block height that an answer holds; None where there is none."""
    try:
        found = json.loads(body)
        for name in field.split("."):
            found = found[int(name)] if isinstance(found, list) else found[name]
        if isinstance(found, str):
            return int(found, 16) if found.lower().startswith("0x") else int(found)
        return found if isinstance(found, int) and not isinstance(found, bool) else None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def problem_with(check: HealthCheck, status: int, body: bytes) -> str:
    """Why an answer is not the expected one; empty if it is."""
    if status not in check.expect_status if check.expect_status else not 200 <= status < 300:
        return f"the check got status {status}"
    if check.expect_body and check.expect_body.encode() not in body:
        return "the check's answer lacks the expected text"
    return ""


def behind(heights: dict[str, int], most: int) -> dict[str, str]:
    """Endpoints more than `most` blocks behind the highest one, with the reason."""
    top = max(heights.values(), default=0)
    return {url: f"{top - h} blocks behind" for url, h in heights.items() if top - h > most}


@dataclass(slots=True)
class _Streak:
    failures: int = 0
    successes: int = 0


class PoolChecker:
    """Checks the endpoints of one pool."""

    def __init__(self, backends: ServiceBackends, pool: Pool, chance: Callable[[], float] = random.random) -> None:
        assert isinstance(pool.backend, Backend)  # noqa: S101 - only HTTP backends have checks
        assert pool.backend.health_check is not None  # noqa: S101 - `checkers` picks those
        self._backends = backends
        self._pool = pool
        self._backend = pool.backend
        self._check = pool.backend.health_check
        self._streaks = {endpoint.url: _Streak() for endpoint in pool.endpoints}
        self._chance = chance

    async def run(self) -> None:
        """Checks until cancelled, with some jitter."""
        while True:
            await self.once()
            await asyncio.sleep(self._check.interval_seconds * (0.9 + 0.2 * self._chance()))

    async def once(self) -> None:
        """Looks at every endpoint once."""
        answers = await asyncio.gather(*(self._ask(endpoint) for endpoint in self._pool.endpoints))
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
            problems |= behind(heights, fresh.max_behind_blocks)
        for endpoint in self._pool.endpoints:
            result = "failed" if problems[endpoint.url] else "passed"
            relayer_metrics.CHECKS.labels(self._backends.service.id, result).inc()
            self._judge(endpoint, problems[endpoint.url])

    def _judge(self, endpoint: BackendEndpoint, problem: str) -> None:
        streak = self._streaks[endpoint.url]
        if problem:
            streak.failures, streak.successes = streak.failures + 1, 0
            if streak.failures >= self._check.unhealthy_threshold:
                endpoint.down = problem
            return
        streak.failures, streak.successes = 0, streak.successes + 1
        if streak.successes >= self._check.healthy_threshold or not endpoint.down:
            endpoint.down = ""
            endpoint.succeeded()

    async def _ask(self, endpoint: BackendEndpoint) -> tuple[str, bytes]:
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
        return problem_with(check, answer.status, body), body


def checkers(backends: ServiceBackends) -> list[PoolChecker]:
    """One for each pool that declares a health check."""
    return [
        PoolChecker(backends, pool)
        for pool in backends.pools.values()
        if isinstance(pool.backend, Backend) and pool.backend.health_check is not None
    ]
