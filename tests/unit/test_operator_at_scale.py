"""What the operator does for many Suppliers, Secrets and RelayMiners grows with their number, and no faster."""

import base64
import gc
import hashlib
import json
import sys
import tracemalloc

import pytest

from pocket.api.status import ConditionType
from pocket.kube.api_client import KubeError
from pocket_operator.controller.pod_report_cache import PodReportCache
from pocket_operator.controller.secrets import SecretReader
from pocket_operator.decide.books import books_in
from pocket_operator.decide.conditions import LONGEST_MESSAGE, ConditionSpec, conditions
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.packed_books import unpacked, with_packed_books
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources import names
from resources import address, key_of, supplier
from snapshots import NOW, miner_report, relayer_report, snapshot, with_uid


def many(number):
    people = [f"s{n}" for n in range(number)]
    suppliers = tuple(
        with_uid(
            supplier("ns", who, operatorAddress=address(who), key={"secretRef": {"name": "keys", "key": who}}), who
        )
        for who in people
    )
    addresses = [address(who) for who in people]
    row = {"open": 1, "staked": True, "stake": {"services": ["eth"]}}
    body = {
        "component": "miner",
        "addresses": addresses,
        "owned": addresses,
        "suppliers": dict.fromkeys(addresses, row),
    }
    return snapshot(
        suppliers=suppliers, owners={address(who): who for who in people},
        secrets={"keys": SecretView({who: key_of(who) for who in people})},
        reports=(relayer_report(*addresses), Report.of("main-miner-0", body)),
    )  # fmt: skip


def calls(number):
    """Count the Python and C calls of a plan and all statuses."""
    seen, count = many(number), 0

    def called(_, event, __):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        planned = plan(seen)
        relay_miner_status(seen, planned)
        statuses = [supplier_status(check, seen, planned) for check in planned.key_checks]
    finally:
        sys.setprofile(before)
    assert {status.loaded_by for status in statuses} == {"2/2"}
    return count


def test_ten_times_the_suppliers_take_ten_times_the_work():
    calls(2)  # whatever is worked out once in a process
    few, tenfold = calls(30), calls(300)
    assert tenfold < 11 * few, f"{few} calls for 30 Suppliers, {tenfold} for 300"


class Api:
    """Secrets by name, counting who asks."""

    def __init__(self, **secrets):
        self.secrets, self.asked, self.refused = secrets, [], None

    async def get_or_none(self, _, namespace, name):
        self.asked.append((namespace, name))
        if self.refused is not None:
            raise self.refused
        text = self.secrets.get(name)
        return None if text is None else {"data": {"hex": base64.b64encode(text.encode()).decode()}}


@pytest.fixture
def clock():
    return [100.0]


A, B = ReconcileKey("ns", "a"), ReconcileKey("ns", "b")


async def test_a_secret_is_read_again_once_it_is_old_and_one_that_is_missing_at_once(clock):
    api = Api(there="1")
    reader = SecretReader(api, lambda: clock[0])
    for pause, asked in (
        (0.0, ["missing", "there"]),
        (1.0, ["missing"]),
        (1.9, ["missing"]),
        (0.3, ["missing", "there"]),
    ):
        clock[0] += pause
        api.asked.clear()
        found = await reader.read(A, ["there", "missing"])
        assert (found["there"].entries, found["missing"]) == ({"hex": "1"}, None)
        assert sorted(name for _, name in api.asked) == asked


