"""What the console shows of a snapshot."""

import pytest

from console_snapshots import (
    ALICE,
    BOB,
    HEIGHT,
    NOW,
    OWNER,
    WINDOWS,
    day,
    ended,
    lost,
    miner,
    opened,
    relayer,
    silent,
    snapshot,
    state,
    supplier,
)
from pocket.api.miner_status import ChainNote, NodeState, RedisState, VolumeState
from pocket_console.snapshot import AnswerFreshness, ClusterSnapshot
from pocket_console.views.charts import earned_by_block, earned_by_day
from pocket_console.views.fleet import fleet_view
from pocket_console.views.merged import merged
from pocket_console.views.overview import overview_view
from pocket_console.views.paging import page_of
from pocket_console.views.sessions import SessionFilter, Show, Tone, find_session, session_detail, sessions_view
from pocket_console.views.suppliers import SupplierFilter, supplier_detail, suppliers_view
from pocket_console.views.timeline import axis_of, track_of


def overview(shot):
    return overview_view(shot, merged(shot, NOW), NOW)


def sessions(shot, **wanted):
    return sessions_view(merged(shot, NOW), SessionFilter(**wanted))


def suppliers(shot, **wanted):
    return suppliers_view(shot, merged(shot, NOW), SupplierFilter(**wanted))


def fleet(shot):
    return fleet_view(shot, merged(shot, NOW), NOW)


# Overview.


def test_money_of_today_is_summed_over_suppliers_and_miners():
    days = {"2026-11-28": day(earned_by={ALICE: 9_000}), "2026-11-29": day(lost_upokt=40, lost_by={"proof_missed": 40})}
    shot = snapshot(
        miners=(
            miner(suppliers=(supplier(days=days), supplier(BOB, days={"2026-11-29": day(earned_by={BOB: 5})}))),
            miner("miner-1", state=state(owned=()), suppliers=(supplier(owned=False),), sessions=(), outcomes=()),
        )
    )  # fmt: skip
    money = overview(shot).money
    assert money.earned_today == 200 + 5 + 200
    assert money.recipients == ((ALICE, 300), (OWNER, 100), (BOB, 5))
    assert (money.lost_today, money.lost_by) == (40, (("proof_missed", 40),))
    assert money.sessions_today == 3


def test_at_risk_is_what_owes_something_in_the_last_third_or_has_a_problem():
    rows = (opened(1), opened(2, closing=True, value_upokt=7), opened(3, problem="refused", value_upokt=30),
            opened(4, skipped="unprofitable", value_upokt=1))  # fmt: skip
    money = overview(snapshot(miners=(miner(sessions=rows),))).money
    assert (money.in_flight, money.open_sessions) == (420 + 7 + 30 + 1, 4)
    assert (money.at_risk, money.sessions_at_risk) == (37, 2)


def test_deadlines_begin_with_the_most_urgent():
    rows = (opened(1, due=120, owes="proof"), opened(2, due=113), opened(3, due=None, owes=""), opened(4, due=116))
    view = overview(snapshot(miners=(miner(sessions=rows),)))
    assert [row.margin for row in view.deadlines] == ["claim in 1 block", "claim in 4 blocks", "proof in 8 blocks"]


def test_a_miner_that_does_not_answer_is_shown_and_its_values_are_stale_not_empty():
    shot = snapshot(miners=(miner(answered_at=NOW - 60, error="no connection: refused"),))
    view = overview(shot)
    assert view.attention[0].text == "does not answer: no connection: refused"
    assert view.attention[0].tone is Tone.BAD
    assert view.money.in_flight == 420
    assert view.deadlines[0].stale
    (row,) = fleet(shot).miners
    assert (row.state, row.tone, row.stale, row.age) == ("no answer", Tone.BAD, True, 60)
    assert suppliers(shot).paging.rows[0].stale


def test_a_process_whose_last_poll_failed_is_not_shown_as_ready():
    refused = {"answered_at": NOW - 3, "error": "no connection: refused"}
    shot = snapshot(miners=(miner(**refused),), relayers=(relayer(**refused),))
    view, shown = overview(shot), fleet(shot)
    assert [(row.state, row.tone) for row in (*shown.miners, *shown.relayers)] == [("no answer", Tone.WARN)] * 2
    assert {row.text for row in view.attention} == {"does not answer: no connection: refused"}
    assert {row.tone for row in view.attention} == {Tone.WARN}


