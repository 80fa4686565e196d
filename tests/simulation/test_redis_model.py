"""The model of Redis is held to the real server: the same commands, the same replies."""

import random
import re

import pytest
from redis.exceptions import NoScriptError, ResponseError
from simulated.redis_model import Model

from pocket.redis_store import budgets, lua_scripts

pytestmark = pytest.mark.redis
KEYS = [b"k1", b"k2", b"k3"]
FIELDS = [b"a", b"b", b"c"]
STREAM_ID = re.compile(rb"^[0-9]{13}-[0-9]+$")


def drawn(chance):
    """Draw a command that the project uses, on few keys so that commands meet."""
    key, name, number = chance.choice(KEYS), chance.choice(FIELDS), b"%d" % chance.randint(-3, 9)
    low, high = sorted((chance.randint(0, 5), chance.randint(0, 5)))
    return chance.choice(
        [
            (b"GET", b"s" + key),
            (b"SET", b"s" + key, number),
            (b"SET", b"s" + key, number, b"NX"),
            (b"SET", b"s" + key, number, b"PX", b"100000"),
            (b"INCR", b"s" + key),
            (b"INCRBY", b"s" + key, number),
            (b"DECRBY", b"s" + key, number),
            (b"DEL", b"s" + key),
            (b"UNLINK", b"h" + key, b"x" + key),
            (b"EXISTS", b"s" + key, b"h" + key),
            (b"EXPIRE", b"h" + key, b"1000"),
            (b"HSET", b"h" + key, name, number),
            (b"HSET", b"h" + key, b"a", number, b"b", b"2"),
            (b"HSETNX", b"h" + key, name, number),
            (b"HGET", b"h" + key, name),
            (b"HMGET", b"h" + key, *FIELDS),
            (b"HDEL", b"h" + key, name, b"c"),
            (b"HEXISTS", b"h" + key, name),
            (b"HLEN", b"h" + key),
            (b"HGETALL", b"h" + key),
            (b"HKEYS", b"h" + key),
            (b"ZADD", b"z" + key, number, name),
            (b"ZREM", b"z" + key, name),
            (b"ZRANGE", b"z" + key, b"0", b"-1"),
            (b"ZRANGE", b"z" + key, b"%d" % low, b"%d" % high),
            (b"ZREVRANGE", b"z" + key, b"0", b"1"),
            (b"ZREMRANGEBYSCORE", b"z" + key, b"-inf", number),
            (b"XADD", b"x" + key, b"*", b"r", number),
            (b"XADD", b"x" + key, b"MAXLEN", b"3", b"*", b"r", number),
            (b"XREVRANGE", b"x" + key, b"+", b"-", b"COUNT", b"1"),
            (b"XREVRANGE", b"x" + key, b"+", b"-"),
            (b"XREAD", b"COUNT", b"2", b"STREAMS", b"x" + key, b"xk1", b"0-0", b"0-0"),
            (b"HGET", b"s" + key, name),
            (b"GET", b"h" + key),
            (b"XADD", b"h" + key, b"*", b"r", b"1"),
        ]
    )


def plain(reply):
    """Return a reply without what differs between servers: ids, order in hashes, error texts."""
    if isinstance(reply, list):
        return [plain(row) for row in reply]
    return b"ID" if isinstance(reply, bytes) and STREAM_ID.match(reply) else reply


async def real(redis, row):
    connection = await redis.connection_pool.get_connection()
    try:
        await connection.send_command(*row)
        return await connection.read_response()
    except ResponseError as error:
        return type(error).__name__
    finally:
        await redis.connection_pool.release(connection)


def modelled(model, row):
    try:
        return model.execute(row)
    except ResponseError as error:
        return type(error).__name__


@pytest.mark.parametrize("seed", range(8))
async def test_the_model_answers_as_a_redis_server_does(redis, seed):
    chance, model = random.Random(seed), Model(lambda: 1_800_000_000.0)
    for _ in range(400):
        row = drawn(chance)
        theirs, ours = await real(redis, row), modelled(model, row)
        if row[0] in (b"HGETALL", b"HKEYS") and isinstance(theirs, list):
            theirs, ours = sorted(theirs), sorted(ours)
        assert plain(ours) == plain(theirs), row


