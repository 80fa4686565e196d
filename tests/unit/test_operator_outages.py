"""What one refusal, a late answer or a restored API server makes the operator conclude: nothing that passes."""

import base64
import contextlib
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from pocket.keys.sealed_box import Subject, seal
from pocket.kube.api_client import NAMESPACE_ENDS, Conflict, KubeError, ObjectNotFound
from pocket_operator.controller.child_writer import ChildWriter
from pocket_operator.controller.discovery import Discovery
from pocket_operator.controller.failed_creates import FailedCreates
from pocket_operator.controller.reconciler import retry_new
from pocket_operator.controller.secrets import SEALING_SECRET, SealingKeys
from pocket_operator.controller.watch_heartbeat import WatchHeartbeat
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.plan import FinalizerChange, plan
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.schemas import INDEX, PATH
from pocket_operator.decide.snapshot import Rejection, repeated
from pocket_operator.resources import names
from pocket_operator.resources.kinds import SUPPLIERS
from resources import address, key_of
from snapshots import ALICE, MINER_POD, POD, RM, gone, miner_report, relayer_report, snapshot

KEY = ReconcileKey("ns", "main")
PLACE = ("Service", "main-relayer")


def told_of(*errors):
    """Return what is told after each of the attempts that end in these errors, None for a success."""
    writer, before, told = ChildWriter(None, ObjectCache(), lambda: 0.0), {}, []
    for error in errors:
        found: dict = {}
        with writer.recording(found, PLACE):
            if error is not None:
                raise error
        told.append(sorted(repeated(found, before)))
        before = found
    return told


@pytest.mark.parametrize("status", [409, 500])
def test_a_refusal_that_may_pass_is_told_once_it_is_repeated(status):
    error = KubeError("etcdserver: leader changed", status)
    assert told_of(error, None, error, error, None) == [[], [], [], [PLACE], []]


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
def test_any_other_refusal_is_told_at_once(status):
    assert told_of(KubeError("no", status), None) == [[PLACE], []]


def test_a_first_refusal_of_what_everything_waits_for_is_tried_again_before_it_is_told():
    refused = {PLACE: Rejection("500", passing=True)}
    with pytest.raises(KubeError):
        retry_new(refused, frozenset())
    retry_new(refused, frozenset({PLACE}))
    retry_new({PLACE: Rejection("422")}, frozenset())


class Objects:
    """Suppliers as the API server keeps them: a patch of another version than the stored one is a conflict."""

    def __init__(self, stored):
        self.stored, self.patches = stored, 0

    async def get(self, *_):
        if self.stored is None:
            raise ObjectNotFound("gone", 404)
        return self.stored

    async def merge(self, kind, namespace, name, patch, *, manager):
        self.patches += 1
        if patch["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified", 409)
        self.stored = {**self.stored, "metadata": {**self.stored["metadata"], **patch["metadata"]}}
        return self.stored


def stored(version, *finalizers, uid="alice"):
    metadata = {**ALICE["metadata"], "uid": uid, "resourceVersion": version, "finalizers": list(finalizers)}
    return {**ALICE, "metadata": metadata}


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_finalizer_is_changed_though_another_client_wrote_meanwhile_and_no_other_is_lost(wanted):
    cache, mine = ObjectCache(), () if wanted else (names.FINALIZER,)
    cache.put("Supplier", stored("5", *mine))
    api = Objects(stored("7", "other/finalizer", *mine))
    await ChildWriter(api, cache, lambda: 0.0).finalizer(KEY, FinalizerChange("Supplier", "alice", wanted=wanted))
    assert set(api.stored["metadata"]["finalizers"]) == {"other/finalizer", *((names.FINALIZER,) if wanted else ())}


async def test_the_finalizer_of_another_object_of_that_name_is_left_alone():
    cache = ObjectCache()
    cache.put("Supplier", stored("5", names.FINALIZER))
    api = Objects(stored("7", names.FINALIZER, uid="another"))
    await ChildWriter(api, cache, lambda: 0.0).finalizer(KEY, FinalizerChange("Supplier", "alice", wanted=False))
    assert api.stored["metadata"]["finalizers"] == [names.FINALIZER]


