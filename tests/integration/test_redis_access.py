"""Logins that rotate, certificate authorities, users with the least rights, and statements about durability."""

import asyncio
import contextlib
import dataclasses
import io
import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from doors import Door
from pocket.api.manifests import load_manifests
from pocket.api.redis import Durability, RedisAccess
from pocket.chain_cache.invalidation import publish_invalidation
from pocket.errors import ConfigurationError
from pocket.redis_store.acl import CLUSTER, RELAYS, rules
from pocket.redis_store.budgets import Budgets, Charge, ChargeResult, RateLimiter
from pocket.redis_store.connection import PoolUsage, check_durability, connect, inspect, pool_usage
from pocket.redis_store.store_errors import CommandRejected, RedisNotDurable, RedisTrouble, RedisUnavailable
from pocket_operator.resources.trial_redis import REDIS_OPTIONS
from recording import KEYS, entries, publishing, record
from relayctl.demo import DemoOptions, DemoRunner
from relayctl.local_redis import LocalRedis, Topology
from relayctl.local_stack import LocalStack
from relayctl.main import main
from servers import clients, running_redis, until

pytestmark = pytest.mark.redis
TLS = Path(__file__).resolve().parents[1] / "support/tls"
SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples/trial"
RARE = {"decrby", "del", "exists", "incr", "publish", "zrem"}
"""Commands of full budgets, refunds, rate limits and changed chain records, which a run need not meet."""


@contextlib.asynccontextmanager
async def connected(url, **access):
    redis = connect(url, access=RedisAccess(**access))
    try:
        yield redis
    finally:
        await redis.aclose()


def login(folder, password, user="relays"):
    """Replace the files as the kubelet does: all at once, by a link."""
    made = folder / f"data-{password}"
    made.mkdir()
    (made / "username").write_text(user + "\n")
    (made / "password").write_text(password + "\n")
    link = folder / "new"
    link.symlink_to(made)
    link.rename(folder / "data")
    return {"username_file": str(folder / "data/username"), "password_file": str(folder / "data/password")}


async def test_a_rotated_login_is_used_without_a_restart(tmp_path):
    with running_redis() as server:
        async with clients(server.url) as (administrator,):
            await administrator.execute_command("ACL SETUSER relays on >first ~* &* +@all")
            async with connected(server.url, **login(tmp_path, "first")) as redis:
                await asyncio.gather(*(redis.ping() for _ in range(8)))
                await inspect(redis)
                await administrator.execute_command("ACL SETUSER relays >second")
                login(tmp_path, "second")
                await inspect(redis)
                await administrator.execute_command("ACL SETUSER relays <first")
                await asyncio.gather(*(redis.ping() for _ in range(8)))
                names = [row["user"] for row in await administrator.client_list()]
                assert names.count("relays") <= 16
                await administrator.execute_command("CLIENT KILL USER relays")
                assert await redis.ping()


async def test_every_connection_is_opened_again_once_the_login_changed(tmp_path):
    with running_redis() as server:
        async with clients(server.url) as (administrator,):
            for user in ("one", "two"):
                await administrator.execute_command(f"ACL SETUSER {user} on >{user} ~* &* +@all")
            async with connected(server.url, **login(tmp_path, "one", "one")) as redis:
                await asyncio.gather(*(redis.ping() for _ in range(8)))
                await inspect(redis)
                login(tmp_path, "two", "two")
                await inspect(redis)
                found = await asyncio.gather(*(redis.execute_command("ACL WHOAMI") for _ in range(8)))
                assert set(found) == {"two"}


async def test_used_and_idle_connections_are_counted():
    with running_redis() as server:
        async with connected(server.url) as redis:
            assert pool_usage(redis) == PoolUsage(used=0, idle=0)
            waiting = [asyncio.create_task(redis.blpop("nothing", 0.5)) for _ in range(3)]
            async with asyncio.timeout(5):
                while pool_usage(redis).used < 3:  # noqa: ASYNC110 - there is no event for a connection
                    await asyncio.sleep(0.01)
            await asyncio.gather(*waiting)
            assert pool_usage(redis) == PoolUsage(used=0, idle=3)


