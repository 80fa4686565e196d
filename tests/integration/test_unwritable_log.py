"""A relayer whose write-ahead log takes no writes."""

import shutil

import pytest

from pocket_relayer import relayer_metrics
from relays import KEYS, relaying
from world import address

pytestmark = pytest.mark.redis


async def test_a_relay_that_the_log_did_not_take_is_refunded_and_no_other_accepted_until_it_takes_writes(
    redis, tmp_path
):
    async with relaying(redis, tmp_path) as relayer:
        data, log = relayer.request(), tmp_path / "log" / "w"
        lost = relayer_metrics.NOT_RECORDED.labels("log")._value.get()
        shutil.rmtree(log)
        log.touch()  # where a folder was: no file can be made
        status, _, body = await relayer.send(data)
        assert (status, b"cannot be recorded here" in body) == (503, True)
        assert relayer.recorder.overloaded
        assert (await relayer.send(relayer.request(body=b"2")))[0] == 503
        await relayer.recorder.maintain_once()
        assert "takes no writes" in relayer.recorder.log_problem
        log.unlink()
        log.mkdir()
        assert relayer_metrics.NOT_RECORDED.labels("log")._value.get() == lost + 1
        await relayer.budgets.drain()
        consumed = KEYS.consumed(address("alice"), relayer.header().session_id)
        assert int(await redis.get(consumed)) == 0
        await relayer.recorder.maintain_once()
        assert (await relayer.send(data))[0] == 200, "the same request may be sent again"
        assert len(await relayer.leaves()) == 1
