"""Fixtures for every tier. Helpers of the tiers are importable by their module name."""

import asyncio.constants
import os
import random
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent
for folder in (HERE / "vectors", HERE / "support", HERE / "simulation", HERE / "cluster", HERE.parent / "scripts"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import loop_guard  # noqa: E402 - after the path is set
from example_counts import USUAL, examples  # noqa: E402 - after the path is set
from pocket.redis_store.connection import connect  # noqa: E402 - after the path is set - the helpers' folders come first
from servers import RedisServer, running_redis  # noqa: E402 - after the path is set
from spread import spread  # noqa: E402 - after the path is set

# In asyncio's debug mode, which every test runs in, each future, task and callback keeps the stack that made it. That
# took a third of the time of all tests, so none is kept: DEBUG_FRAMES=4 shows who made a task that a failure names.
# (The C implementation of futures calls extract_stack without arguments, whose default is the whole stack.)
DEBUG_FRAMES = int(os.environ.get("DEBUG_FRAMES") or 0)
asyncio.constants.DEBUG_STACK_DEPTH = DEBUG_FRAMES
traceback.extract_stack.__defaults__ = (None, DEBUG_FRAMES)


loop_guard.install()


# How long an example takes says how busy the machine is: the first text of a fresh checkout takes seconds.
settings.register_profile(
    "untimed", max_examples=examples(USUAL), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


# Who starts a process says so by a marker: `make unit` leaves these out, and is quick because nothing else starts any.
MAY_START_PROCESSES = ("redis", "processes", "browser", "cluster", "e2e", "realchain")
_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec"}
_unmarked: list[str] = []


def _refuse_processes(event: str, _: object = ()) -> None:
    if _unmarked and event in _STARTS:
        raise RuntimeError(f"{_unmarked[0]} starts a process ({event}): mark it with pytest.mark.processes")


def _refusing_start(self: BaseProcess, start: Callable[[BaseProcess], None] = BaseProcess.start) -> None:
    _refuse_processes("os.spawn")
    start(self)


sys.addaudithook(_refuse_processes)
BaseProcess.start = _refusing_start  # type: ignore[method-assign]  # its spawning raises no audit event


_LONG_TIMEOUT_SECONDS = 180


def _estimated_seconds(item: pytest.Item) -> float:
    """Estimate a test by what it starts, 0 for a short one."""
    own = item.get_closest_marker("timeout")
    if own is not None and own.args and own.args[0] > _LONG_TIMEOUT_SECONDS:
        return 8.0
    if item.get_closest_marker("processes"):
        return 0.2 if "tests/unit" in item.nodeid else 4.0
    return 0.4 if item.get_closest_marker("redis") else 0.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers > 1:
        items[:] = spread(items, workers, lambda item: item.nodeid.partition("::")[0], _estimated_seconds)


@pytest.fixture
def captured_logs() -> Iterator[list[structlog.typing.EventDict]]:
    """Capture the events that our programs log, with their fields and bound context."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as events:
        yield events


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not any(item.get_closest_marker(name) for name in MAY_START_PROCESSES):
        _unmarked.append(item.nodeid)
    try:
        return (yield)
    finally:
        _unmarked.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    loop_guard.found.clear()
    try:
        return (yield)
    finally:
        blocked, loop_guard.found[:] = sorted(set(loop_guard.found)), []
        if blocked and sys.exception() is None:
            pytest.fail("on the event loop, where it holds up everything else:\n" + "\n".join(blocked), pytrace=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "redis_process" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("redis"):
        pytest.fail("it needs Redis: mark it with pytest.mark.redis", pytrace=False)


@pytest.fixture
def seeded_bytes() -> Callable[[int], bytes]:
    """Return repeatable bytes in place of secrets.token_bytes."""
    return random.Random(20260101).randbytes


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    """One Redis for the tests that leave it running."""
    with running_redis() as server:
        yield server


@pytest.fixture
async def redis(redis_process: RedisServer) -> AsyncIterator[object]:
    """Yield a client of an emptied Redis."""
    client = connect(redis_process.url)
    await client.flushall()
    try:
        yield client
    finally:
        await client.aclose()