async def test_a_login_that_cannot_be_read_is_reported_with_its_file_and_without_a_password(tmp_path):
    with running_redis() as server:
        async with connected(server.url, password_file=str(tmp_path / "missing")) as redis:
            with pytest.raises(RedisUnavailable, match="missing cannot be read") as error:
                await inspect(redis)
            assert error.value.trouble is RedisTrouble.LOGIN


def test_a_login_in_the_url_and_one_in_files_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="credentialsSecretRef") as error:
        connect("redis://user:secret@host", access=RedisAccess(**login(tmp_path, "other")))
    assert "secret@" not in str(error.value)


async def test_redis_is_checked_against_the_bundle_of_certificate_authorities():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "good.pem")
    with running_redis() as server:
        async with Door(server.port, context) as door:
            async with connected(door.url, ca_file=str(TLS / "authority.pem")) as redis:
                assert await redis.ping()
            async with connected(door.url) as redis:
                with pytest.raises(RedisUnavailable, match="certificate"):
                    await redis.ping()


def test_a_bundle_without_tls_is_refused():
    with pytest.raises(ConfigurationError, match="caBundle needs TLS"):
        connect("redis://host", access=RedisAccess(ca_file="x"))


@contextlib.asynccontextmanager
async def silent(*arguments):
    """Yield a Redis whose user may do everything but read INFO, as with some managed services."""
    with running_redis(*arguments) as server:
        async with clients(server.url) as (administrator,):
            await administrator.execute_command("ACL SETUSER relays on >x ~* &* +@all -info")
        yield server, server.url.replace("://", "://relays:x@")


async def test_a_redis_that_does_not_report_its_durability_is_used_once_its_owner_states_it():
    async with silent() as (_, url):
        async with connected(url) as redis:
            with pytest.raises(RedisUnavailable):
                await check_durability(redis, url)
        for stated in Durability:
            async with connected(url, durability=stated) as redis:
                assert (await check_durability(redis, url)).durability is stated


async def test_what_a_redis_reports_itself_outweighs_a_statement_of_an_append_only_file():
    with running_redis("--save", "", "--appendonly", "no") as server:
        for stated in (None, Durability.AOF):
            async with connected(server.url, durability=stated) as redis:
                with pytest.raises(RedisNotDurable, match="append-only"):
                    await check_durability(redis, server.url)
        for stated in (Durability.MANAGED, Durability.NONE):
            async with connected(server.url, durability=stated) as redis:
                await check_durability(redis, server.url)


async def test_a_restart_of_a_redis_that_refuses_info_is_noticed_by_its_connections(tmp_path):
    async with (
        silent("--save", "", "--appendonly", "no") as (server, url),
        connected(url, durability=Durability.NONE) as redis,
        publishing(redis, tmp_path) as recorder,
    ):
        await recorder.record(record(1))
        await recorder.maintain_once()
        before = (await inspect(redis)).history_id
        assert (await inspect(redis)).history_id == before
        server.kill()
        server.start()
        async with clients(server.url) as (administrator,):
            await administrator.execute_command("ACL SETUSER relays on >x ~* &* +@all -info")
        with contextlib.suppress(RedisUnavailable):
            await recorder.maintain_once()
        await recorder.maintain_once()
        assert (await inspect(redis)).history_id != before
        assert await entries(redis) == [b"relay 1"]


def test_the_printed_rights_are_those_of_the_code():
    printed = CliRunner().invoke(main, ["redis", "acl", "--prefix", "shop", "--user", "relayer"])
    assert printed.exit_code == 0
    assert printed.stdout.strip() == " ".join(["ACL SETUSER relayer on", *rules("shop", RELAYS)])
    assert CliRunner().invoke(main, ["redis", "acl", "--prefix", "shop", "--user", "a b"]).exit_code == 1