def test_a_miner_that_never_answered_is_shown():
    shot = snapshot(miners=(silent(),))
    assert fleet(shot).miners[0].state == "never answered"
    assert overview(shot).attention[0].what == "miner miner-9"


def test_everything_that_is_not_ready_needs_attention_the_gravest_first():
    shot = snapshot(
        miners=(
            miner(
                state=state(
                    chain=(ChainNote(reason="ClockSkewed", text="the clock is 9 s late"),),
                    volume=VolumeState(total=100, free=4, problem="the volume has 4 MiB free"),
                ),
                suppliers=(supplier(staked=False),),
            ),
        ),
        relayers=(relayer(problems=("Redis cannot be reached",)),),
    )
    rows = overview(shot).attention
    assert [row.tone for row in rows] == [Tone.BAD, Tone.WARN, Tone.WARN, Tone.WARN]
    assert rows[0].text == "not staked on chain: its relays cannot be claimed"
    assert {row.text for row in rows[1:]} == {
        "Redis cannot be reached", "the clock is 9 s late", "the volume has 4 MiB free"
    }  # fmt: skip


def test_shards_that_no_miner_owns_need_attention_only_if_all_miners_answer():
    alone = miner(state=state(shards={}, owned=()))
    assert suppliers(snapshot(miners=(alone,))).paging.rows[0].problems == ("no miner that answers mines for it",)
    assert "no miner owns shard 3" in [row.text for row in overview(snapshot(miners=(alone,))).attention]
    with_silent = overview(snapshot(miners=(alone, silent())))
    assert not [row for row in with_silent.attention if row.what == "shards"]


def test_the_health_of_redis_is_what_miners_that_answer_report():
    good = miner(state=state(redis=RedisState(used_memory=10, max_memory=100)))
    bad = miner("miner-1", state=state(redis=RedisState(problem="no answer", used_memory=10, max_memory=100)))
    assert overview(snapshot(miners=(good,))).redis.tone is Tone.GOOD
    assert overview(snapshot(miners=(good, bad))).redis.problem == "no answer"
    assert overview(snapshot(miners=(silent(),))).redis is None


def test_without_any_process_the_overview_is_empty():
    view = overview(snapshot(miners=(), relayers=()))
    assert (view.height, view.money.earned_today, view.deadlines, view.redis) == (0, 0, (), None)
    assert view.charts[0].empty


# Sessions.


def test_a_session_with_an_outcome_is_not_open():
    done = ended(session_id=opened().session_id)
    picture = merged(snapshot(miners=(miner(outcomes=(done,)),)), NOW)
    assert (len(picture.open), len(picture.ended)) == (0, 1)


def test_of_two_reports_of_a_session_the_newer_answer_counts():
    old = miner("miner-0", answered_at=NOW - 100, sessions=(opened(relays=1),))
    new = miner("miner-1", answered_at=NOW - 1, sessions=(opened(relays=5),))
    for order in ((old, new), (new, old)):
        picture = merged(snapshot(miners=order), NOW)
        assert [row.relays for row in picture.open] == [5]
        assert set(picture.reported_by.values()) == {"miner-1"}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, 5), ({"show": Show.OPEN}, 3), ({"show": Show.DUE}, 1), ({"show": Show.ENDED}, 2), ({"show": Show.LOST}, 1),
        ({"service": "weather"}, 1), ({"supplier": BOB}, 1), ({"supplier": "pokt1d"}, 5),
        ({"session": f"{2:064x}"}, 1), ({"session": "ffff"}, 0), ({"show": Show.OPEN, "service": "eth"}, 2),
    ],
)  # fmt: skip
def test_filters_select_sessions(wanted, found):
    rows = (opened(1), opened(2, service_id="weather", closing=True), opened(3, supplier=BOB))
    shot = snapshot(miners=(miner(sessions=rows, outcomes=(ended(1), lost(2))),))
    view = sessions(shot, **wanted)
    assert view.paging.total == found
    assert len(view.rows) == found
    assert view.services == ("eth", "weather")


def test_the_overview_counts_stages_in_the_words_of_the_table():
    stages = ("PROVEN", "PROOF_NOT_REQUIRED", "PROOF_NOT_REQUIRED", "A_NEW_STAGE", "")
    rows = tuple(opened(n, stage=name) for n, name in enumerate(stages, 1))
    shot = snapshot(miners=(miner(sessions=rows, outcomes=()),))
    counted = {"no proof due": 2, "proven": 1, "a new stage": 1, "starting": 1}
    assert dict(overview(shot).stages) == counted
    assert {row.stage for row in sessions(shot).rows} == set(counted)


