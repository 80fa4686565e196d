"""Work for many rows at the same time, within a bound."""

import asyncio

import pytest

from pocket.runtime.concurrency import map_bounded


async def test_results_are_in_the_order_of_the_rows_and_no_more_run_at_once_than_allowed():
    running, most = set(), [0]

    async def work(row):
        running.add(row)
        most[0] = max(most[0], len(running))
        for _ in range(row % 4):
            await asyncio.sleep(0)
        running.remove(row)
        return -row

    assert await map_bounded(work, range(20), 3) == [-row for row in range(20)]
    assert most == [3]
    assert await map_bounded(work, [], 3) == []


async def test_an_error_is_raised_after_all_rows_were_tried():
    tried = []

    async def work(row):
        tried.append(row)
        if row in (2, 4):
            raise ValueError(row)

    with pytest.raises(ValueError, match="2"):
        await map_bounded(work, range(6), 1)
    assert tried == list(range(6))


async def test_errors_that_the_work_returned_are_results():
    async def work(row):
        return ValueError(row) if row % 2 else row

    results = await map_bounded(work, range(4), 2)
    assert [type(result) for result in results] == [int, ValueError, int, ValueError]


async def test_an_error_that_stops_the_work_cancels_what_runs_and_waits():
    tried, cancelled = [], []

    async def work(row):
        tried.append(row)
        if row == 4:
            raise ConnectionError(row)
        try:
            await asyncio.sleep(0 if row < 3 else 60)
        except asyncio.CancelledError:
            cancelled.append(row)
            raise

    with pytest.raises(ConnectionError, match="4"):
        await map_bounded(work, range(1000), 4, stop_on=ConnectionError)
    assert tried == [0, 1, 2, 3, 4, 5, 6][: len(tried)]
    assert 3 in cancelled
    assert len(tried) < 10


async def test_cancelling_the_whole_cancels_every_row():
    running, full = set(), asyncio.Event()

    async def work(row):
        running.add(row)
        if len(running) == 3:
            full.set()
        try:
            await asyncio.sleep(60)
        finally:
            running.remove(row)

    whole = asyncio.create_task(map_bounded(work, range(9), 3))
    await full.wait()
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole
    assert not running
