"""A miner's name among the others: stable with its volume, never shared, so its own shards come back at once."""

import errno
import json
import shutil
import tempfile
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from pocket.api.workload import MinerConfig
from pocket.coordination import elector
from pocket.coordination.elector import member_location, timing_for_blocks
from pocket.coordination.lease_names import LeaseNames
from pocket.coordination.shard_leases import ShardLeaseManager
from pocket.errors import ConfigurationError
from pocket.platform import Platform
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.redis_leases import RedisLeaseStore
from pocket_miner.ownership.ownership import identity_of, peer_urls, serves_peers
from pocket_miner.storage.volume import lock, member_name

pytestmark = pytest.mark.redis
SHARDS = 4
TIMING = timing_for_blocks(30.0)


class Acting:
    def __init__(self):
        self.epochs = {}

    async def known_epoch(self, shard):
        return 0

    async def on_acquired(self, shard, epoch):
        self.epochs[shard] = epoch

    async def on_lost(self, shard):
        self.epochs.pop(shard, None)


class Process:
    """A miner's process as far as it shares: with the lock of its volume, the real elector and Leases in Redis."""

    def __init__(self, redis, folder, now, port=9090):
        self.folder, self.owner = folder, Acting()
        self.lock = lock(folder)
        config = MinerConfig.model_validate(
            {
                "name": "m", "namespace": "n", "prefix": "names", "redisUrl": "redis://h", "keysDir": "/k",
                "dataDir": str(folder), "adminHost": "127.0.0.1", "adminPort": port,
                "chain": {"id": "pocket", "nodes": [{"grpc": "grpc://n:1", "rpc": "http://n:2"}], "blockSeconds": 30},
            }
        )  # fmt: skip
        self.config = config
        store = RedisLeaseStore(redis, RedisKeys("names").leases, call_seconds=5)
        self.keeper = ShardLeaseManager(
            store, LeaseNames("miners", SHARDS), identity_of(config, member_name(folder), Platform()), self.owner,
            TIMING,
            clock=lambda: now[0], wall_clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    async def ticks(self, number=2):
        for _ in range(number):
            await self.keeper.tick()
        return dict(self.owner.epochs)

    def kill(self):
        """SIGKILL: the kernel releases the lock, nobody the Leases."""
        self.lock.release()


async def test_a_miner_that_was_killed_takes_its_own_shards_back_at_once_under_higher_epochs(redis, tmp_path):
    now = [1000.0]
    first = Process(redis, tmp_path / "a", now)
    before = await first.ticks()
    assert set(before) == set(range(SHARDS))
    for start in range(3):
        first.kill()
        first = Process(redis, tmp_path / "a", now, port=9100 + start)  # wherever it listens now
        after = await first.ticks()
        assert set(after) == set(range(SHARDS)), "the clock stands still: it waits for nobody"
        assert all(after[shard] > before[shard] for shard in range(SHARDS))
        before = after


async def test_a_miner_of_another_volume_waits_though_it_has_the_same_address(redis, tmp_path):
    now = [1000.0]
    first, second = Process(redis, tmp_path / "a", now), Process(redis, tmp_path / "b", now)
    await first.ticks()
    assert await second.ticks() == {}, "it takes nothing from a miner that lives"
    assert set(await first.ticks(1)) != set(), "and the other one gives up its half"
    first.kill()
    assert set(await second.ticks(1)) < set(range(SHARDS))
    now[0] += TIMING.lease + 0.1
    assert set(await second.ticks()) == set(range(SHARDS))


async def test_a_former_process_that_lives_on_finds_its_shards_lost(redis, tmp_path):
    """Frozen with its machine, or cut off: the newer process of the same name has the higher epochs."""
    now = [1000.0]
    first = Process(redis, tmp_path / "a", now)
    await first.ticks()
    first.kill()
    second = Process(redis, tmp_path / "a", now)
    held = await second.ticks()
    await first.keeper._read()
    await first.keeper._drop_lost()
    assert first.owner.epochs == {}
    assert await second.ticks(1) == held


async def test_peers_are_found_where_they_listen_whatever_they_are_called(redis, tmp_path):
    now = [1000.0]
    first, second = Process(redis, tmp_path / "a", now, 9001), Process(redis, tmp_path / "b", now, 9002)
    await first.ticks()
    await second.ticks()
    await first.ticks(1)
    assert peer_urls(first.config, first.keeper) == ["http://127.0.0.1:9002"]
    assert peer_urls(second.config, second.keeper) == ["http://127.0.0.1:9001"]
    first.kill()
    first = Process(redis, tmp_path / "a", now, 9003)
    await first.ticks()
    assert peer_urls(first.config, first.keeper) == ["http://127.0.0.1:9002"], "not its own former process"


def test_a_volume_keeps_its_name_and_a_copy_of_it_gets_another(tmp_path):
    original, copy, moved = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    original.mkdir()
    name = member_name(original)
    assert member_name(original) == name
    assert [path.name for path in original.iterdir()] == ["member.json"]
    shutil.copytree(original, copy)
    assert member_name(copy) not in (name, "")
    assert member_name(copy) == member_name(copy)
    original.rename(moved)
    assert member_name(moved) == name


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"name": 5, "inode": 1}', "\0\0\0", '{"name": "a_b"}'])
def test_a_name_that_cannot_be_read_is_made_again(tmp_path, content):
    (tmp_path / "member.json").write_text(content)
    name = member_name(tmp_path)
    assert member_name(tmp_path) == name


