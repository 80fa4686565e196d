"""Reported stakes are queried at the pace at which they may change."""

import contextlib
import itertools
from dataclasses import replace

import pytest

from pocket.chain.model import StakedSupplier
from pocket.errors import ChainUnavailable, NotFound
from pocket_miner.status.report import Reports
from pocket_miner.storage.audit import Audit
from pocket_miner.suppliers.reported_stakes import StakePace, refresh_stakes

STAKED = StakedSupplier("a", "a", 60_000, frozenset({"eth"}), 0)


def queries(pace, seconds, *, mine=("a", "b"), busy=False, steady=True):
    """Return the seconds at which stakes were queried, looking every second."""
    asked = []
    for now in range(seconds):
        if pace.is_due(mine, now, busy=busy):
            asked.append(now)
            pace.queried(mine, now, steady=steady)
    return asked


def gaps(times):
    return [after - before for before, after in itertools.pairwise(times)]


def test_stakes_that_stay_are_queried_less_often_up_to_once_a_minute():
    assert gaps(queries(StakePace(1.0), 400)) == [5, 10, 20, 40, 60, 60, 60, 60, 60]


@pytest.mark.parametrize("change", [{"busy": True}, {"steady": False}])
def test_stakes_that_may_matter_soon_are_queried_every_five_seconds(change):
    assert set(gaps(queries(StakePace(1.0), 100, **change))) == {5}


def test_a_stake_cannot_change_between_two_blocks():
    assert set(gaps(queries(StakePace(30.0), 300, busy=True))) == {30}
    assert max(gaps(queries(StakePace(90.0), 1000))) == 90


def test_a_session_a_change_and_another_supplier_end_the_rest():
    pace = StakePace(1.0)
    last = queries(pace, 400)[-1]
    assert not pace.is_due(("a", "b"), last + 5, busy=False)
    assert pace.is_due(("a", "b"), last + 5, busy=True)
    assert pace.is_due(("a", "c"), last + 1, busy=False)
    pace.queried(("a", "b"), last + 5, steady=False)
    assert pace.is_due(("a", "b"), last + 10, busy=False)


def test_no_supplier_is_not_queried_and_many_are_at_ten_a_second():
    assert not queries(StakePace(1.0), 50, mine=())
    assert set(gaps(queries(StakePace(1.0), 500, mine=tuple(map(str, range(1000))), busy=True))) == {100}


@pytest.mark.parametrize(
    ("answer", "staked", "steady"),
    [
        (STAKED, True, True),
        (replace(STAKED, stake_upokt=50_000), True, False),
        (replace(STAKED, service_ids=frozenset({"anvil"})), True, False),
        (replace(STAKED, unstake_session_end_height=90), True, False),
        (NotFound("not staked"), False, False),
        (ChainUnavailable("no node answered"), True, False),
    ],
)
async def test_a_stake_is_steady_that_is_as_before_and_stays(tmp_path, answer, staked, steady):
    answers = [STAKED, STAKED, answer, answer]

    async def query(_):
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    with contextlib.closing(Audit(tmp_path / "audit.sqlite")) as audit:
        reports = Reports(audit)
    assert [await refresh_stakes(reports, query, ["a"]) for _ in range(3)] == [False, True, steady]
    assert reports.of("a").staked is staked
    again = answer is STAKED or (isinstance(answer, StakedSupplier) and not answer.unstake_session_end_height)
    assert await refresh_stakes(reports, query, ["a"]) is again
