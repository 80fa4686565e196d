"""Run the chain queries of admission that no relay waits for."""

import asyncio
import contextlib


@contextlib.asynccontextmanager
async def running(queries):
    """Run queries, and return a function that waits until all of them have ended."""

    async def ended():
        async with asyncio.timeout(10):
            while queries._keys:  # noqa: ASYNC110 - nothing else waits for them
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(queries.run())
        await asyncio.sleep(0)
        yield ended
        assert not task.done(), "no failed query ends the others"
        task.cancel()