async def test_a_secret_that_the_api_server_does_not_return_stays_as_last_read_and_only_silence_is_an_error(clock):
    api = Api(known="1", other="2")
    reader = SecretReader(api, lambda: clock[0])
    await reader.read(A, ["known"])
    clock[0] += 15.0
    api.refused = KubeError("GET /secrets: 500 cannot decrypt", 500)
    with pytest.raises(KubeError, match="cannot decrypt"):
        await reader.read(A, ["known", "other"])  # one such answer may be the server's trouble, two are the Secret's
    found = await reader.read(A, ["known", "other"])
    assert (found["known"].entries, found["known"].problem) == ({"hex": "1"}, "")
    assert (found["other"].entries, found["other"].problem) == (
        {}, "Secret other cannot be read: GET /secrets: 500 cannot decrypt",
    )  # fmt: skip
    clock[0] += 0.3
    api.refused = None
    assert (await reader.read(A, ["other"]))["other"] == SecretView({"hex": "2"})
    clock[0] += 15.0
    api.refused = KubeError("GET /secrets: no answer")
    with pytest.raises(KubeError):
        await reader.read(A, ["other"])


async def test_the_more_secrets_there_are_the_slower_each_is_read_even_if_none_exists(clock):
    api, wanted = Api(), [f"missing-{n}" for n in range(1000)]
    reader = SecretReader(api, lambda: clock[0])
    for _ in range(10):
        await reader.read(A, wanted)
        clock[0] += 15.0
    assert len(api.asked) == 1000  # 5 a second: each once in 160 to 240 seconds
    rounds = []
    for _ in range(6):
        before = len(api.asked)
        clock[0] += 15.0
        await reader.read(A, wanted)
        rounds.append(len(api.asked) - before)
    assert sum(rounds) == 1000
    assert max(rounds) < 400, "what was read together is not read again together"


async def test_secrets_that_nobody_names_any_more_are_forgotten_with_their_keys(clock):
    api = Api(one=key_of("one"), two=key_of("two"))
    reader = SecretReader(api, lambda: clock[0])
    await reader.read(A, ["one", "two"])
    await reader.read(B, ["two"])
    assert set(await reader.read(A, ["one"])) == {"one"}
    assert await reader.read(B, []) == {}
    assert reader._known.keys() == {A}
    assert reader._known[A].keys() == {"one"}


def child(kind, name, relay_miner, version=1):
    labels = {names.LABEL_RELAY_MINER: relay_miner} if relay_miner else {}
    return kind, {"metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version),
                               "labels": labels}}  # fmt: skip


def test_children_and_pods_are_found_by_their_relay_miner_wherever_their_label_moves():
    store = ObjectCache()
    for kind, observed in (child("Service", "s", "a"), child("Pod", "p2", "a"), child("Pod", "p1", "a"),
                           child("Pod", "q", "b"), child("Pod", "stray", "")):  # fmt: skip
        store.put(kind, observed)

    def seen(key):
        return set(store.children(("Service", "Pod"), key)), [pod["metadata"]["name"] for pod in store.pods(key)]

    assert seen(A) == ({("Service", "s"), ("Pod", "p1"), ("Pod", "p2")}, ["p1", "p2"])
    assert seen(None)[1] == ["p1", "p2", "q"]
    assert store.put(*child("Pod", "p1", "b", version=2)) == {A, B}
    assert (seen(A)[1], seen(B)[1]) == (["p2"], ["p1", "q"])
    store.drop(*child("Pod", "p2", "a"))
    store.drop(*child("Service", "s", "a"))
    assert seen(A) == (set(), [])
    assert A not in store._labelled


def test_a_keeper_is_reconciled_by_its_labels_and_one_that_names_no_relay_miner_is_nobodys():
    store = ObjectCache()
    for kind, observed in (child("ConfigMap", "keeper", "a"), child("ConfigMap", "forged", "")):
        observed["metadata"]["labels"][names.LABEL_COMPONENT] = names.DRAIN_ANCHOR
        store.put(kind, observed)
    assert store.everything() == {ReconcileKey("ns", "a")}


def test_a_message_that_is_longer_than_a_status_takes_is_cut():
    fact = ConditionSpec(ConditionType.READY, "False", ConditionReason.API_SERVER_REJECTED, "x" * 40_000)
    (row,) = conditions([fact], [], 1, NOW)
    assert len(row.message) == LONGEST_MESSAGE
    assert row.message.endswith("x ...")