def test_a_listing_replaces_what_is_newer_once_the_server_was_restored_from_a_backup():
    cache = ObjectCache()
    cache.put("Supplier", stored("500", names.FINALIZER))
    assert cache.put("Supplier", stored("40")) == set(), "a late event does not"
    known = cache.identities("Supplier", "")
    assert cache.replace("Supplier", [stored("40")], known) == {KEY}
    assert cache.get("Supplier", "ns", "alice")["metadata"]["resourceVersion"] == "40"


def test_a_listing_does_not_replace_what_came_while_it_was_read():
    cache = ObjectCache()
    cache.put("Supplier", stored("40"))
    known = cache.identities("Supplier", "")
    cache.put("Supplier", stored("41", names.FINALIZER))
    cache.replace("Supplier", [stored("40")], known)
    assert cache.get("Supplier", "ns", "alice")["metadata"]["resourceVersion"] == "41"


class Canary:
    """Takes heartbeats, or refuses them."""

    def __init__(self):
        self.error, self.bodies = None, []

    async def apply(self, _, body, __):
        if self.error is not None:
            raise self.error
        self.bodies.append(body)


async def test_a_refused_heartbeat_says_nothing_about_the_watches_and_a_lost_one_does():
    clock, api = [0.0], Canary()
    heart = WatchHeartbeat(api, "ns", "me", lambda: clock[0])
    await heart.send()
    heart.receive(api.bodies[-1])
    api.error = KubeError("exceeded quota", 403)
    for _ in range(10):
        clock[0] += 30
        with pytest.raises(KubeError):
            await heart.send()
    assert heart.overdue_seconds == 0
    assert heart.age == 300, "it is shown, though"
    api.error = None
    await heart.send()
    clock[0] += 125
    assert heart.overdue_seconds == 125
    heart.receive(api.bodies[-1])
    assert heart.overdue_seconds == 0
    api.error = KubeError("no answer")
    with pytest.raises(KubeError):
        await heart.send()
    clock[0] += 60
    assert heart.overdue_seconds == 60, "it may have been written"


@pytest.mark.parametrize("status", [0, 429, 503])
async def test_events_that_cannot_be_read_are_not_taken_for_none(status):
    class Events:
        async def list(self, *_, **__):
            raise KubeError("later", status)

    children = {("StatefulSet", "main-miner"): {"metadata": {"uid": "u"}, "spec": {"replicas": 2}, "status": {}}}
    with pytest.raises(KubeError):
        await FailedCreates(Events(), lambda: 100.0).read(KEY, children)


@pytest.mark.parametrize("status", [403, 500])
async def test_a_known_refusal_of_pods_stays_while_the_events_cannot_be_read(status):
    clock, error, row = [100.0], None, {"message": "exceeded quota", "lastTimestamp": "2026-01-01T00:00:00Z"}

    class Events:
        async def list(self, *_, **__):
            if error is not None:
                raise error
            return [row]

    children = {("StatefulSet", "main-miner"): {"metadata": {"uid": "u"}, "spec": {"replicas": 2}, "status": {}}}
    creates = FailedCreates(Events(), lambda: clock[0])
    first = await creates.read(KEY, children)
    error = KubeError("no", status)
    clock[0] += 60
    assert await creates.read(KEY, children) == first == {("StatefulSet", "main-miner"): "exceeded quota"}


def document(*kinds):
    """Return an OpenAPI document whose definitions have an older release's fields."""
    gvk = {"group": "pocket.network", "version": "v1beta1"}
    fields = {"spec": {"type": "object"}, "status": {"properties": {"phase": {"type": "string"}}}}
    rows = {kind: {"properties": fields, "x-kubernetes-group-version-kind": [gvk | {"kind": kind}]} for kind in kinds}
    return {"components": {"schemas": rows}}