def test_stages_and_outcomes_have_tones():
    rows = (opened(1, stage="ACTIVE"), opened(2, stage="PROVEN"), opened(3, closing=True), opened(4, problem="refused"))
    shot = snapshot(miners=(miner(sessions=rows, outcomes=(ended(1), lost(2), ended(3, outcome="empty", paid=False))),))
    tones = {row.stage: row.tone for row in sessions(shot).rows if row.open}
    assert tones["active"] is Tone.BUSY
    assert tones["proven"] is Tone.GOOD
    over = {row.stage: row.tone for row in sessions(shot, show=Show.ENDED).rows}
    assert over == {"settled": Tone.GOOD, "proof missed": Tone.BAD, "empty": Tone.QUIET}
    assert {row.tone for row in sessions(shot, show=Show.DUE).rows} == {Tone.WARN, Tone.BAD}


def test_the_margin_is_what_was_left_in_the_window():
    rows = (opened(1, due=None, owes="", stage="CLAIMED", claimed_height=113),
            opened(2, due=None, owes="", stage="PROVEN", claimed_height=113, proven_height=118))  # fmt: skip
    view = sessions(snapshot(miners=(miner(sessions=rows),)), show=Show.OPEN)
    assert [row.margin for row in view.rows] == ["claimed 3 before the close", "proven 2 before the close"]


def test_the_axis_spans_the_sessions_and_the_windows_lie_on_it():
    axis = axis_of([opened(), ended()], HEIGHT)
    assert (axis.first, axis.last, axis.now, axis.ticks) == (91, 120, 21, (91, 98, 106, 113, 120))
    track = track_of(opened(sealed_height=113), axis)
    assert [(band.kind, band.x, band.width) for band in track.bands] == [
        ("session", 10, 10), ("grace", 20, 1), ("claim", 21, 5), ("proof", 26, 4)
    ]  # fmt: skip
    assert [(mark.kind, mark.x) for mark in track.marks] == [("sealed", 22)]
    assert track.text.startswith("session of blocks 101 to 110, grace period of blocks 111 to 111, claim window")


@pytest.mark.parametrize(("height", "last"), [(120, 120), (121, 121), (500, 130)])
def test_the_axis_reaches_to_the_end_of_a_session_that_is_near(height, last):
    session = ended(1, start=101, end=110, windows=WINDOWS, height=height)
    axis = axis_of([session], HEIGHT)
    assert axis.last == last
    assert [mark.kind for mark in track_of(session, axis).marks] == (["paid"] if height < 500 else [])


def test_a_far_session_does_not_stretch_the_axis_without_limit():
    axis = axis_of([opened(1, start=1), opened(2, start=1_000_001, end=1_000_010, windows=None)], HEIGHT)
    assert axis.span == 2000
    assert track_of(opened(1, start=1, end=10, windows=None), axis).bands == ()


def test_the_page_of_a_session_has_its_own_axis():
    picture = merged(snapshot(), NOW)
    session = find_session(picture, ALICE, opened().session_id)
    detail = session_detail(picture, session)
    assert (detail.axis.first, detail.axis.last, detail.miner) == (101, 120, "miner-0")
    assert find_session(picture, BOB, opened().session_id) is None


@pytest.mark.parametrize(("wanted", "page", "rows"), [(1, 1, 50), (3, 3, 20), (9, 3, 20), (-1, 1, 50)])
def test_pages_that_do_not_exist_are_the_nearest_one(wanted, page, rows):
    found = page_of(range(120), wanted)
    assert (found.page, len(found.rows), found.pages, found.total) == (page, rows, 3, 120)


# Suppliers.


def test_suppliers_with_problems_come_first_and_can_be_selected():
    shot = snapshot(miners=(miner(suppliers=(supplier(), supplier(BOB, staked=False))),))
    view = suppliers(shot)
    assert [row.address for row in view.paging.rows] == [BOB, ALICE]
    assert (view.total, view.with_problems) == (2, 1)
    assert [row.address for row in suppliers(shot, problems=True).paging.rows] == [BOB]
    assert [row.address for row in suppliers(shot, text="pokt1a").paging.rows] == [ALICE]
    assert view.paging.rows[1].keys == "1/1"
    assert view.paging.rows[0].keys == "0/1"


