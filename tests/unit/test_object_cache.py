"""The cache answers every question as a plain list of the newest objects would."""

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey, operator_address, prefix_of, relay_miner_of
from pocket_operator.resources import names
from pocket_operator.resources.kinds import PODS, RELAY_MINERS, SUPPLIERS

KINDS = (SUPPLIERS.name, RELAY_MINERS.name, PODS.name)
objects = st.fixed_dictionaries({
    "kind": st.sampled_from(KINDS), "namespace": st.sampled_from(["n", "m"]), "name": st.sampled_from("abc"),
    "uid": st.sampled_from("12"), "version": st.integers(1, 9), "of": st.sampled_from(["a", "b", ""]),
    "address": st.sampled_from(["x", "y"]), "made": st.sampled_from(["2026-01-01", "2026-01-02"]),
})  # fmt: skip
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "put older", "drop"]), objects),
        st.tuples(st.just("listed"), st.sampled_from(KINDS), st.lists(objects, max_size=4), st.booleans()),
    ),
    max_size=12,
)


def resource(row):
    metadata = {
        "namespace": row["namespace"], "name": row["name"], "uid": row["uid"], "creationTimestamp": row["made"],
        "resourceVersion": str(row["version"]), "labels": {names.LABEL_RELAY_MINER: row["of"]} if row["of"] else {},
    }  # fmt: skip
    spec = {
        SUPPLIERS.name: {"relayMinerRef": {"name": row["of"]}, "operatorAddress": row["address"]},
        RELAY_MINERS.name: {"prefix": row["address"]}, PODS.name: {},
    }  # fmt: skip
    return {"metadata": metadata, "spec": spec[row["kind"]]}


class Model:
    """The newest object of each kind, namespace and name."""

    def __init__(self):
        self.rows = {}

    def put(self, kind, found, *, also_older=False):
        metadata = found["metadata"]
        place = kind, metadata["namespace"], metadata["name"]
        old = self.rows.get(place)
        same = old is not None and old["metadata"]["uid"] == metadata["uid"]
        if same and int(old["metadata"]["resourceVersion"]) > int(metadata["resourceVersion"]) and not also_older:
            return False
        self.rows[place] = found
        return True

    def drop(self, kind, found):
        place = kind, found["metadata"]["namespace"], found["metadata"]["name"]
        if place in self.rows and self.rows[place]["metadata"]["uid"] == found["metadata"]["uid"]:
            del self.rows[place]

    def of(self, kind):
        return {place[1:]: row for place, row in self.rows.items() if place[0] == kind}


def check(cache, model):
    """Compare every answer."""
    suppliers, relay_miners, pods = (model.of(kind) for kind in KINDS)
    for kind in KINDS:
        assert {(r["metadata"]["namespace"], r["metadata"]["name"]): r for r in cache.all(kind)} == model.of(kind)
    for namespace in ("n", "m"):
        for name in ("a", "b", ""):
            key = ReconcileKey(namespace, name)
            named = [row for _, row in sorted(suppliers.items()) if relay_miner_of(row) == key]
            assert list(cache.suppliers(key)) == named
            labelled = [
                row for (of, _), row in sorted(pods.items())
                if of == namespace and name and row["metadata"]["labels"].get(names.LABEL_RELAY_MINER) == name
            ]  # fmt: skip
            assert list(cache.pods(key)) == labelled
            assert list(cache.children((PODS.name,), key).values()) == labelled
    for address in ("x", "y"):
        rivals = [row for row in suppliers.values() if operator_address(row) == address]
        oldest = min(
            rivals, key=lambda row: (row["metadata"]["creationTimestamp"], row["metadata"]["uid"]), default=None
        )
        found = cache.owner(address)
        assert (found is None) == (oldest is None)
        if found is not None:
            age = (found["metadata"]["creationTimestamp"], found["metadata"]["uid"])
            assert age == (oldest["metadata"]["creationTimestamp"], oldest["metadata"]["uid"])
    for place, row in relay_miners.items():
        same = [
            other for at, other in sorted(relay_miners.items()) if at != place and prefix_of(other) == prefix_of(row)
        ]
        assert cache.same_prefix(row) == same
    assert cache.everything() == {
        *(ReconcileKey(*place) for place in relay_miners), *(relay_miner_of(row) for row in suppliers.values()),
    }  # fmt: skip


def concerned(kind, rows, model):
    """Return the keys that a change between these states concerns at least."""
    keys = set()
    for row in rows:
        if kind == SUPPLIERS.name:
            keys.add(relay_miner_of(row))
        elif kind == RELAY_MINERS.name:
            keys.add(ReconcileKey(row["metadata"]["namespace"], row["metadata"]["name"]))
        elif name := row["metadata"]["labels"].get(names.LABEL_RELAY_MINER):
            keys.add(ReconcileKey(row["metadata"]["namespace"], name))
    if kind == SUPPLIERS.name:
        addresses = {operator_address(row) for row in rows}
        keys |= {relay_miner_of(row) for row in model.of(kind).values() if operator_address(row) in addresses}
    return keys


# To find a smaller example would take minutes.
@settings(max_examples=examples(80), deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(steps)
def test_after_any_events_and_listings_each_answer_is_that_of_the_newest_objects(made):
    cache, model = ObjectCache(), Model()
    for step, *arguments in made:
        if step == "listed":
            kind, rows, restored = arguments
            listed = list({(r["namespace"], r["name"]): resource({**r, "kind": kind}) for r in rows}.values())
            known = cache.identities(kind, "")
            assert known == {
                place: (row["metadata"]["uid"], int(row["metadata"]["resourceVersion"]))
                for place, row in model.of(kind).items()
            }
            if not restored and known:
                known.pop(next(iter(known)))  # it came after the listing began
            cache.replace(kind, listed, known)
            before = model.of(kind)
            for row in listed:
                place = row["metadata"]["namespace"], row["metadata"]["name"]
                model.put(kind, row, also_older=place in known and place in before)
            there = {(row["metadata"]["namespace"], row["metadata"]["name"]) for row in listed}
            for place in known:
                if place not in there:
                    model.drop(kind, before[place])
        else:
            kind, found = arguments[0]["kind"], resource(arguments[0])
            place = found["metadata"]["namespace"], found["metadata"]["name"]
            old = [row for row in (model.of(kind).get(place),) if row is not None]
            if step == "drop":
                told = cache.drop(kind, found)
                model.drop(kind, found)
                assert told >= concerned(kind, [found], model)
            else:
                told = cache.put(kind, found, also_older=step == "put older")
                taken = model.put(kind, found, also_older=step == "put older")
                assert told >= concerned(kind, [*old, found], model) if taken else told == set()
    check(cache, model)