@pytest.mark.parametrize(
    "answer",
    [KubeError("no", 403), KubeError("no", 404), KubeError("no", 500), {}, {"components": {}}, document("Supplier")],
    ids=["403", "404", "500", "empty", "no schemas", "one kind only"],
)
async def test_schemas_that_cannot_be_read_change_nothing(answer):
    """What an older definition lacks would be written again, and each status refused."""
    answers = {INDEX: {}, PATH: document("RelayMiner", "Supplier")}

    class Server:
        async def call(self, _, path):
            if isinstance(answers[path], KubeError):
                raise answers[path]
            return answers[path]

    discovery = Discovery(Server())
    await discovery.compare_schemas()
    for path in (PATH, INDEX):
        answers[path] = answer
        await discovery.compare_schemas()
        status = {"phase": "Ready", "served": 1}
        assert discovery.schemas.pruned_status("RelayMiner", status) == {"phase": "Ready"}, path
    answers |= {INDEX: {}, PATH: document("RelayMiner", "Supplier")}
    await discovery.compare_schemas()
    for status in (0, 429, 503):
        answers[PATH] = KubeError("later", status)
        with pytest.raises(KubeError):
            await discovery.compare_schemas()


async def test_an_optional_kind_goes_when_its_group_does_and_not_with_an_empty_answer():
    monitoring = {"resources": [{"kind": "PodMonitor"}, {"kind": "PrometheusRule"}]}
    answer = [monitoring]

    class Server:
        async def call(self, _, path):
            if "monitoring" not in path or answer[0] is None:
                raise KubeError("no such group", 404)
            return answer[0]

    discovery = Discovery(Server())
    assert await discovery.find_optional_kinds()
    for empty in ({}, {"resources": None}, {"resources": []}):
        answer[0] = empty
        assert not await discovery.find_optional_kinds()
        assert discovery.optional_kinds == {"PodMonitor", "PrometheusRule"}
    answer[0] = None
    assert await discovery.find_optional_kinds()
    assert discovery.optional_kinds == frozenset()


async def test_a_kind_of_ours_is_missing_only_where_the_api_server_lists_the_others():
    both = {"resources": [{"name": "relayminers"}, {"name": "relayminers/status"}, {"name": "suppliers"}]}
    answers = [both]

    class Server:
        async def call(self, _, path):
            assert path == "/apis/pocket.network/v1beta1"
            if isinstance(answers[0], KubeError):
                raise answers[0]
            return answers[0]

    def gauge():
        name = "pocket_operator_definitions_missing"
        return [REGISTRY.get_sample_value(name, {"kind": kind}) for kind in ("RelayMiner", "Supplier")]

    discovery = Discovery(Server())
    assert not await discovery.find_missing_kinds()
    assert gauge() == [0, 0]
    answers[0] = {"resources": both["resources"][:2]}
    assert await discovery.find_missing_kinds()
    assert not await discovery.find_missing_kinds()
    assert (discovery.missing_kinds, gauge()) == ({SUPPLIERS}, [0, 1])
    for answer in ({}, {"resources": []}, KubeError("later", 503)):
        answers[0] = answer
        with contextlib.suppress(KubeError):
            assert not await discovery.find_missing_kinds()
        assert discovery.missing_kinds == {SUPPLIERS}, answer
    answers[0] = KubeError("no such group", 404)
    assert await discovery.find_missing_kinds()
    assert gauge() == [1, 1]
    answers[0] = both
    assert await discovery.find_missing_kinds()
    assert (discovery.missing_kinds, gauge()) == (frozenset(), [0, 0])


class Vault:
    """Secrets and ConfigMaps by name."""

    def __init__(self):
        self.objects = {}

    async def get_or_none(self, kind, _, name):
        return self.objects.get(name)

    async def create(self, kind, _, body):
        return await self.apply(kind, body, "")

    async def replace(self, kind, _, body):
        return await self.apply(kind, body, "")

    async def apply(self, _, body, __):
        self.objects[body["metadata"]["name"]] = body
        return body


async def test_a_deleted_secret_of_sealing_keys_is_written_again_with_all_loaded_keys_in_their_order():
    vault = Vault()
    keys = SealingKeys(vault, "ns")
    await keys.refresh()
    subject = Subject("ns", "alice", address("alice"))
    in_git = seal(keys.controller.newest, subject, key_of("alice"))
    secret = vault.objects[SEALING_SECRET]
    secret["metadata"]["annotations"] = {"pocket.network/rotate": "requested"}
    await keys.refresh()
    newest = keys.controller.newest
    del vault.objects[SEALING_SECRET]
    await keys.refresh()
    assert keys.controller.newest == newest
    after_restart = SealingKeys(vault, "ns")
    await after_restart.refresh()
    assert after_restart.controller.newest == newest
    assert after_restart.controller.open(in_git, subject) == key_of("alice")
    vault.objects[SEALING_SECRET]["metadata"]["annotations"] = {"pocket.network/rotate": "requested"}
    await after_restart.refresh()
    assert after_restart.controller.newest != newest, "a key that is added later is the newest"
    assert all(len(base64.b64decode(text)) == 32 for text in vault.objects[SEALING_SECRET]["data"].values())


