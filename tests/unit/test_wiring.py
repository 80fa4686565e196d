"""What the programs hand to their parts: clocks, randomness and observers, each to every part that takes one."""

import ast
import inspect
from dataclasses import dataclass

import pytest

from pocket.api.workload import RelayerConfig
from pocket.chain_cache.shared_heights import LatestBlockWatcher
from pocket_miner.process import miner_process
from pocket_miner.suppliers import factory, fleet
from pocket_relayer.backends.http_calls import Clients
from pocket_relayer.process import worker
from pocket_relayer.process.relayer_platform import RelayerPlatform

PROGRAMS = (worker, miner_process, factory, fleet)
CLOCKS = {
    "clock": "clock",
    "wall_clock": "wall_seconds",
    "cpu": "cpu_seconds",
    "unique": "unique",
    "channel": "channel",
}
"""What a part takes under a name → what the platform calls it."""
NOT_NEEDED = {
    ("InvalidationSubscriber", "on_invalidation"),
    ("InvalidationSubscriber", "on_block"),  # a miner reads the blocks itself
}


@dataclass(frozen=True)
class Part:
    """A part that a program builds: what it may be given, and the texts of what it is given."""

    name: str
    takes: frozenset[str]
    given: dict[str, str]


def parts_of(module):
    """Return the parts of the product that a module builds."""
    found = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        made = getattr(module, node.func.id, None)
        if not inspect.isclass(made) or not made.__module__.startswith("pocket") or issubclass(made, Exception):
            continue
        names = list(inspect.signature(made).parameters)
        given = dict(zip(names, node.args, strict=False)) | {row.arg: row.value for row in node.keywords}
        found.append(Part(made.__name__, frozenset(names), {name: ast.unparse(value) for name, value in given.items()}))
    return found


@pytest.mark.parametrize("module", PROGRAMS)
def test_every_part_is_given_the_clock_randomness_and_observers_that_it_takes(module):
    parts = parts_of(module)
    assert parts
    missing = [
        (part.name, name)
        for part in parts
        for name in part.takes - part.given.keys()
        if (name in {*CLOCKS, "rng", "moment"} or name.startswith("on_"))
        and (part.name, name) not in NOT_NEEDED
        and not part.name.endswith("Platform")
    ]
    assert missing == []


@pytest.mark.parametrize("module", PROGRAMS)
def test_a_part_that_takes_a_clock_is_given_that_clock_of_the_platform(module):
    for part in parts_of(module):
        for name in part.given.keys() & CLOCKS.keys():
            assert part.given[name].rpartition(".")[2] == CLOCKS[name], (part.name, name)


async def test_a_worker_compares_its_clock_with_that_of_the_redis_that_it_records_to(monkeypatch, tmp_path):
    """A suspended machine's clock stands still, and old blocks would count as new ones."""
    watchers = []

    class Recorded(Exception):
        """Ends the start of the worker."""

    class Watcher(LatestBlockWatcher):
        def __init__(self, *given):
            super().__init__(*given)
            watchers.append(self)

    def recorder(redis, keys, log, **given):
        log.close()
        raise Recorded(given)

    async def available(*_):
        pass

    monkeypatch.setattr(worker, "RelayRecorder", recorder)
    monkeypatch.setattr(worker, "LatestBlockWatcher", Watcher)
    monkeypatch.setattr(worker, "await_dependencies", available)
    hot = tmp_path / "hot.json"
    hot.write_text('{"services": []}')
    (tmp_path / "relay-log").mkdir()
    config = RelayerConfig.model_validate(
        {
            "name": "trial", "namespace": "default", "prefix": "unit", "redisUrl": "redis://127.0.0.1:1/0",
            "dataDir": tmp_path, "keysDir": tmp_path, "adminPort": 1, "hotFile": hot,
            "chain": {"id": "pocket", "nodes": [{"grpc": "grpc://a:1", "rpc": "http://a:2"}], "blockSeconds": 1},
        }
    )  # fmt: skip
    now = [100.0]
    platform = RelayerPlatform(clock=lambda: now[0], environment={}, backend_http=lambda _: Clients(None, None))
    with pytest.raises(Recorded) as stopped:
        await worker.Worker(config, 0, None, platform)._serve(None)
    (watcher,), given = watchers, stopped.value.args[0]
    given["on_server_time"](5_000.0)
    before = watcher.updated_at
    now[0], later = 101.0, 5_601.0  # ten minutes passed while this machine was suspended
    given["on_server_time"](later)
    assert watcher.updated_at == before - 600.0
