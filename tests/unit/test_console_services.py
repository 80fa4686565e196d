"""What the console shows of services: rates, latencies, rejections and budgets of the relayers."""

import pytest

from console_snapshots import BOB, NOW, miner, opened, relayer, snapshot, totals
from pocket_console.snapshot import BudgetLimit, RelayerSample, UnhealthyEndpoint
from pocket_console.views.merged import merged
from pocket_console.views.rates import quantile, rates_over_time
from pocket_console.views.services import services_view


def services(shot):
    return services_view(shot, merged(shot, NOW), NOW)


def test_rates_and_latencies_are_those_of_the_last_minute():
    view = services(snapshot())
    (row,) = view.rows
    assert (row.name, row.served, row.rejected, row.over_budget) == ("eth", 700, 10, 4)
    assert row.per_second == pytest.approx(10)
    assert row.rejected_share == pytest.approx(10 / 710)
    assert row.p50 == pytest.approx(0.01)
    assert 0.01 < row.p95 < 0.1
    assert row.errors == (("budget_exhausted", 10),)
    assert row.backend_errors == (("backend_timeout", 2),)
    assert (row.sessions, row.value_upokt) == (1, 420)
    assert view.chart.columns == ((-31.0, -1.0), (10.0, 10.0))


def test_a_relayer_that_does_not_answer_counts_in_no_rate_and_no_latency():
    (row,) = services(snapshot(relayers=(relayer(answered_at=NOW - 60), relayer("relayer-1")))).rows
    assert (row.served, row.per_second) == (1400, pytest.approx(10))
    (row,) = services(snapshot(relayers=(relayer(answered_at=NOW - 60),))).rows
    assert (row.per_second, row.p50, row.p99, row.backend_p95) == (None, None, None, None)


def test_a_service_without_relays_in_the_last_minute_shows_no_latency():
    quiet = tuple(RelayerSample(at, {"eth": totals(700.0)}) for at in (NOW - 60, NOW))
    (row,) = services(snapshot(relayers=(relayer(samples=quiet),))).rows
    assert (row.per_second, row.p50) == (0, None)


def test_rejections_before_a_relay_is_counted_as_received_are_a_share_of_one():
    counted = RelayerSample(NOW, {"eth": totals(10.0, rejected={"supplier_not_found": 990.0})})
    (row,) = services(snapshot(relayers=(relayer(samples=(counted,)),))).rows
    assert row.rejected_share == pytest.approx(0.99)


def test_a_restarted_relayer_counts_from_zero():
    samples = (RelayerSample(NOW - 60, {"eth": totals(700.0)}), RelayerSample(NOW, {"eth": totals(60.0)}))
    (row,) = services(snapshot(relayers=(relayer(samples=samples),))).rows
    assert row.per_second == pytest.approx(1)


def test_services_are_summed_over_relayers():
    (row,) = services(snapshot(relayers=(relayer(), relayer("relayer-1")))).rows
    assert (row.served, row.per_second) == (1400, pytest.approx(20))


def test_endpoints_without_requests_are_listed_once():
    endpoint = UnhealthyEndpoint("eth", "json_rpc", "http://backend:8545", "connection refused")
    shot = snapshot(relayers=(relayer(unhealthy=(endpoint,)), relayer("relayer-1", unhealthy=(endpoint,))))
    assert services(shot).rows[0].unhealthy == (endpoint,)


def test_applications_are_those_of_open_sessions():
    rows = (opened(1), opened(2, supplier=BOB), opened(3, application="pokt1z", value_upokt=1))
    found = services(snapshot(miners=(miner(sessions=rows),))).applications
    assert [(row.sessions, row.value_upokt) for row in found] == [(2, 840), (1, 1)]


def test_budgets_of_applications_are_the_smallest_limit_of_all_relayers_and_what_was_above_it():
    first = (BudgetLimit("eth", "pokt1app", 1000, 0), BudgetLimit("eth", "pokt1gone", 10, 2))
    second = (BudgetLimit("eth", "pokt1app", 900, 3),)
    sessions = (opened(1, application="pokt1app", value_upokt=90), opened(2, application="pokt1app", value_upokt=450),
                opened(3, application="pokt1new", value_upokt=1))  # fmt: skip
    shot = snapshot(
        miners=(miner(sessions=sessions),), relayers=(relayer(budgets=first), relayer("relayer-1", budgets=second))
    )
    rows = {row.application: row for row in services(shot).applications}
    assert list(rows) == ["pokt1app", "pokt1new", "pokt1gone"]
    app, new, gone = rows.values()
    assert (app.limit_upokt, app.used_share, app.over_budget, app.nearly_used) == (900, 0.5, 3, False)
    assert (new.limit_upokt, new.used_share, new.nearly_used) == (None, None, False)
    assert (gone.sessions, gone.limit_upokt, gone.over_budget) == (0, 10, 2)


@pytest.mark.parametrize(("value", "nearly_used"), [(899, False), (900, True), (1000, True)])
def test_a_budget_of_which_little_is_left_is_marked(value, nearly_used):
    shot = snapshot(
        miners=(miner(sessions=(opened(1, application="pokt1app", value_upokt=value),)),),
        relayers=(relayer(budgets=(BudgetLimit("eth", "pokt1app", 1000, 0),)),),
    )
    assert [row.nearly_used for row in services(shot).applications] == [nearly_used]


@pytest.mark.parametrize(
    ("share", "seconds"), [(0.5, 0.1 * 50 / 90), (0.9, 0.1), (0.95, 0.15), (1.0, 0.2)]
)  # fmt: skip
def test_quantiles_are_interpolated(share, seconds):
    assert quantile({0.1: 90, 0.2: 100, float("inf"): 100}, share) == pytest.approx(seconds)


def test_quantiles_beyond_the_largest_bound_are_that_bound():
    assert quantile({0.1: 1, float("inf"): 100}, 0.99) == 0.1
    assert quantile({}, 0.5) is None
    assert quantile({0.1: 0, float("inf"): 0}, 0.5) is None


def test_a_history_without_two_steps_has_no_rates():
    assert rates_over_time([], NOW, ["eth"]) == [[], []]
