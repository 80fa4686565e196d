"""What Redis answers is classified by its code, and only a positive answer says that it is configured badly."""

import pytest
from redis._parsers.base import BaseParser
from redis.asyncio.connection import Connection

from pocket.errors import ConfigurationError
from pocket.redis_store.connection import Generation, connect
from pocket.redis_store.redis_errors import code_of, translate, trouble_of
from pocket.redis_store.server_info import read_info
from pocket.redis_store.store_errors import RedisTrouble, RedisUnavailable

GOOD = {
    "run_id": "r", "master_replid": "m", "aof_enabled": 1, "maxmemory_policy": "noeviction", "role": "master",
    "loading": 0, "used_memory": 5, "maxmemory": 10, "uptime_in_seconds": 3, "server_time_usec": 4,
}  # fmt: skip
IN_SCRIPT = "Error running script (call to f_ab): @user_script:7: @user_script: 7:"
ANSWERS = {
    "LOADING Redis is loading the dataset in memory": RedisTrouble.LOADING,
    "READONLY You can't write against a read only replica.": RedisTrouble.REPLICA,
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": RedisTrouble.REPLICA,
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": RedisTrouble.BUSY,
    "TRYAGAIN Multiple keys request during rehashing of slot": RedisTrouble.BUSY,
    "NOREPLICAS Not enough good replicas to write.": RedisTrouble.BUSY,
    "NOAUTH Authentication required.": RedisTrouble.LOGIN,
    "WRONGPASS invalid username-password pair or user is disabled.": RedisTrouble.LOGIN,
    "NOPERM this user has no permissions to run the 'evalsha' command": RedisTrouble.REJECTED,
    "OOM command not allowed when used memory > 'maxmemory'.": RedisTrouble.OUT_OF_MEMORY,
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist": RedisTrouble.DISK,
    f"ERR {IN_SCRIPT} -READONLY You can't write against a read only replica.": RedisTrouble.REPLICA,
    f"ERR {IN_SCRIPT} -OOM command not allowed when used memory > 'maxmemory'.": RedisTrouble.OUT_OF_MEMORY,
    "ERR unknown command 'NONSENSE'": RedisTrouble.REJECTED,
    "BUSYGROUP Consumer Group name already exists": RedisTrouble.REJECTED,
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_classified_by_its_code_also_within_a_script(answer):
    assert trouble_of(BaseParser.parse_error(answer)) is ANSWERS[answer]


@pytest.mark.parametrize("error", [OSError("refused"), TimeoutError(), ConnectionResetError("reset")])
def test_what_is_no_answer_is_an_unreachable_redis_that_may_come_back(error):
    told = translate(error)
    assert (code_of(error), told.trouble) == ("", RedisTrouble.UNREACHABLE)
    assert told.trouble.is_transient
    assert type(error).__name__ in str(told) or str(error) in str(told)


def test_only_what_somebody_has_to_change_does_not_pass_by_itself():
    lasting = {trouble for trouble in RedisTrouble if not trouble.is_transient}
    assert lasting == {RedisTrouble.OUT_OF_MEMORY, RedisTrouble.DISK, RedisTrouble.REJECTED}


def test_a_ready_primary_is_described():
    info = read_info(GOOD)
    assert (info.history_id, info.append_only, info.memory_ratio(), info.problem()) == ("r/m", True, 0.5, None)
    assert "Set appendonly yes" in read_info({**GOOD, "aof_enabled": 0}).problem()
    assert "noeviction" in read_info({**GOOD, "maxmemory_policy": "allkeys-lru"}).problem()


@pytest.mark.parametrize(
    ("changes", "trouble", "text"),
    [
        ({"loading": 1, "aof_enabled": 0}, RedisTrouble.LOADING, "loading its data file"),
        ({"loading": 1, "role": "slave"}, RedisTrouble.LOADING, "loading its data file"),
        ({"role": "slave", "master_host": "10.0.0.7", "master_port": 6379}, RedisTrouble.REPLICA,
         r"replica \(role:slave\) of 10\.0\.0\.7:6379: point spec\.redis at the primary"),
        ({"role": "slave", "aof_enabled": 0}, RedisTrouble.REPLICA, "replica"),
    ],
)  # fmt: skip
def test_a_redis_that_loads_or_follows_another_is_waited_for_whatever_settings_it_reports(changes, trouble, text):
    with pytest.raises(RedisUnavailable, match=text) as caught:
        read_info({**GOOD, **changes})
    assert caught.value.trouble is trouble


@pytest.mark.parametrize("missing", ["aof_enabled", "run_id"])
def test_an_answer_without_the_settings_is_no_evidence_of_wrong_ones(missing):
    with pytest.raises(RedisUnavailable, match="allow INFO to its user"):
        read_info({key: value for key, value in GOOD.items() if key != missing})


def test_connections_are_condemned_once_for_all_and_at_most_once_a_second():
    now = [100.0]
    generation = Generation(lambda: now[0])
    assert generation.condemn(0)
    assert generation.number == 1
    assert generation.condemn(0), "another connection of the old generation: the next is newer already"
    assert generation.number == 1
    assert not generation.condemn(1), "a new connection met a replica, too: the address is a replica's"
    now[0] += 1.0
    assert generation.condemn(1)
    assert generation.number == 2


def test_every_connection_of_a_client_knows_the_generation_of_its_pool():
    pool = connect("rediss://h:1/0").connection_pool
    made = pool.make_connection()
    assert isinstance(made, Connection)
    assert made._generations is pool.generation


@pytest.mark.parametrize(
    "url",
    [f"redis://h/0?{option}=1" for option in ("decode_responses", "encoding", "foo", "retry", "ssl_cert_reqs")]
    + ["rediss://h/0?transport=1", "redis+sentinel://h/main/0?protocol=3"],
)
def test_an_option_that_is_the_clients_own_or_unknown_to_it_makes_a_url_invalid(url):
    """It would change what answers are, or end each connection with a TypeError."""
    with pytest.raises(ConfigurationError, match="Options are db, username"):
        connect(url)


async def test_options_of_the_login_and_of_tls_are_taken():
    for url in (
        "redis://h/0?db=3&client_name=a&socket_timeout=3",
        "rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=false",
    ):
        await connect(url).aclose()
