"""The console reads every page of a miner, bounded, and keeps what it knows while one does not answer."""

import asyncio
import tracemalloc
from dataclasses import replace

import pytest

from console_miner import StatusServer, collected
from console_snapshots import ALICE, ended, opened, supplier
from pocket_console import collector as collecting
from pocket_console.discovery import DiscoveryError, Found
from pocket_console.relayer_metrics import sample_of, state_of
from pocket_console.snapshot import AnswerFreshness, BudgetLimit, Component, ProcessOrigin
from pocket_console.views.merged import merged
from pocket_console.views.overview import overview_view
from pocket_console.views.sessions import SessionFilter, sessions_view
from pocket_console.views.suppliers import SupplierFilter, suppliers_view


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def many_sessions(suppliers, each):
    return [
        opened(number, supplier=f"pokt1{index:038d}", session_id=f"{index * each + number:064x}")
        for index in range(suppliers) for number in range(each)
    ]  # fmt: skip


async def test_all_pages_of_sessions_outcomes_and_suppliers_are_read():
    server = StatusServer(
        many_sessions(7, 3), [ended(number) for number in range(1, 24)],
        [supplier(f"pokt1{index:038d}") for index in range(9)], page=4,
    )  # fmt: skip
    async with collected(server) as collector:
        shot = await collector.once()
        (miner,), (relayer,) = shot.miners, shot.relayers
        assert [len(miner.sessions), len(miner.outcomes), len(miner.suppliers)] == [21, 23, 9]
        assert miner.complete
        assert relayer.samples[-1].services["eth"].served == 10
        assert relayer.state.workers == 2


async def test_only_new_outcomes_are_read_again_and_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr(collecting, "MOST_OUTCOMES", 20)
    server = StatusServer(outcomes=[ended(number) for number in range(1, 41)], page=7)
    async with collected(server) as collector:
        (miner,) = (await collector.once()).miners
        assert [row.number for row in miner.outcomes] == list(range(21, 41))
        read = server.requests["/status/outcomes"]
        await collector.once()
        assert server.requests["/status/outcomes"] == read
        server.outcomes.append(ended(41))
        (miner,) = (await collector.once()).miners
        assert [row.number for row in miner.outcomes] == list(range(22, 42))
        assert server.requests["/status/outcomes"] == read + 1


async def test_another_volume_begins_with_its_own_outcomes():
    server = StatusServer(outcomes=[ended(number) for number in range(1, 41)])
    async with collected(server) as collector:
        await collector.once()
        server.outcomes = [ended(1, supplier="pokt1z")]
        (miner,) = (await collector.once()).miners
        assert [row.supplier for row in miner.outcomes] == ["pokt1z"]


async def test_sessions_are_read_again_at_each_height_and_not_in_between():
    clock = Clock()
    server = StatusServer([opened()], height=112)
    async with collected(server, clock) as collector:
        await collector.once()
        await collector.once()
        assert server.requests["/status/sessions"] == 1
        server.fields["height"] = 113
        server.sessions.append(opened(2))
        (miner,) = (await collector.once()).miners
        assert (server.requests["/status/sessions"], len(miner.sessions)) == (2, 2)
        clock.now += 11
        await collector.once()
        assert server.requests["/status/sessions"] == 3


@pytest.mark.parametrize("path", ["/status/state", "/status/sessions", "/status/outcomes", "/status/suppliers"])
async def test_what_was_known_stays_with_its_age_while_a_miner_does_not_answer(path):
    clock = Clock()
    server = StatusServer([opened()], [ended(1)], [supplier()])
    async with collected(server, clock) as collector:
        await collector.once()
        server.fails.add(path)
        server.outcomes.append(ended(2))
        server.fields["height"] = 113
        clock.now += 60
        (miner,) = (await collector.once()).miners
        assert miner.freshness.error.startswith(f"HTTP 503 at {path}")
        assert (len(miner.sessions), len(miner.suppliers)) == (1, 1)
        if path == "/status/state":
            assert miner.freshness.age(clock.now) == 60
            assert miner.freshness.stale(clock.now)
        server.fails.clear()
        (miner,) = (await collector.once()).miners
        assert (miner.freshness.error, len(miner.outcomes)) == ("", 2)


async def test_a_relayer_that_does_not_answer_keeps_its_samples():
    server = StatusServer()
    async with collected(server) as collector:
        await collector.once()
        server.fails.add("/metrics")
        (relayer,) = (await collector.once()).relayers
        assert relayer.freshness.error == "HTTP 503 at /metrics: not now"
        assert len(relayer.samples) == 1


@pytest.mark.parametrize(
    ("report", "said"),
    [("[]", "is not a JSON object"), ("{", "is not JSON"), ({"component": "miner"}, "not a relayer's report"),
     ({"component": "relayer", "workers": "x"}, "unreadable answer"),
     ({"component": "relayer", "problems": [{"code": 1}]}, "unreadable answer"),
     ({"component": "relayer", "height": float("inf")}, "unreadable answer"),
     ({"component": "relayer", "budgets": [{"limit_upokt": float("nan")}]}, "unreadable answer")],
)  # fmt: skip
async def test_an_unreadable_report_is_a_problem_and_no_crash(report, said):
    server = StatusServer()
    async with collected(server) as collector:
        if isinstance(report, str):

            async def text(origin, path, query=None):
                return report

            collector.fetcher.text = text
        server.report = report
        (relayer,) = (await collector.once()).relayers
        assert said in relayer.freshness.error


