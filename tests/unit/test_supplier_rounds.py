"""What the owner of a supplier does at a block, and what it leaves undone while Redis, Lease or volume fail."""

import asyncio

import pytest

from pocket.errors import ChainUnavailable, DecodingError
from pocket.protocol.claims.proof_requirement import Claim
from pocket.redis_store.store_errors import (
    CommandRejected,
    ConcurrentAppend,
    FenceMissing,
    RedisUnavailable,
    StaleEpoch,
)
from pocket_miner.ingest.consume_rounds import Check
from pocket_miner.sessions.cutoff import SessionCutoff
from pocket_miner.sessions.deadlines import Deadline
from pocket_miner.sessions.stages import Action
from pocket_miner.storage.corruption import VolumeCorrupted
from pocket_miner.submission.leaf_sets import VolumeFallback
from pocket_miner.suppliers.quiet_sessions import QuietSessions
from supplier_parts import AWAY, CLOSE, OPEN, PARAMS, PROOF, block, expected_fallback, supplier_miner, tracked

# Actions.


@pytest.mark.parametrize("number", [1, 2, 5, 8])
@pytest.mark.parametrize("error", [DecodingError, lambda bad: CommandRejected(str(bad))])
async def test_a_session_that_fails_alone_keeps_no_other_from_being_claimed(number, error):
    for bad in range(number):
        miner, parts = supplier_miner(errors={"bad": {f"s{bad}"}, "of": error})
        group = [tracked(f"s{n}", sealed=True) for n in range(number)]
        await miner._act_in_parts(Action.SEND_CLAIM, group, block(OPEN), PROOF, connected=True)
        alone = [call[1] for call in parts.calls if f"s{bad}" not in call[1]]
        assert sorted(name for names in alone for name in names) == sorted(f"s{n}" for n in range(number) if n != bad)
        assert parts.calls[-1][1] == [f"s{bad}"] or number > 1


@pytest.mark.parametrize("error", [lambda bad: ChainUnavailable("away"), lambda bad: RedisUnavailable("away")])
async def test_what_concerns_all_sessions_is_not_tried_in_parts(error):
    miner, parts = supplier_miner(errors={"bad": {"a"}, "of": error})
    group = [tracked("a", sealed=True), tracked("b", sealed=True)]
    await miner._act_in_parts(Action.SEND_CLAIM, group, block(OPEN), PROOF, connected=True)
    assert len(parts.calls) == 1


@pytest.mark.parametrize("connected", [False, True])
async def test_a_claim_of_a_lost_seal_is_compared_with_what_peers_have_while_redis_is_there(connected):
    miner, parts = supplier_miner()
    await miner._act(Action.ADOPT, [tracked("a"), tracked("b")], block(OPEN), PROOF, connected=connected)
    assert parts.calls == ["merge"] * connected + [("adopt", "a", connected), ("adopt", "b", connected)]
    assert miner._seals_due


@pytest.mark.parametrize("error", [StaleEpoch("another", 9), VolumeCorrupted("/a")])
async def test_another_owner_and_a_damaged_volume_end_the_round(error):
    miner, _ = supplier_miner(errors={"prove": error, "claim": error, "check fence": error})
    for action in (Action.SEND_CLAIM, Action.SEND_PROOF):
        with pytest.raises(type(error)):
            await miner._act_in_parts(action, [tracked("a"), tracked("b")], block(OPEN), PROOF, connected=True)
    with pytest.raises(type(error)):
        await miner._isolated("a step", block(OPEN), miner.store.check_fence)


@pytest.mark.parametrize(("error", "fence"), [(ConcurrentAppend("grew"), False), (FenceMissing("empty"), True)])
async def test_a_fence_that_redis_lacks_is_set_again(error, fence):
    for step in ("act", "isolated"):
        miner, _ = supplier_miner(errors={"prove": error, "check fence": error})
        if step == "act":
            await miner._act_in_parts(Action.SEND_PROOF, [tracked()], block(OPEN), PROOF, connected=True)
        else:
            await miner._isolated("a step", block(OPEN), miner.store.check_fence)
        assert miner._needs_fence is fence


