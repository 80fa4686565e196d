"""Another program answers in the place of Redis, as a proxy whose server is away. It acknowledges and ends nothing."""

import asyncio
import contextlib

import pytest

from doors import Door
from pocket.redis_store.budgets import Budgets, Charge
from pocket.redis_store.connection import connect, inspect
from pocket.redis_store.seals import SealStore, SessionSeal, SignedGroup
from pocket.redis_store.store_errors import RedisStoreError, RedisUnavailable
from pocket.redis_store.stream_reader import StreamReader
from recording import KEYS, confirmed, entries, publishing, record
from servers import running_redis, until

pytestmark = pytest.mark.redis
ANSWERS = {
    "done": b"+OK\r\n",
    "number": b":1\r\n",
    "nothing": b"$-1\r\n",
    "no rows": b"*0\r\n",
    "other rows": b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
    "rows as of a status": b"*2\r\n$4\r\nwell\r\n$1\r\nx\r\n",
    "map": b"%1\r\n+a\r\n:1\r\n",
    "page": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nhello",
    "no protocol": bytes(range(256)),
    "error of a proxy": b"-upstream failure\r\n",
    "redirection without its parts": b"-MOVED\r\n",
    "redirection elsewhere": b"-MOVED abc def\r\n",
}


@contextlib.asynccontextmanager
async def proxied():
    with running_redis() as server:
        async with Door(server.port) as proxy:
            redis = connect(proxy.url, timeout_seconds=0.5)
            try:
                yield proxy, redis
            finally:
                await redis.aclose()


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_relay_is_acknowledged_by_the_id_of_its_entry_only_and_appended_once_redis_is_back(tmp_path, answer):
    async with proxied() as (proxy, redis), publishing(redis, tmp_path) as recorder:
        await recorder.maintain_once()
        proxy.answer = ANSWERS[answer]
        with pytest.raises(RedisUnavailable):
            await recorder.record(record(1))
        with pytest.raises(RedisStoreError):
            await recorder.maintain_once()
        proxy.answer = None

        async def appended():
            with contextlib.suppress(RedisStoreError):
                await recorder.maintain_once()
                return await entries(redis) == [b"relay 1"]

        await until(appended, 20)
        await recorder.record(record(2))


@pytest.mark.parametrize("answer", ANSWERS)
async def test_no_other_answer_is_taken_for_a_charge_or_a_write_of_an_owner(answer):
    async with proxied() as (proxy, redis):
        store, budgets = SealStore(redis, KEYS, "pokt1s", 1), Budgets(redis, KEYS)
        await store.fence(confirmed)
        charging = asyncio.create_task(budgets.run())
        proxy.answer = ANSWERS[answer]
        seal = SessionSeal("one", b"r" * 48, b"d" * 32, 12, 1)
        works = [
            lambda: budgets.charge(Charge("pokt1s", "one", 5, 7, 60, b"0123456789abcdef")),
            lambda: store.fence(confirmed),
            lambda: store.advance_cutoff(10, 13),
            lambda: store.close({"one": 10}),
            lambda: store.seal([seal], {"one": "0-0"}, "10/claim/one", SignedGroup(b"x", 1, 1)),
            lambda: store.finish("one", 10),
            lambda: StreamReader(redis, KEYS, "pokt1s").lost(["one"]),
            lambda: inspect(redis),
        ]
        for work in works:
            with pytest.raises(RedisUnavailable):
                await work()
        assert not charging.done()
        charging.cancel()
