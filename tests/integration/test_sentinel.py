"""A Redis that real Sentinels watch: fail-over by hand, a killed primary, and Sentinels that are away."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from pocket.errors import ConfigurationError
from pocket.redis_store.connection import connect, inspect, redact_url
from pocket.redis_store.relay_recorder import RecorderLimits
from pocket.redis_store.sentinel import NamedPrimary, chosen
from pocket.redis_store.store_errors import RedisUnavailable
from recording import entries, publishing, record
from relayctl.local_ports import free_port
from relayctl.local_redis import redis_server
from servers import clients, running_redis, until, wait_for_port

pytestmark = pytest.mark.redis
SERVICE = "relays"


class Sentinels:
    """Three Sentinels with a quorum of two over a primary and its replica."""

    def __init__(self, folder: Path, primary: int) -> None:
        self._folder = folder
        self._primary = primary
        self.ports = [free_port() for _ in range(3)]
        self.children: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        for port in self.ports:
            file = self._folder / f"sentinel-{port}.conf"
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 1000\n"
                f"sentinel failover-timeout {SERVICE} 3000\n"
            )
            self.children.append(
                await asyncio.create_subprocess_exec(
                    redis_server(), str(file), "--sentinel", stdout=asyncio.subprocess.DEVNULL
                )
            )
        for port in self.ports:
            await asyncio.to_thread(wait_for_port, port)

    async def stop(self) -> None:
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/{SERVICE}"


@contextlib.asynccontextmanager
async def watched(tmp_path):
    """Yield the Sentinels, a primary and its replica once each Sentinel knows all of them."""
    with running_redis() as old, running_redis() as new:
        async with clients(new.url) as (follower,):
            await follower.replicaof("127.0.0.1", old.port)

            async def follows():
                return (await follower.info("replication")).get("master_link_status") == "up"

            await until(follows)  # Sentinels look for replicas when they start, and then every ten seconds
        sentinels = Sentinels(tmp_path, old.port)
        try:
            await sentinels.start()
            for port in sentinels.ports:
                async with clients(f"redis://127.0.0.1:{port}") as (sentinel,):
                    with contextlib.suppress(ResponseError):  # Redis 6 keeps periods of two to ten seconds
                        await sentinel.execute_command(
                            "SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "200"
                        )

                    async def complete(sentinel=sentinel):
                        state = (await sentinel.sentinel_masters())[SERVICE]
                        return state["num-slaves"] == 1 and state["num-other-sentinels"] == 2

                    await until(complete)
            yield sentinels, old, new
        finally:
            await sentinels.stop()


async def test_commands_follow_the_primary_when_the_sentinels_name_another(tmp_path):
    async with watched(tmp_path) as (sentinels, _, new), clients(sentinels.url) as (redis,):
        await asyncio.gather(*(redis.set(f"before-{n}", n) for n in range(8)))

        async def replicated():
            return await redis.wait(1, 1000) == 1

        await until(replicated)
        former = (await inspect(redis)).history_id
        async with clients(f"redis://127.0.0.1:{sentinels.ports[0]}") as (sentinel,):
            await sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)

        async def followed():
            """Sentinels demote the former primary a moment after they promoted its replica."""
            with contextlib.suppress(RedisUnavailable):
                await redis.set("after", 1)
                return (await inspect(redis)).history_id != former

        await until(followed)
        assert await redis.set("after", 2)
        async with clients(new.url) as (second,):
            assert await second.get("after") == b"2"


async def test_no_acknowledged_relay_is_lost_when_the_primary_dies(tmp_path):
    async with watched(tmp_path) as (sentinels, old, new), clients(sentinels.url) as (redis,):
        limits = RecorderLimits(linger_seconds=0, append_timeout_seconds=60.0)
        (tmp_path / "log").mkdir()
        async with publishing(redis, tmp_path / "log", limits) as recorder:
            acknowledged: list[int] = []
            stop = asyncio.Event()

            async def serve() -> None:
                number = 0
                while not stop.is_set():
                    await recorder.record(record(number))
                    acknowledged.append(number)
                    number += 1

            async with asyncio.TaskGroup() as group:
                group.create_task(serve())

                async def some(least):
                    async def enough():
                        return len(acknowledged) >= least

                    await until(enough)

                await some(50)
                old.kill()
                await some(len(acknowledged) + 50)
                stop.set()
            await recorder.maintain_once()
            assert recorder.counters.failed == 0
            async with clients(new.url) as (second,):
                stored = set(await entries(second))
            assert {f"relay {number}".encode() for number in acknowledged} <= stored


async def test_a_sentinel_that_names_another_primary_than_the_others_is_not_believed(tmp_path):
    async with watched(tmp_path) as (sentinels, old, _):
        with running_redis() as stranger:
            async with clients(f"redis://127.0.0.1:{sentinels.ports[0]}") as (sentinel,):
                await sentinel.execute_command("SENTINEL", "REMOVE", SERVICE)
                await sentinel.execute_command("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", stranger.port, 2)
            async with clients(sentinels.url, old.url, stranger.url) as (redis, primary, other):
                await redis.set("key", 1)
                assert await primary.get("key") == b"1"
                assert await other.get("key") is None


OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ([], None),
        ([(OLD, 1)], OLD),
        ([(OLD, 1), (NEW, 2), (NEW, 2)], NEW),
        ([(OLD, 9), (NEW, 2), (NEW, 2)], NEW),
        ([(OLD, 1), (NEW, 2)], NEW),
        ([(NEW, 2), (OLD, 1)], NEW),
    ],
)
def test_the_primary_is_that_of_most_sentinels_and_then_of_the_latest_fail_over(named, address):
    assert chosen([NamedPrimary(*row) for row in named]) == address


async def test_sentinels_that_do_not_know_the_service_are_an_outage_that_names_no_password(tmp_path):
    async with watched(tmp_path) as (sentinels, _, _):
        url = sentinels.url.replace("://", "://user:secret@") + "-other"
        async with clients(url) as (redis,):
            with pytest.raises(Exception, match="No master found") as error:
                await redis.ping()
        assert "secret" not in str(error.value)
        assert "secret" not in redact_url(url)


async def test_one_sentinel_that_is_away_does_not_matter(tmp_path):
    async with watched(tmp_path) as (sentinels, _, _):
        sentinels.children[0].kill()
        await sentinels.children[0].wait()
        async with clients(sentinels.url) as (redis,):
            assert await redis.set("key", 1)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://host:26379",
        "redis+sentinel://:26379/service",
        "redis+sentinel://a,/s",
        "redis+sentinel://a:70000/s",
        "redis+sentinel://a/s/x",
        "redis+sentinel://a/s?other=1",
    ],
)
def test_an_invalid_url_is_refused_and_not_quoted(url):
    with pytest.raises(ConfigurationError, match="sentinel") as error:
        connect(url)
    assert url not in str(error.value)