def of_each_action():
    """Return sessions for all of which something is to be done at one height."""
    return [tracked("over", start=1), tracked("prove", sealed=True, start=11), tracked("active", start=31),
            tracked("claim", sealed=True, start=21), tracked("seal", start=21)]  # fmt: skip


AT = PARAMS.windows(11).proof_open + 2


async def test_sends_come_first_and_what_is_over_last_and_the_fence_is_checked_before():
    sessions = of_each_action()
    claim = Claim("alice", sessions[1].header, bytes(48))
    miner, parts = supplier_miner(*sessions, claims_on_chain=[claim])
    stages = await miner.on_block(block(AT), PROOF)
    assert parts.calls[:2] == ["load seals", "drop ended"]
    rest = [call for call in parts.calls[2:] if call != "merge"]
    assert [call if isinstance(call, str) else (call[0], call[1]) for call in rest] == [
        "check fence", ("claim", ["claim"]), ("prove", ["prove"]), ("seal", ["seal"]), ("conclude", ["over"]),
    ]  # fmt: skip
    assert stages == {"SETTLED": 1, "PROOFABLE": 1, "ACTIVE": 1, "SEALED": 1, "CLAIMABLE": 1}
    assert (miner.report.open, miner.concluder.owner_since) == (5, AT)
    assert miner.report.deadline == Deadline(PARAMS.windows(11).proof_close, "proof")
    await miner.on_block(block(AT + 1), PROOF)
    assert miner.concluder.owner_since == AT


@pytest.mark.parametrize("height", range(PARAMS.windows(1).claim_open, PARAMS.windows(1).proof_close))
async def test_what_is_owed_in_the_last_third_of_its_window_is_reported(height):
    sessions = [tracked("a", sealed=True), tracked("b", sealed=True)]
    miner, _ = supplier_miner(*sessions, claims_on_chain=[Claim("alice", sessions[1].header, bytes(48))])
    await miner.on_block(block(height), PROOF)
    windows = PARAMS.windows(1)
    in_claim = height < windows.claim_close and 3 * (windows.claim_close - height) <= 12
    in_proof = height >= windows.proof_open and 3 * (windows.proof_close - height) <= 6
    assert miner.report.closing == (2 if in_proof else in_claim), "that of the claim which is not shown, too"


async def test_an_owner_without_a_lease_sends_what_is_sealed_and_seals_nothing():
    sessions = of_each_action()
    claim = Claim("alice", sessions[1].header, bytes(48))
    miner, parts = supplier_miner(*sessions, claims_on_chain=[claim], started=False)
    miner.detached = True
    await miner.on_block(block(AT), PROOF)
    assert [name for name in parts.names() if name not in ("restore", "outcomes", "own seals")] == ["claim", "prove"]
    assert (miner.concluder.owner_since, miner._restored) == (0, True)


async def test_what_is_sealed_waits_for_no_peer_and_is_sent_once():
    sessions = of_each_action()
    claim = Claim("alice", sessions[1].header, bytes(48))
    miner, parts = supplier_miner(*sessions, claims_on_chain=[claim], live=("http://new",))
    await miner.on_block(block(AT), PROOF)
    names = parts.names()
    assert (names.count("claim"), names.count("prove"), names.count("merge")) == (1, 1, 1)
    assert max(names.index("claim"), names.index("prove")) < names.index("merge") < names.index("seal")
    assert names.index("merge") < names.index("conclude")


async def test_a_session_that_cannot_be_decided_keeps_no_other_from_being_sent():
    sessions = of_each_action()
    miner, parts = supplier_miner(*sessions, errors={"cannot be decided": "over"})
    await miner.on_block(block(AT), PROOF)
    assert ("claim", ["claim"]) in parts.calls
    assert "conclude" not in parts.names()


# Connecting.


@pytest.mark.parametrize("urgent", [False, True])
async def test_an_owner_starts_once_and_in_order_and_its_fence_is_urgent_while_a_window_closes(urgent):
    miner, parts = supplier_miner(tracked(), started=False)
    miner._must_seal = urgent
    await asyncio.gather(miner.start(), miner.start())
    assert parts.calls == ["restore", "outcomes", "own seals", ("fence", urgent), "discover", "load seals"]
    assert miner._started
    assert miner._peer_merge.needed
    assert not miner._needs_fence
    assert miner._seals_due


