"""The list of staked applications: read rarely, page by page, and independent of who waits for it."""

import asyncio

import pytest

from background import running
from pocket.chain.pages import all_applications
from pocket.errors import ChainUnavailable, DecodingError
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket_relayer.pipeline.background_queries import BackgroundQueries
from pocket_relayer.pipeline.staked_applications import StakedApplications


class Chain:
    """Lists what it has when it is open."""

    def __init__(self):
        self.rows, self.reads, self.now, self.open = {("a", "eth")}, 0, 0.0, asyncio.Event()
        self.background = BackgroundQueries()
        self.listed = StakedApplications(self, lambda: self.now, self.background)

    async def staked_applications(self):
        self.reads += 1
        await self.open.wait()
        if isinstance(self.rows, Exception):
            raise self.rows
        return frozenset(self.rows)


async def iterations():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def chain():
    found = Chain()
    async with running(found.background):
        yield found


async def test_one_list_is_read_at_a_time_and_the_next_one_after_a_while(chain):
    assert not any(chain.listed.include(f"invented {n}", "eth") for n in range(100))
    await iterations()
    chain.now = 100.0
    assert not chain.listed.include("a", "eth")
    assert chain.reads == 1
    chain.open.set()
    await iterations()
    assert chain.listed.include("a", "eth")
    assert not chain.listed.include("a", "base")
    await iterations()
    chain.now += 29.0
    assert not chain.listed.include("b", "eth")
    await iterations()
    assert chain.reads == 2
    chain.now += 1.0
    chain.rows = {("b", "eth")}
    chain.listed.include("b", "eth")
    await iterations()
    assert chain.listed.include("b", "eth")
    assert not chain.listed.include("a", "eth")


@pytest.mark.parametrize("error", [ChainUnavailable("no node"), TimeoutError(), DecodingError("not a list")])
async def test_a_list_that_no_node_returns_leaves_the_last_one(chain, error):
    chain.open.set()
    chain.listed.include("a", "eth")
    await iterations()
    chain.now, chain.rows = 31.0, error
    assert not chain.listed.include("b", "eth")
    await iterations()
    assert chain.reads == 2
    assert chain.listed.include("a", "eth")


async def test_without_its_loop_nothing_is_queried_and_a_list_is_read_once_it_runs():
    chain = Chain()
    chain.open.set()
    assert not chain.listed.include("a", "eth")
    async with running(chain.background) as ended:
        assert not chain.listed.include("a", "eth")
        await ended()
        assert chain.listed.include("a", "eth")
    assert chain.reads == 1


def page_of(addresses, key=b""):
    answer = application_pb.QueryAllApplicationsResponse()
    for name in addresses:
        row = answer.applications.add(address=name)
        row.service_configs.add(service_id="eth")
        row.service_configs.add(service_id="base")
    answer.pagination.next_key = key
    return answer.SerializeToString()


async def test_all_pages_of_applications_are_read():
    pages = {b"": page_of("ab", b"2"), b"2": page_of("c", b"3"), b"3": page_of("d")}

    async def read(request):
        return pages[request.pagination.key]

    assert await all_applications(read) == {(name, service) for name in "abcd" for service in ("eth", "base")}


async def test_a_list_whose_pages_repeat_is_refused():
    async def read(request):
        return page_of("a", b"2")

    with pytest.raises(DecodingError, match="repeats a page"):
        await all_applications(read)
