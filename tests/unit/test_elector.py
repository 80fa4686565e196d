"""Two candidates with clocks of their own never lead at once, whatever the API server and the network do."""

import copy
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from example_counts import examples
from pocket.coordination.elector import (
    CandidateState,
    ElectionStep,
    LeaseRecord,
    LeaseTiming,
    after_write,
    next_expiry,
    next_record,
    next_step,
    observe,
    release_record,
    timing_for_blocks,
)
from pocket.coordination.leader_lease import LeaseElector, record_of, spec_of
from pocket.kube.api_client import Conflict, ObjectNotFound

WALL = datetime(2026, 1, 1, tzinfo=UTC)
TIMING = LeaseTiming()


@pytest.mark.parametrize("bad", [{"renew": 12.0}, {"lease": 10.0}, {"call": 6.0}])
def test_timings_under_which_two_could_lead_are_refused(bad):
    with pytest.raises(ValueError, match="two could hold it"):
        LeaseTiming(**bad)


@pytest.mark.parametrize(("block_seconds", "lease"), [(0.1, 3.0), (1.0, 4.0), (30.0, 15.0), (3600.0, 15.0)])
def test_the_lease_of_miners_fits_the_windows_which_are_counted_in_blocks(block_seconds, lease):
    assert timing_for_blocks(block_seconds).lease == lease


def test_a_held_lease_is_taken_only_after_it_did_not_change_for_its_whole_duration():
    record = LeaseRecord("other", 15, WALL, WALL, 3)
    view = observe(CandidateState("me"), record, "1", now=100.0)
    assert next_step(view, 114.9, TIMING) is ElectionStep.WAIT
    assert next_step(view, 115.0, TIMING) is ElectionStep.TAKE
    renewed = observe(view, record, "2", now=114.9)
    assert next_step(renewed, 115.0, TIMING) is ElectionStep.WAIT


def test_the_holders_own_longer_duration_is_respected():
    view = observe(CandidateState("me"), LeaseRecord("other", 60, WALL, WALL, 3), "1", now=0.0)
    assert next_step(view, 59.0, TIMING) is ElectionStep.WAIT
    assert next_step(view, 60.0, TIMING) is ElectionStep.TAKE


def test_a_released_lease_is_taken_at_once_and_the_epoch_grows():
    record = release_record(LeaseRecord("other", 15, WALL, WALL, 3), WALL)
    view = observe(CandidateState("me"), record, "1", now=0.0)
    assert next_step(view, 0.0, TIMING) is ElectionStep.TAKE
    assert next_record(view, ElectionStep.TAKE, WALL, TIMING).transitions == 4
    assert next_record(view, ElectionStep.TAKE, WALL, TIMING, known_epoch=9).transitions == 10


def test_the_creator_of_a_lease_starts_above_every_known_epoch():
    assert next_step(CandidateState("me"), 0.0, TIMING) is ElectionStep.CREATE
    assert next_record(CandidateState("me"), ElectionStep.CREATE, WALL, TIMING, known_epoch=41).transitions == 42


def test_a_candidate_that_sees_another_holder_leads_no_longer():
    mine, others = (LeaseRecord(holder, 15, WALL, WALL, 3) for holder in ("me", "other"))
    state = after_write(CandidateState("me"), mine, "1", 0.0, 0.0, TIMING)
    assert state.leads(1.0)
    assert observe(state, mine, "2", 1.0).leads(1.0)
    assert not observe(state, others, "2", 1.0).leads(1.0)
    assert not observe(state, None, None, 1.0).leads(1.0)


def test_leadership_counts_from_before_the_write_was_sent():
    record = next_record(CandidateState("me"), ElectionStep.CREATE, WALL, TIMING)
    view = after_write(CandidateState("me"), record, "1", sent_at=10.0, now=12.9, timing=TIMING)
    assert view.leads(19.9)
    assert not view.leads(20.0)


