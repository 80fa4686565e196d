"""An approved unstake: relayers lose the key, miners keep it, and the status tells when nothing is open."""

from pocket_operator.decide.plan import plan
from pocket_operator.decide.served import served_suppliers
from pocket_operator.decide.stake_decision import APPROVAL
from pocket_operator.decide.supplier_status import supplier_status
from resources import address, changed
from snapshots import ALICE, gone, miner_report, relayer_report, snapshot, with_uid

HASH = "a" * 32
STAKE = {"policy": "Plan", "state": "Unstaked", "amountUpokt": 5}


def unstaking(approved=HASH):
    body = changed(ALICE, "spec.stake", STAKE)
    body = changed(body, "metadata.annotations", {APPROVAL: approved})
    body = changed(body, "status", {"staking": {"plan": {"hash": HASH}}})
    body = changed(body, "metadata.finalizers", ["pocket.network/drain"])
    return with_uid(body, "alice")


def seen(supplier, *reports, clock=1000.0, quiet=None):
    return snapshot(suppliers=(supplier,), reports=reports, clock=clock, quiet_since=quiet or {})


def test_relayers_lose_the_key_and_miners_keep_it():
    made = plan(seen(unstaking(), relayer_report(address("alice")), miner_report()))
    assert [(row.address, row.draining) for row in made.context.suppliers] == [(address("alice"), True)]
    assert made.digests["miner"]
    assert not made.digests["relayer"]
    assert made.release == ()


def test_without_the_approval_it_is_served():
    made = plan(seen(unstaking("another"), relayer_report(address("alice")), miner_report()))
    assert [row.draining for row in made.context.suppliers] == [False]
    assert made.drains == {}


def test_the_status_says_what_is_open_until_nothing_is():
    def status(*reports, quiet=None):
        view = seen(unstaking(), *reports, quiet=quiet)
        made = plan(view)
        return supplier_status(made.key_checks[0], view, made)

    serving = status(relayer_report(address("alice")), miner_report())
    assert (serving.drain.done, "still serves it" in serving.drain.reason) == (False, True)
    opened = status(relayer_report(), miner_report(open=2))
    assert (opened.drain.done, opened.drain.reason) == (False, "2 sessions are on their way to settlement")
    keys = next(row for row in opened.conditions if row.type == "KeysLoaded")
    assert (keys.reason, "Drains before it unstakes" in keys.message) == ("Draining", True)
    done = status(relayer_report(), miner_report(), quiet={address("alice"): 0.0})
    assert done.drain.done, done.drain.reason


def test_a_supplier_that_leaves_is_not_missed():
    view = seen(unstaking(), relayer_report(), miner_report())
    assert served_suppliers(view, plan(view)).declared == 0


def test_a_deleted_supplier_stays_until_its_staking_transaction_is_concluded():
    quiet = {address("alice"): 0.0}

    def released(outcome, seconds_ago=10.0):
        sent = changed(ALICE, "status", {"staking": {"transaction": {"outcome": outcome}}})
        view = seen(gone(sent, seconds_ago), relayer_report(), miner_report(), quiet=quiet)
        return [change.name for change in plan(view).release], plan(view).drains[address("alice")].reason

    assert released("Sent") == ([], "its staking transaction is on its way")
    assert released("Included")[0] == released("Expired")[0] == ["alice"]
    assert released("Sent", 1e9) == (["alice"], "the deadline passed")