async def test_a_miner_that_cannot_be_reached_has_a_reason():
    server = StatusServer()
    async with collected(server) as collector:
        collector._finder._found = Found((ProcessOrigin(Component.MINER, "old", "http://127.0.0.1:1"),))
        assert "no connection" in (await collector.once()).miners[0].freshness.error


async def test_a_miner_without_the_status_api_is_named_as_older():
    server = StatusServer()
    async with collected(server) as collector:
        _, relayer = (await collector._finder.find()).origins
        other = ProcessOrigin(Component.MINER, "old", f"{relayer.url}/elsewhere")
        collector._finder._found = Found((other,))
        assert "older version" in (await collector.once()).miners[0].freshness.error


async def test_a_cluster_that_cannot_be_read_is_shown_and_the_known_processes_are_still_polled():
    class Failing:
        fail = False

        def __init__(self, found):
            self.found = found

        async def find(self):
            if self.fail:
                raise DiscoveryError("pods: 403 forbidden")
            return self.found

    clock = Clock()
    server = StatusServer([opened()])
    async with collected(server, clock) as collector:
        given = await collector._finder.find()
        collector._finder = finder = Failing(Found(given.origins, ({"metadata": {"name": "trial"}},), ()))
        shot = await collector.once()
        assert shot.cluster.freshness == AnswerFreshness(clock.now)
        finder.fail = True
        clock.now += 60
        server.fields["height"] = 200
        shot = await collector.once()
        assert shot.cluster.freshness == AnswerFreshness(100.0, "pods: 403 forbidden")
        assert shot.cluster.relay_miners
        assert shot.miners[0].state.height == 200


async def test_a_thousand_suppliers_and_ten_thousand_sessions_are_shown_in_bounded_memory():
    rows = many_sessions(1000, 10)
    outcomes = [ended(number, supplier=f"pokt1{number % 1000:038d}") for number in range(1, 10_501)]
    server = StatusServer(rows, outcomes, [supplier(f"pokt1{index:038d}") for index in range(1000)])
    async with collected(server) as collector:
        tracemalloc.start()
        try:
            shot = await collector.once()
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        picture = merged(shot, collector.now())
        first = sessions_view(picture, SessionFilter())
        suppliers = suppliers_view(shot, picture, SupplierFilter())
        overview = overview_view(shot, picture, collector.now())
    assert (len(picture.open), len(picture.ended)) == (10_000, collecting.MOST_OUTCOMES)
    assert (first.paging.total, len(first.rows), first.paging.pages) == (20_000, 50, 400)
    last = sessions_view(picture, SessionFilter(page=400))
    assert len(last.rows) == 50
    assert not {row.session_id for row in last.rows} & {row.session_id for row in first.rows}
    assert (suppliers.total, len(suppliers.paging.rows)) == (1000, 50)
    assert overview.money.open_sessions == 10_000
    assert held < 150 * 1024 * 1024


def test_metrics_of_other_families_and_too_many_services_are_ignored():
    text = "".join(f'pocket_relayer_relays_served_total{{service="s{n}"}} 1.0\n' for n in range(1200))
    assert len(sample_of(text, 1.0).services) == 1000
    with pytest.raises(ValueError, match="could not convert"):
        sample_of('pocket_relayer_relays_served_total{service="eth} x\n', 1.0)


def test_values_that_are_no_numbers_are_left_out():
    text = "".join(f'pocket_relayer_relays_served_total{{service="{v}"}} {v}\n' for v in ("+Inf", "NaN", "3"))
    assert {name: row.served for name, row in sample_of(text, 1.0).services.items()} == {"3": 3.0}


def test_a_report_lists_endpoints_without_requests():
    row = {"service": "eth", "transport": "json_rpc", "endpoint": "http://b:1", "healthy": False, "problem": "refused"}
    budget = {"service": "eth", "application": "pokt1app", "limit_upokt": 7, "over_budget": 2, "later": 1}
    state = state_of({
        "component": "relayer", "unhealthy": [row], "addresses": [ALICE], "problems": ["draining"],
        "budgets": [budget] * 2000,
    })  # fmt: skip
    assert state.budgets[0] == BudgetLimit("eth", "pokt1app", 7, 2)
    assert len(state.budgets) == 1000
    assert (state.unhealthy[0].endpoint, state.unhealthy[0].problem) == ("http://b:1", "refused")
    assert state.problems[0].message == "draining"


async def test_a_process_that_hangs_delays_no_other(monkeypatch):
    hanging = asyncio.Event()
    server = StatusServer([opened()], height=112)
    async with collected(server) as collector:
        (miner, relayer) = (await collector._finder.find()).origins
        collector._finder._found = Found((miner, replace(relayer, name="hangs")))
        collector._interval = 0.01
        text = collector.fetcher.text

        async def hang(origin, path, query=None):
            if origin.name == "hangs":
                await hanging.wait()
            return await text(origin, path, query)

        monkeypatch.setattr(collector.fetcher, "text", hang)
        task = asyncio.create_task(collector.run())
        try:
            async with asyncio.timeout(10):
                while not collector.snapshot.miners or collector.snapshot.miners[0].state is None:
                    await collector.wait_newer(collector.snapshot.version, 1)
                server.fields["height"] = 113
                while collector.snapshot.miners[0].state.height != 113:
                    await collector.wait_newer(collector.snapshot.version, 1)
            assert collector.snapshot.relayers[0].state is None
            collector._finder._found, collector._found_at = Found((miner,)), None
            async with asyncio.timeout(10):
                while collector.snapshot.relayers:
                    await collector.wait_newer(collector.snapshot.version, 1)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
