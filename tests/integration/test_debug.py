"""The debug server reports tasks, threads, memory and profiles on localhost, and never a value."""

import asyncio

import aiohttp
import pytest

from pocket.errors import ConfigurationError
from pocket.runtime.debug_server import HOST, Debug
from relayctl.local_ports import free_port

SECRET = "5e" * 32


@pytest.fixture
async def debug():
    port = free_port()
    runner = await Debug().serve(port)
    async with aiohttp.ClientSession(f"http://{HOST}:{port}") as http:

        async def get(path, status=200):
            async with http.get(path) as answer:
                assert answer.status == status, await answer.text()
                return await answer.text()

        yield get
    await runner.cleanup()


async def waits_with_a_key(secret, event):
    await event.wait()
    return secret


async def test_tasks_and_threads_are_shown_by_place_and_no_local_value_is(debug):
    event = asyncio.Event()
    waiting = [asyncio.create_task(waits_with_a_key(SECRET, event)) for _ in range(3)]
    await asyncio.sleep(0)
    told = await debug("/debug/tasks")
    (row,) = (line for line in told.splitlines() if "waits_with_a_key" in line)
    assert row.split()[0] == "3"
    assert "MainThread" in await debug("/debug/threads")
    everything = told + await debug("/debug/threads") + await debug("/debug/heap")
    assert SECRET not in everything
    event.set()
    await asyncio.gather(*waiting)


async def test_a_profile_names_what_ran_and_only_one_is_made_at_a_time(debug):
    async def busy():
        while True:
            sum(range(1000))
            await asyncio.sleep(0)

    work = asyncio.create_task(busy())
    first = asyncio.create_task(debug("/debug/profile?seconds=0.3"))
    while "another profile is running" not in await debug("/debug/tasks") and not first.done():
        try:
            refused = await debug("/debug/profile?seconds=0.01", 409)
        except AssertionError:
            continue
        assert "another profile is running" in refused
        break
    assert "busy" in await first
    work.cancel()


@pytest.mark.parametrize("seconds", ["0", "-1", "61", "long", "nan"])
async def test_a_profile_of_no_sensible_length_is_refused(debug, seconds):
    assert "a number above 0, up to 60" in await debug(f"/debug/profile?seconds={seconds}", 400)


async def test_allocations_are_traced_when_asked_for(debug):
    assert "allocated" not in await debug("/debug/heap")
    await debug("/debug/heap?trace=1")
    kept = [bytes(1000) for _ in range(100)]
    assert "allocated since tracing started" in await debug("/debug/heap")
    assert "allocated" not in await debug("/debug/heap?trace=0")
    assert len(kept) == 100


async def test_a_taken_port_is_told():
    port = free_port()
    runner = await Debug().serve(port)
    with pytest.raises(ConfigurationError, match=f"cannot listen on debug port {port}"):
        await Debug().serve(port)
    await runner.cleanup()