@pytest.mark.parametrize("step", ["fence", "discover", "load seals"])
async def test_a_start_that_failed_is_tried_again_and_meanwhile_what_is_sealed_goes_on(step):
    miner, parts = supplier_miner(tracked(), started=False, errors={step: AWAY})
    assert not await miner._connect(OPEN)
    assert (miner._started, miner._restored) == (False, True)
    parts.errors.clear()
    assert await miner._connect(OPEN)
    assert miner._started


@pytest.mark.parametrize(
    ("height", "sealed", "due", "loads"),
    [(9, False, False, False), (10, False, False, True), (10, True, False, False), (9, True, True, True)],
)
async def test_seals_are_compared_from_a_sessions_end_on_and_whenever_they_are_due(height, sealed, due, loads):
    miner, parts = supplier_miner(tracked(sealed=sealed))
    miner._seals_due = due
    assert await miner._connect(height)
    assert (parts.names() == ["load seals"]) is loads
    assert not miner._seals_due
    if loads:
        miner._seals_due, parts.errors["load seals"] = due, AWAY
        assert not await miner._connect(height)
        assert miner._seals_due is due, "they stay due"


@pytest.mark.parametrize("error", [StaleEpoch("another", 9), VolumeCorrupted("/a")])
async def test_another_owner_and_a_damaged_volume_end_connecting(error):
    miner, _ = supplier_miner(errors={"fence": error})
    miner._needs_fence = True
    with pytest.raises(type(error)):
        await miner._connect(5)
    assert miner._needs_fence


@pytest.mark.parametrize("session_end", [0, 20])
async def test_a_new_fence_makes_seals_due_and_restores_the_cutoff(session_end):
    miner, parts = supplier_miner()
    miner._needs_fence, miner._cutoff = True, SessionCutoff(session_end, 30, 25)
    assert await miner._connect(5)
    cutoff = [("cutoff", session_end)] if session_end else []
    assert parts.calls == [("fence", False), *cutoff, "load seals"]
    assert not miner._needs_fence


@pytest.mark.parametrize("height", range(OPEN - 2, CLOSE + 2))
async def test_a_session_that_must_be_sealed_soon_makes_the_fence_urgent(height):
    late = height <= CLOSE and expected_fallback(CLOSE - height, CLOSE - OPEN) is VolumeFallback.PARTIAL
    for session, urgent in ((tracked(), late), (tracked(sealed=True), False)):
        miner, parts = supplier_miner(session)
        miner._needs_fence = True
        await miner._connect(height)
        assert ("fence", urgent) in parts.calls


def test_a_restarted_redis_is_read_again_and_its_fence_set_again():
    miner, parts = supplier_miner()
    miner.on_redis_restarted()
    assert (parts.calls, miner._needs_fence) == (["reread", "doubt fence"], True)


# Reading.


async def test_sessions_are_compared_every_four_seconds_and_their_number_each_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    miner, parts = supplier_miner(tracked())
    assert (await miner.tail(), parts.calls) == (7, ["discover", "consume"])
    assert (miner.last_scan_at, miner.report.open) == (100.0, 1)
    parts.polled = 3
    for second, check, scanned in (
        (103.9, Check.NUMBER, 100.0),
        (104.0, Check.IDS, 104.0),
        (107.0, Check.NUMBER, 104.0),
    ):
        now[0] = second
        parts.calls.clear()
        assert await miner.tail() == 3
        assert (parts.calls, miner.last_scan_at) == ([("poll", check)], scanned)
    parts.polled = None  # something is new
    parts.calls.clear()
    assert await miner.tail() == 7
    assert (parts.names(), miner.last_scan_at) == (["poll", "discover", "consume"], 107.0)
    miner._needs_fence = True
    parts.calls.clear()
    await miner.tail()
    assert parts.names() == ["discover", "fence", "consume"]


async def test_an_owner_that_reads_before_it_decided_starts_first():
    miner, parts = supplier_miner(started=False)
    await miner.tail()
    assert parts.names()[-3:] == ["discover", "merge", "consume"]
    assert miner._started


