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
