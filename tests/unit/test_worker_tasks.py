"""Background tasks of a relayer's worker."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from pocket.runtime import supervise as runtime
from pocket_relayer.process.worker import _supervised


async def test_an_unexpected_error_of_a_background_task_restarts_it_and_is_counted(monkeypatch):
    monkeypatch.setattr(runtime, "_AGAIN_SECONDS", 0)
    labels, runs = {"task": "test"}, []

    async def loop():
        runs.append(1)
        if len(runs) < 3:
            raise ZeroDivisionError("a defect")

    async with asyncio.TaskGroup() as group:
        group.create_task(_supervised("test", loop))
    assert len(runs) == 3
    assert REGISTRY.get_sample_value("pocket_relayer_background_task_restarts_total", labels) == 2


async def test_a_cancelled_background_task_is_not_restarted():
    begun = []

    async def loop():
        begun.append(1)
        await asyncio.Event().wait()

    task = asyncio.create_task(_supervised("test", loop))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun == [1]