def test_the_next_lease_that_expires_is_another_members_that_can_not_be_taken_yet():
    def state(holder, seen_at):
        record = LeaseRecord(holder, 15, WALL, WALL, 1)
        return CandidateState("me_here_2", record, "1", seen_at)

    others = [state("one", 100.0), state("two", 90.0), state("three", 80.0)]
    mine = [state("me_here_1", 86.0), state("", 87.0), CandidateState("me_here_2")]
    assert next_expiry([*others, *mine], 101.0, TIMING) == 4.0
    assert next_expiry([*others, *mine], 105.0, TIMING) == 10.0
    assert next_expiry(mine, 80.0, TIMING) == math.inf


def test_a_record_survives_the_way_to_the_api_and_back():
    record = LeaseRecord("me", 15, WALL, WALL, 7)
    assert record_of({"spec": spec_of(record)}) == record
    assert record_of({"spec": {}}).holder == ""
    assert record_of({"spec": {"holderIdentity": None, "renewTime": "nonsense"}}).holder == ""


@dataclass
class Candidate:
    view: CandidateState
    offset: float
    rate: float
    paused_until: float = 0.0
    pending: tuple[LeaseRecord, str | None, float] | None = None
    acted: list[int] = field(default_factory=list)

    def clock(self, now: float) -> float:
        return self.offset + now * self.rate


class Election(RuleBasedStateMachine):
    """An election in real time whose candidates have skewed clocks, pauses, lost replies and conflicts."""

    @initialize(offsets=st.lists(st.floats(-60, 60), min_size=3, max_size=3))
    def start(self, offsets):
        self.now = 0.0
        self.record: LeaseRecord | None = None
        self.version = 0
        # Clocks of computers differ in rate by far less than a percent.
        rates = (1.0, 1.001, 0.999)
        self.candidates = [Candidate(CandidateState(f"c{n}"), offset, rates[n]) for n, offset in enumerate(offsets)]
        self.epochs: dict[int, str] = {}

    @rule(seconds=st.floats(0.01, 20))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(which=st.integers(0, 2), seconds=st.floats(0, 60))
    def a_candidate_is_stopped_for_a_while(self, which, seconds):
        self.candidates[which].paused_until = max(self.candidates[which].paused_until, self.now + seconds)

    def _awake(self, which):
        return self.now >= self.candidates[which].paused_until

    @rule(which=st.integers(0, 2))
    def a_candidate_looks_and_prepares_a_write(self, which):
        if not self._awake(which):
            return
        candidate = self.candidates[which]
        clock = candidate.clock(self.now)
        version = str(self.version) if self.record is not None else None
        candidate.view = observe(candidate.view, self.record, version, clock)
        step = next_step(candidate.view, clock, TIMING)
        candidate.pending = None
        if step is not ElectionStep.WAIT:
            candidate.pending = (next_record(candidate.view, step, WALL, TIMING), version, clock)

    @rule(which=st.integers(0, 2), reply_lost=st.booleans())
    def the_write_arrives(self, which, reply_lost):
        candidate = self.candidates[which]
        if candidate.pending is None:
            return
        record, version, sent_at = candidate.pending
        candidate.pending = None
        clock = candidate.clock(self.now)
        if clock - sent_at > TIMING.call:
            return  # the call had its deadline; a request that arrives later than that is the next rule's
        current = str(self.version) if self.record is not None else None
        if version != current:
            return  # 409
        self.record, self.version = record, self.version + 1
        assert record.transitions not in self.epochs or self.epochs[record.transitions] == record.holder
        self.epochs[record.transitions] = record.holder
        if not reply_lost:
            candidate.view = after_write(candidate.view, record, str(self.version), sent_at, clock, TIMING)

    @precondition(lambda self: self.record is not None)
    @rule(which=st.integers(0, 2))
    def the_holder_releases(self, which):
        candidate = self.candidates[which]
        if self.record.holder != candidate.view.identity or not self._awake(which):
            return
        self.record, self.version = release_record(self.record, WALL), self.version + 1
        candidate.view = CandidateState(candidate.view.identity)
        candidate.pending = None

    @invariant()
    def at_most_one_leads(self):
        if not hasattr(self, "candidates"):
            return
        leading = [c.view.identity for c in self.candidates if c.view.leads(c.clock(self.now))]
        assert len(leading) <= 1, leading