class RestrictedRedis(LocalRedis):
    """A Redis whose clients log in as a user with the printed rights."""

    def __init__(self, folder, topology, prefix):
        commands = [*RELAYS, *(CLUSTER if topology is Topology.CLUSTER else ())]
        user = ("--user", "relays", "on", ">secret", *rules(prefix, commands))
        super().__init__(folder, topology, options=(*REDIS_OPTIONS, *user))

    @property
    def url(self):
        return super().url.replace("://", "://relays:secret@")

    def denied(self):
        """Return what a server refused to do, and which commands it did."""
        rows, used = [], set()
        for name in self.servers:
            with self.connected(name) as client:
                rows += client.execute_command("ACL LOG")
                used |= {command.removeprefix("cmdstat_") for command in client.info("commandstats")}
        return rows, used


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.timeout(170)
@pytest.mark.parametrize("topology", [Topology.SINGLE, Topology.CLUSTER])
async def test_the_printed_rights_are_enough_for_the_whole_money_path(tmp_path, topology):
    manifests = load_manifests([SAMPLES / "relayminer.yaml", SAMPLES / "suppliers.yaml"])
    stack = LocalStack(tmp_path, manifests, SAMPLES / "genesis.yaml")
    stack.redis = RestrictedRedis(tmp_path / "redis", topology, stack.relay_miner.prefix)
    try:
        await asyncio.to_thread(stack.start)
        runner = DemoRunner(DemoOptions(SAMPLES, tmp_path, sessions=1), Console(file=io.StringIO()))
        assert await runner.run(stack) == []
        assert runner.accounting.settled

        async def all_used():
            rows, used = await asyncio.to_thread(stack.redis.denied)
            assert rows == []
            return set(RELAYS) - used <= RARE

        await until(all_used)  # the miner deletes a session after it has counted it as settled
    finally:
        await asyncio.to_thread(stack.stop)


async def test_the_printed_rights_are_enough_for_budgets_rate_limits_and_invalidations():
    with running_redis() as server:
        async with clients(server.url) as (administrator,):
            await administrator.execute_command("ACL", "SETUSER", "relays", "on", ">x", *rules("unit", RELAYS))
            async with clients(server.url.replace("://", "://relays:x@")) as (redis,):
                budgets = Budgets(redis, KEYS)
                charging = asyncio.create_task(budgets.run())
                charge = Charge("pokt1s", "one", 5, 7, 60, b"0123456789abcdef")
                assert await budgets.charge(charge) is ChargeResult.CHARGED
                other = dataclasses.replace(charge, request_id=b"other 0123456789")
                assert await budgets.charge(other) is ChargeResult.OVER_BUDGET
                budgets.refund(charge)
                await budgets.drain()
                assert await budgets.charge(other) is ChargeResult.CHARGED
                assert await RateLimiter(redis, KEYS, lambda: 0.0).allow("eth", "app", 1)
                assert not await RateLimiter(redis, KEYS, lambda: 0.0).allow("eth", "app", 1)
                assert await publish_invalidation(redis, KEYS, None) == 1
                await redis.zrem(KEYS.cache_known, "x")
                await redis.delete(KEYS.cache("a", "b"))
                charging.cancel()
            assert await administrator.execute_command("ACL LOG") == []
            used = {name.removeprefix("cmdstat_") for name in await administrator.info("commandstats")}
            assert used >= RARE


async def test_a_user_has_no_rights_outside_of_its_prefix():
    with running_redis() as server:
        async with clients(server.url) as (administrator,):
            await administrator.execute_command("ACL", "SETUSER", "relays", "on", ">x", *rules("shop", RELAYS))
        async with clients(server.url.replace("://", "://relays:x@")) as (redis,):
            assert await redis.set("shop:block", 1)
            for command in (("SET", "other:block", 1), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*")):
                with pytest.raises(CommandRejected, match=r"(?i)permissions|NOPERM"):
                    await redis.execute_command(*command)