@pytest.mark.parametrize(("behind", "shown"), [([False, False], False), ([False, True], True), ([], False)])
def test_a_supplier_is_behind_while_one_of_its_sessions_is(behind, shown):
    sessions = [tracked(f"s{number}") for number in range(len(behind))]
    for session, value in zip(sessions, behind, strict=True):
        session.behind = value
    assert supplier_miner(*sessions)[0].behind is shown


@pytest.mark.parametrize("fence", [None, AWAY])
async def test_a_loss_has_the_fence_set_peers_asked_and_ended_sessions_closed_once_it_is(fence):
    miner, parts = supplier_miner(lost=True, revived_sessions=[("old", 10)], errors={"fence": fence})
    await miner._discover()
    assert ("finish", "old", 10) not in parts.calls if fence else ("finish", "old", 10) in parts.calls
    assert (parts.names()[:3], miner._needs_fence) == (["discover", "fence", "merge"], fence is not None)


async def test_nothing_is_set_or_asked_where_nothing_was_lost():
    miner, parts = supplier_miner()
    await miner._discover()
    assert (parts.calls, miner._needs_fence) == (["discover"], False)


# The cut-off.


@pytest.mark.parametrize(("height", "advanced"), [(14, False), (15, True), (16, True)])
async def test_the_cutoff_is_advanced_when_it_changes_and_sessions_up_to_it_are_discovered_then(height, advanced):
    miner, parts = supplier_miner()
    miner._cutoff = SessionCutoff(0, 15, 0)
    await miner._advance_cutoff(height)
    assert ("cutoff" in parts.names()) is advanced
    assert ("discover" in parts.names()) is advanced
    assert (miner._cutoff.height == height) is advanced


@pytest.mark.parametrize(("known", "told"), [(16, False), (17, True)])
async def test_a_redis_that_knows_a_higher_block_is_told(known, told, captured_logs):
    miner, parts = supplier_miner()
    miner._cutoff = SessionCutoff(0, 15, 0)

    async def advance(session_end, height):
        return known, 3

    parts.advance_cutoff = advance
    await miner._advance_cutoff(16)
    assert any("chain reset" in row["event"] for row in captured_logs) is told


@pytest.mark.parametrize(("step", "error"), [("params", ChainUnavailable("away")), ("cutoff", AWAY), ("discover", AWAY),
                                             ("cutoff", FenceMissing("empty"))])  # fmt: skip
async def test_a_cutoff_that_failed_is_advanced_again(step, error):
    miner, parts = supplier_miner(errors={step: error})
    miner._cutoff = SessionCutoff(0, 15, 0)
    await miner._advance_cutoff(15)
    assert miner._cutoff == SessionCutoff(0, 15, 0)
    assert miner._needs_fence is isinstance(error, FenceMissing)
    parts.errors["cutoff"] = StaleEpoch("another", 9)
    with pytest.raises(StaleEpoch) if step != "params" else pytest.raises(AssertionError):
        await miner._advance_cutoff(15)
        raise AssertionError


# Quiet suppliers.


async def test_a_supplier_is_quiet_until_something_is_due():
    miner, parts = supplier_miner(tracked("active", start=31))
    assert not miner.quiet_at(AT)
    await miner.on_block(block(35), PROOF)
    assert miner._quiet == QuietSessions(frozenset({"active"}), 40)
    assert [miner.quiet_at(height) for height in (35, 39, 40)] == [True, True, False]
    for change in ("_needs_fence", "_seals_due"):
        setattr(miner, change, True)
        assert not miner.quiet_at(36)
        setattr(miner, change, False)
    miner.concluder.is_pending = True
    assert not miner.quiet_at(36)
    miner.concluder.is_pending = False
    miner._peer_merge.needed = True
    assert not miner.quiet_at(36)
    miner._peer_merge.needed = False
    assert miner.quiet_at(36)
    miner.sessions["new"] = tracked("new")
    assert not miner.quiet_at(36)
    del miner.sessions["new"]
    parts.errors["load seals"] = AWAY
    miner._seals_due = True
    await miner.on_block(block(36), PROOF)
    assert miner._quiet is None, "Redis is away"