Election.TestCase.settings = settings(max_examples=examples(40), stateful_step_count=60)
TestElection = Election.TestCase


class RacingApi:
    """A Lease in memory whose first writes meet a renewal that was still on its way."""

    def __init__(self, races):
        self.lease, self.version, self.races = None, 0, races

    async def call(self, method, path, *, body=None, timeout_seconds=None):
        if method == "GET":
            if self.lease is None:
                raise ObjectNotFound("no lease", 404)
            return copy.deepcopy(self.lease)
        if method == "PUT" and body["spec"]["holderIdentity"] == "" and self.races:
            self.races -= 1
            self._store(self.lease)
        if self.lease is not None and body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("the object has been modified", 409)
        return self._store(body)

    def _store(self, body):
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


async def test_a_lease_is_released_though_a_cancelled_renewal_arrives_late():
    api = RacingApi(races=2)
    elector = LeaseElector(api, "ns", "operator", "me")
    assert await elector.attempt()
    await elector.release()
    assert api.lease["spec"]["holderIdentity"] == ""
    assert not elector.leads


class SlowApi(RacingApi):
    """A Lease in memory whose writes take time, before which another candidate may be faster."""

    def __init__(self, clock, seconds):
        super().__init__(races=0)
        self.clock, self.seconds, self.faster = clock, seconds, ""

    def take(self, holder):
        """Give the Lease to another holder."""
        lease = copy.deepcopy(self.lease)
        lease["spec"] |= {"holderIdentity": holder, "leaseTransitions": lease["spec"]["leaseTransitions"] + 1}
        self._store(lease)

    async def call(self, method, path, *, body=None, timeout_seconds=None):
        if method == "PUT" and self.faster:
            self.take(self.faster)
        found = await super().call(method, path, body=body, timeout_seconds=timeout_seconds)
        self.clock[0] += 0.0 if method == "GET" else self.seconds
        return found


async def test_a_candidate_leads_until_its_time_from_before_the_write_is_over():
    clock = [100.0]
    elector = LeaseElector(SlowApi(clock, 2.0), "ns", "operator", "me", timing=TIMING, clock=lambda: clock[0])
    assert await elector.attempt()
    clock[0] = 100.0 + TIMING.renew - 0.01
    assert elector.leads
    clock[0] = 100.0 + TIMING.renew
    assert not elector.leads


async def test_a_candidate_that_was_slower_does_not_lead_and_releases_nothing_of_the_faster_one():
    clock = [0.0]
    api = SlowApi(clock, 0.0)
    elector = LeaseElector(api, "ns", "operator", "me", timing=TIMING, clock=lambda: clock[0])
    assert await elector.attempt()
    clock[0] += 2 * TIMING.lease
    api.faster = "other"
    assert not await elector.attempt()
    api.faster = ""
    await elector.release()
    assert api.lease["spec"]["holderIdentity"] == "other"


def test_a_lease_with_the_largest_epoch_can_be_taken_with_an_epoch_that_an_api_server_stores():
    largest = 2**31 - 1
    state = CandidateState("b_2", LeaseRecord("", 1, WALL, WALL, largest), "7")
    assert next_record(state, ElectionStep.TAKE, WALL, TIMING).transitions == largest
    below = CandidateState("b_2", LeaseRecord("", 1, WALL, WALL, largest - 1), "7")
    assert next_record(below, ElectionStep.TAKE, WALL, TIMING).transitions == largest