def test_a_report_that_cannot_be_read_counts_as_none_and_is_told_once(clock, captured_logs):
    reports = PodReportCache(lambda: clock[0])
    good = {"component": "miner", "owned": ["pokt1a"], "suppliers": {"pokt1a": {"open": 2, "of a later version": {}}}}
    assert reports.update("ns", "p", good)
    assert not reports.update("ns", "p", {**good, "height": 9, "budgets": [{}]})  # what passes is no news
    broken = {**good, "suppliers": {"pokt1a": {"open": None}}}
    clock[0] += 9.0
    assert not reports.update("ns", "p", broken)
    assert reports.of("ns", ["p"])[0].supplier("pokt1a").open == 2
    clock[0] += 1.0
    assert reports.update("ns", "p", broken)
    assert reports.of("ns", ["p"]) == ()
    assert ["suppliers.pokt1a.open" in row["problem"] for row in captured_logs] == [True]
    assert reports.update("ns", "p", good)


@pytest.mark.parametrize("body", [{}, {"component": 7}, {"component": "miner", "suppliers": {"a": {}}},
                                  {"component": "relayer", "leaving": "pokt1a"}])  # fmt: skip
def test_what_a_report_does_not_say_is_never_taken_for_nothing_open(body):
    reports = PodReportCache(lambda: 0.0)
    assert not reports.update("ns", "p", body)
    assert reports.of("ns", ["p"]) == ()


def test_a_miner_that_does_not_say_when_it_looked_has_not_looked():
    assert miner_report(last_scan_began=None).last_scan_began(address("alice")) == float("-inf")


def full_books(number: int) -> dict:
    """Return the books of a Supplier with as many sessions as are remembered, as parsed from the API server."""
    ids = [hashlib.sha256(f"{number}.{at}".encode()).hexdigest()[:16] for at in range(1024)]
    rows = [{"end": end, "sessions": sorted(ids[end::50])} for end in range(50)]
    return json.loads(json.dumps({"trails": [{"trail": "t", "number": 5}], "sessions": rows, "fees": []}))


def test_a_thousand_sessions_of_a_supplier_take_little_memory():
    cache, books, count = ObjectCache(), {}, 50
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            metadata = {"name": f"s{number}", "namespace": "ns", "uid": str(number), "resourceVersion": "1"}
            spec = {"relayMinerRef": {"name": "main"}, "operatorAddress": str(number)}
            cache.put("Supplier", {"metadata": metadata, "spec": spec, "status": {"books": full_books(number)}})
            books[number] = books_in(cache.get("Supplier", "ns", f"s{number}")["status"])
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used / count < 50_000, "bytes for each Supplier"
    assert books_in({"books": full_books(7)}) == books[7]


@pytest.mark.parametrize(("kind", "kept"), [("Supplier", False), ("Pod", False), ("RelayMiner", True)])
def test_who_wrote_a_field_is_kept_of_few_objects_only(kind, kept):
    """It is as large as the status of a Supplier. Of a RelayMiner it shows who may have left."""
    metadata = {"name": "one", "namespace": "ns", "uid": "1", "managedFields": [{"manager": "kubectl"}]}
    cache, observed = ObjectCache(), {"metadata": metadata, "spec": {}}
    cache.put(kind, observed)
    assert ("managedFields" in cache.get(kind, "ns", "one")["metadata"]) is kept
    assert "managedFields" in observed["metadata"]


def test_packed_books_equal_what_they_hold_in_any_form():
    one, other = full_books(1), full_books(2)
    resource = {"metadata": {}, "status": {"books": one, "earnedUpokt": 5}}
    packed = with_packed_books(resource)["status"]
    assert packed == {"books": one, "earnedUpokt": 5}
    assert packed != {"books": other, "earnedUpokt": 5}
    assert packed == with_packed_books({"metadata": {}, "status": {"books": full_books(1), "earnedUpokt": 5}})["status"]
    assert unpacked(packed["books"]) == one == resource["status"]["books"]
    assert with_packed_books({"metadata": {}}) == {"metadata": {}}