def test_a_name_that_could_split_an_identity_is_not_taken(tmp_path):
    path = tmp_path / "member.json"
    path.write_text("x")
    path.write_text(json.dumps({"name": "other_pod", "inode": path.stat().st_ino}))
    assert "_" not in member_name(tmp_path)


def test_a_full_volume_keeps_no_miner_from_starting(tmp_path, monkeypatch, captured_logs):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    assert member_name(tmp_path, lambda: "0" * 16) == "0" * 16
    assert "free up space on it" in str(captured_logs)


async def test_no_two_processes_have_the_name_of_one_volume(redis, tmp_path):
    first = Process(redis, tmp_path / "a", [0.0])
    with pytest.raises(ConfigurationError, match="held by process"):
        Process(redis, tmp_path / "a", [0.0])
    first.kill()
    Process(redis, tmp_path / "a", [0.0]).kill()


def test_in_kubernetes_the_name_is_the_pods_and_a_new_pod_of_the_name_has_another_place(monkeypatch, tmp_path):
    config = MinerConfig.model_construct(lease="main-miner", admin_host="0.0.0.0", admin_port=9090)
    monkeypatch.setenv("POD_NAME", "main-miner-0")
    seen = set()
    for uid in ("uid-1", "uid-2"):
        monkeypatch.setenv("POD_UID", uid)
        identity = identity_of(config, "volume", Platform())
        assert (elector.member_name(identity), member_location(identity)) == ("main-miner-0", uid)
        seen.add(identity)
    assert len(seen) == 2
    outside = MinerConfig.model_construct(lease=None, admin_host="my_host", admin_port=9090)
    identity = identity_of(outside, "volume", Platform())
    assert (elector.member_name(identity), member_location(identity)) == ("volume", "my_host:9090")


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_outside_of_kubernetes_a_miner_on_a_wildcard_address_serves_no_peers(host):
    outside = MinerConfig.model_construct(lease=None, admin_host=host, admin_port=9091)
    assert not serves_peers(outside)
    assert serves_peers(outside.model_copy(update={"lease": "main-miner"})), "its peers use the pod's name"
    reachable = outside.model_copy(update={"admin_host": "10.0.0.5"})
    assert serves_peers(reachable)
    members = [identity_of(config, name, Platform()) for name, config in (("a", outside), ("b", reachable))]
    keeper = SimpleNamespace(identity="me_x_y", recent_members=members)
    assert peer_urls(outside, keeper) == ["http://10.0.0.5:9091"]
