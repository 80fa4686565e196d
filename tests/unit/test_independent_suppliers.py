"""What the operator decides for one Supplier depends on no other one, and on the order of nothing."""

import random
from dataclasses import replace

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.decide.stake_decision import APPROVAL
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names
from resources import address, changed, key_of, supplier
from snapshots import MINER_POD, POD, RM, gone, snapshot, with_uid

PEOPLE = ("alice", "bob", "carol")
UNSTAKED = {"state": "Unstaked", "policy": "Apply", "budgetUpokt": 1}
CHANGES = {
    "stays": lambda found: found,
    "is held": lambda found: changed(found, "metadata.finalizers", [names.FINALIZER]),
    "goes": gone,
    "goes without a finalizer": lambda found: gone(found, held=False),
    "is forced": lambda found: changed(gone(found), "metadata.annotations", {names.ANNOTATION_FORCE_DELETE: "true"}),
    "is late": lambda found: gone(found, 1_000_000),
    "goes with a transaction": lambda found: changed(gone(found), "status.staking.transaction.outcome", "waiting"),
    "unstakes": lambda found: {
        **changed(changed(found, "spec.stake", UNSTAKED), "metadata.annotations", {APPROVAL: "p"}),
        "status": {"staking": {"plan": {"hash": "p"}}},
    },
    "cannot be read": lambda found: changed(found, "spec.services", 7),
}
states = st.fixed_dictionaries({
    "change": st.sampled_from(list(CHANGES)), "key": st.sampled_from(["", "no key", "its own", "another's"]),
    "taken": st.booleans(), "known": st.booleans(), "quiet": st.booleans(),
    "at": st.sampled_from(["nobody", "relayer", "leaving", "miner", "both"]), "open": st.integers(0, 1),
    "scanned": st.sampled_from([None, 1.0, 60.0]),
})  # fmt: skip
worlds = st.fixed_dictionaries(dict.fromkeys(PEOPLE, states))


def world(people, relay_miner):
    """Return a snapshot of Suppliers in these states."""
    keys = {"no key": "zz", "another's": key_of("eve")}
    suppliers, secrets = [], {}
    for name, state in people.items():
        suppliers.append(CHANGES[state["change"]](with_uid(supplier("ns", name), name)))
        text = keys.get(state["key"], key_of(name))
        secrets[f"{name}-key"] = SecretView({"hex": text}) if state["key"] else None
    at = {
        place: [address(name) for name, state in people.items() if state["at"] in (place, "both")]
        for place in ("relayer", "leaving", "miner")
    }
    rows = {address(name): {"open": people[name]["open"]} for name in people}
    looked = {address(name): state["scanned"] for name, state in people.items() if state["scanned"] is not None}
    relayer = {"component": "relayer", "addresses": at["relayer"], "leaving": at["leaving"]}
    miner = {
        "component": "miner", "addresses": at["miner"], "owned": at["miner"], "looked": looked, "suppliers": rows,
    }  # fmt: skip
    return snapshot(
        relay_miner=relay_miner, suppliers=tuple(suppliers), secrets=secrets, drain_anchor_uid="keeper",
        owners={address(name): "older" if state["taken"] else name for name, state in people.items()},
        published=SecretView({address(name): key_of(name) for name, state in people.items() if state["known"]}),
        quiet_since={address(name): 50.0 for name, state in people.items() if state["quiet"]},
        reports=(Report.of(POD.name, relayer, 100.0), Report.of(MINER_POD.name, miner, 100.0)),
    )  # fmt: skip


def of(name, seen):
    """Return everything that is decided for a Supplier."""
    found = plan(seen)
    (check,) = (row for row in found.key_checks if row.name == name)
    handed = [row for row in found.context.suppliers if row.address == check.address] if found.context else []
    finalizers = [row for row in (*found.protect, *found.release) if row.name == name]
    return check, handed, finalizers, found.drains.get(check.address), supplier_status(check, seen, found)


# Smaller examples are no clearer, and a world takes long.
@settings(max_examples=examples(40), deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(people=worlds, goes=st.booleans(), seed=st.integers(0, 2**32))
def test_each_supplier_is_decided_as_if_it_were_alone_and_in_any_order(people, goes, seed):
    seen = world(people, gone(RM) if goes else RM)
    order = random.Random(seed)
    shuffled = replace(
        seen, suppliers=tuple(order.sample(seen.suppliers, 3)), pods=tuple(order.sample(seen.pods, 2)),
        reports=tuple(order.sample(seen.reports, 2)),
    )  # fmt: skip
    for name in PEOPLE:
        alone = replace(seen, suppliers=tuple(row for row in seen.suppliers if row["metadata"]["name"] == name))
        assert of(name, seen) == of(name, alone) == of(name, shuffled)
    one, other = (relay_miner_status(each, plan(each)) for each in (seen, shuffled))
    assert one.model_dump(exclude={"conditions"}) == other.model_dump(exclude={"conditions"})
    assert [(row.type, row.status, row.reason) for row in one.conditions] == [
        (row.type, row.status, row.reason) for row in other.conditions
    ]