def test_the_owners_report_of_a_supplier_counts():
    known = (supplier(owned=False, balance_upokt=None),)
    other = miner("miner-1", state=state(shards={}, owned=()), suppliers=known, sessions=())
    for order in ((miner(), other), (other, miner())):
        (row,) = suppliers(snapshot(miners=order)).paging.rows
        assert (row.miner, row.balance_upokt, row.problems) == ("miner-0", 5_000_000, ())


def test_a_declared_supplier_that_no_miner_knows_is_shown():
    resource = {
        "metadata": {"name": "bob"}, "spec": {"operatorAddress": BOB},
        "status": {"conditions": [{"type": "Ready", "status": "False", "message": "the Secret is missing"}]},
    }  # fmt: skip
    cluster = ClusterSnapshot(AnswerFreshness(NOW), (), (resource,))
    rows = suppliers(snapshot(cluster=cluster)).paging.rows
    assert (rows[0].resource, rows[0].state, rows[0].problems) == ("bob", "not loaded", ("the Secret is missing",))


def test_a_supplier_shows_its_earnings_over_time():
    days = {"2026-11-28": day(earned_by={ALICE: 20}), "2026-11-29": day()}
    shot = snapshot(miners=(miner(suppliers=(supplier(days=days),), outcomes=(ended(1), lost(2, height=120))),))
    detail = supplier_detail(shot, merged(shot, NOW), ALICE)
    assert detail.row.earned_today == 200
    assert detail.earned_by == ((ALICE, 150), (OWNER, 50))
    assert detail.by_day.columns == ((0.0, 1.0), (20.0, 200.0), (0.0, 0.0))
    assert detail.by_day.labels == ("2026-11-28", "2026-11-29")
    assert detail.by_block.columns == ((110.0, 120.0), (200.0, 0.0), (0.0, 300.0))
    assert len(detail.sessions) == 3
    assert supplier_detail(shot, merged(shot, NOW), BOB) is None


def test_charts_are_bounded_and_list_the_newest_rows():
    chart = earned_by_block([ended(number, height=number) for number in range(1, 500)], "earned")
    assert len(chart.columns[0]) == 60
    assert chart.table[0] == ("499", (200.0, 0.0))
    assert len(chart.table) == 12
    assert earned_by_day({}, "days").empty


# Fleet.


def test_shards_have_the_holder_of_the_highest_epoch():
    first = miner("miner-0", state=state(shards={0: 1, 1: 1}))
    second = miner("miner-1", state=state(shards={1: 2}))
    view = fleet(snapshot(miners=(first, second)))
    assert [(cell.holder, cell.epoch) for cell in view.shards] == [("miner-0", 1), ("miner-1", 2), ("", 0), ("", 0)]
    assert view.unowned == 2
    assert view.shards[3].suppliers == 1


def test_a_silent_miner_holds_no_shard():
    view = fleet(snapshot(miners=(miner(answered_at=NOW - 60),)))
    assert {cell.holder for cell in view.shards} == {""}


def test_nodes_are_shown_by_their_worst_assessment():
    good = miner(state=state(nodes={"node-a": NodeState(health="healthy")}))
    bad = miner("miner-1", state=state(nodes={"node-a": NodeState(health="lagging", lag_blocks=9)}))
    for order in ((good, bad), (bad, good)):
        (row,) = fleet(snapshot(miners=order)).nodes
        assert (row.health, row.lag_blocks, row.tone) == ("lagging", 9, Tone.WARN)


def test_volumes_warn_before_they_are_full():
    for volume, tone in (
        (VolumeState(total=100, free=50), Tone.GOOD), (VolumeState(total=100, free=5), Tone.WARN),
        (VolumeState(total=100, free=50, read_only=True), Tone.BAD),
    ):  # fmt: skip
        assert fleet(snapshot(miners=(miner(state=state(volume=volume)),))).volumes[0].tone is tone


def test_a_relay_miner_shows_conditions_and_rollout():
    resource = {
        "metadata": {"name": "trial", "namespace": "default"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "rollout": {"phase": "Observing"},
                   "relayers": {"summary": "2/2"}},
    }  # fmt: skip
    view = fleet(snapshot(cluster=ClusterSnapshot(AnswerFreshness(NOW), (resource,), ())))
    (row,) = view.relay_miners
    assert (row.ready, row.rollout, row.relayers) == ("True", "Observing", "2/2")