@pytest.mark.parametrize("refused", ["create", "replace", "apply"])
async def test_a_refused_write_of_sealing_keys_stops_nothing_and_an_outage_is_passed_on(refused):
    vault = Vault()
    if refused != "create":
        await SealingKeys(vault, "ns").refresh()
        vault.objects[SEALING_SECRET]["metadata"]["annotations"] = {"pocket.network/rotate": "requested"}
    if refused == "apply":
        vault.objects.pop("pocket-operator-sealing-public")
    keys = SealingKeys(vault, "ns")

    def refuse(error):
        async def call(*_):
            raise error

        setattr(vault, refused, call)

    refuse(KubeError("field is immutable", 422))
    await keys.refresh()
    assert bool(keys.controller.keys) == (refused != "create"), "what can be read is used"
    if refused == "replace":
        vault.objects[SEALING_SECRET]["metadata"]["annotations"] = {"pocket.network/rotate": "requested"}
    if refused == "apply":
        vault.objects.pop("pocket-operator-sealing-public", None)
    refuse(KubeError("no answer"))
    with pytest.raises(KubeError):
        await keys.refresh()


def ending(**more):
    return snapshot(suppliers=(gone(ALICE),), **{"relay_miner": gone(RM), "namespace_ends": True, **more})


def test_in_a_namespace_that_is_being_deleted_nothing_is_waited_for_once_no_miner_is_left():
    open_still = {"pods": (POD, MINER_POD), "reports": (relayer_report(), miner_report(2))}
    assert plan(ending(**open_still)).release == (), "a miner may still send what is due"
    assert plan(ending(pods=(POD, MINER_POD), reports=())).release == ()
    found = plan(ending(pods=(POD,), reports=()))
    assert found.drains[address("alice")].done
    assert {change.kind for change in found.release} == {"RelayMiner", "Supplier"}
    assert plan(replace(ending(pods=(), reports=()), namespace_ends=False)).release == (), (
        "absence alone is no evidence"
    )


@pytest.mark.parametrize("value", [{"paused": True}, {"redis": {}}], ids=["paused", "invalid"])
def test_in_a_namespace_that_is_being_deleted_a_relay_miner_that_is_left_alone_goes_too(value):
    relay_miner = gone({**RM, "spec": RM["spec"] | value})
    nothing_left = {"relay_miner": relay_miner, "pods": (), "reports": ()}
    assert {row.kind for row in plan(ending(**nothing_left)).release} == {"RelayMiner", "Supplier"}
    assert plan(ending(**nothing_left, namespace_ends=False)).release == ()
    assert plan(ending(relay_miner=relay_miner, pods=(MINER_POD,), reports=())).release == ()


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (KubeError("being terminated", 403, cause=NAMESPACE_ENDS), True), (KubeError("no rights", 403), False),
        (KubeError("exists", 409), False), (ObjectNotFound("gone", 404), False), (None, False),
    ],
)  # fmt: skip
async def test_whether_a_namespace_is_being_deleted_is_asked_without_writing(error, ends):
    asked = []

    class Server:
        async def call(self, method, path, *, body, query):
            asked.append((method, path, query))
            if error is not None:
                raise error

    assert await ChildWriter(Server(), ObjectCache(), lambda: 0.0).namespace_ends(KEY) is ends
    assert asked == [("POST", "/api/v1/namespaces/ns/configmaps", {"dryRun": "All"})]


def test_the_namespaces_end_is_known_by_the_api_servers_own_cause():
    found: dict = {}
    with ChildWriter(None, ObjectCache(), lambda: 0.0).recording(found, PLACE):
        raise KubeError("it is being terminated", 403, cause=NAMESPACE_ENDS)
    assert found[PLACE].namespace_ends
    seen = snapshot(rejections=found)
    assert "being terminated" in relay_miner_status(seen, plan(seen)).conditions[0].message