SOURCES = [
    (
        lua_scripts.APPEND_SOURCE,
        [b"closed", b"sessions", b"life", b"cutoff", b"xone", b"xtwo"],
        [b"fresh", b"one", b"header", b"10", b"2", b"relay1", b"relay2", b"two", b"header", b"5", b"1", b"relay3"],
    ),
    (
        lua_scripts.APPEND_SOURCE,
        [b"closed", b"sessions", b"life", b"cutoff", b"xthree"],
        [b"fresh", b"three", b"header", b"10", b"1", b"relay1"],
    ),
    (
        lua_scripts.STATES_SOURCE,
        [b"life", b"closed", b"sessions", b"xone", b"xtwo", b"xthree", b"xfour"],
        [b"one", b"two", b"three", b"four"],
    ),
    (lua_scripts.LIFE_SOURCE, [b"life"], [b"fresh"]),
    (lua_scripts.FENCE_SOURCE, [b"fence", b"life"], [b"3", b"fresh"]),
    (lua_scripts.FENCE_SOURCE, [b"fence", b"life"], [b"2", b"fresh"]),
    (lua_scripts.FENCE_SOURCE, [b"fence", b"life"], [b"4", b"other"]),
    (lua_scripts.CUTOFF_SOURCE, [b"fence", b"cutoff"], [b"3", b"8", b"20"]),
    (
        lua_scripts.CLOSE_SOURCE,
        [b"fence", b"closed", b"xone", b"xtwo"],
        [b"3", b"", b"one", b"sealed", b"two", b"sealed"],
    ),
    (lua_scripts.CLOSE_SOURCE, [b"fence", b"closed", b"xone"], [b"4", b"", b"one", b"sealed"]),
    (
        lua_scripts.SEAL_SOURCE,
        [b"fence", b"closed", b"seals", b"tx", b"xone"],
        [b"3", b"g", b"t", b"one", b"0-0", b"seal"],
    ),
    (
        lua_scripts.SEAL_SOURCE,
        [b"fence", b"closed", b"seals", b"tx", b"xnone"],
        [b"3", b"g", b"t", b"one", b"0-0", b"seal"],
    ),
    (
        lua_scripts.FINISH_SOURCE,
        [b"fence", b"closed", b"sessions", b"seals", b"replicated", b"xone"],
        [b"3", b"one", b"done/1"],
    ),
    (budgets._CHARGE.source, [b"used", b"bucket"], [b"60", b"100", b"1000", b"id1"]),
    (budgets._CHARGE.source, [b"used", b"bucket"], [b"60", b"100", b"1000", b"id2"]),
    (budgets._CHARGE.source, [b"used", b"bucket"], [b"60", b"100", b"1000", b"id1"]),
    (budgets._REFUND.source, [b"used", b"bucket"], [b"60", b"id1"]),
]


async def test_the_model_runs_our_scripts_as_a_redis_server_does(redis):
    chance, model = random.Random(1), Model(lambda: 1_800_000_000.0)
    for turn in range(300):
        source, keys, arguments = SOURCES[turn] if turn < len(SOURCES) else chance.choice(SOURCES)
        row = (b"EVAL", source.encode(), b"%d" % len(keys), *keys, *arguments)
        assert plain(modelled(model, row)) == plain(await real(redis, row)), (turn, arguments)


def test_a_script_that_the_model_forgot_is_asked_for():
    model = Model(lambda: 0.0)
    model.execute((b"EVAL", b"return 1", b"0"))
    digest = lua_scripts._digest("return 1").encode()
    assert model.execute((b"EVALSHA", digest, b"0")) == 1
    model.forget_scripts()
    with pytest.raises(NoScriptError):
        model.execute((b"EVALSHA", digest, b"0"))
