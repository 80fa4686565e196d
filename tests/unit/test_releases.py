"""Operator, workloads and installed CRDs of different releases beside each other."""

import copy
import json

import pytest

from pocket.api.crd import definitions
from pocket.api.workload import MinerConfig, RelayerConfig, config_text
from pocket.keys.sealed_box import Controller
from pocket_operator.decide.plan import plan
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.schemas import Schemas
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.resources.config import configurations
from resources import address, changed, key_of
from snapshots import ALICE, RM, gone, miner_report, relayer_report, snapshot, with_uid

RELAYER_KEYS = ("Secret", "main-relayer-keys")


def rendered():
    return configurations(plan(snapshot()).context)


def condition(status, kind):
    return next(row for row in status.conditions if row.type == kind)


def installed(change=lambda schemas: None) -> Schemas:
    """Return the schemas that an API server publishes for our kinds, after a change."""
    rows = {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"] for crd in definitions().values()}
    schemas = copy.deepcopy({kind: row["openAPIV3Schema"] for kind, row in rows.items()})
    change(schemas)
    for kind, schema in schemas.items():
        named = {"group": "pocket.network", "version": "v1beta1", "kind": kind}
        schema["x-kubernetes-group-version-kind"] = [named]
    return Schemas.of({"components": {"schemas": schemas}})


def fields(schema, *path):
    for part in path:
        schema = schema["properties"][part]
    return schema["properties"]


@pytest.mark.parametrize("model", [RelayerConfig, MinerConfig])
def test_only_what_differs_from_the_defaults_is_written_so_that_further_fields_change_no_text(model):
    config = next(config for config in rendered() if isinstance(config, model))
    written = json.loads(config_text(config))
    assert model.model_validate(written) == config
    for name, field in model.model_fields.items():
        alias = field.alias or name
        assert (alias in written) == (getattr(config, name) != field.get_default(call_default_factory=True)), name


def test_fields_of_newer_definitions_are_left_out_and_named_and_the_rest_is_brought_about():
    newer = changed(changed(RM, "spec.relayer.turbo", True), "spec.relayer.replicas", 3)
    seen = snapshot(relay_miner=newer, suppliers=(changed(ALICE, "spec.colour", "red"),))
    found = plan(seen)
    assert found.unknown == ("spec.relayer.turbo",)
    deployment = next(child for child in found.wanted if child["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 3
    told = condition(relay_miner_status(seen, found), "SchemaCurrent")
    assert (told.status, told.reason) == ("False", "CRDNewer")
    assert "spec.relayer.turbo" in told.message
    (check,) = found.key_checks
    assert check.good
    told = condition(supplier_status(check, seen, found), "SchemaCurrent")
    assert (told.status, told.reason) == ("False", "CRDNewer")


def test_a_value_that_only_a_newer_definition_takes_is_not_beside_a_definition_that_matches():
    def newer(schemas):
        fields(schemas["RelayMiner"], "spec")["shiny"] = fields(schemas["Supplier"], "spec")["shiny"] = {}

    odd = {"relay_miner": changed(RM, "spec.relayer.logLevel", "trace"),
           "suppliers": (changed(ALICE, "spec.services", "eth"),)}  # fmt: skip
    for schemas, told in ((installed(newer), ("False", "CRDNewer")), (installed(), ("True", "SchemaMatches"))):
        seen = snapshot(**odd, schemas=schemas)
        found = plan(seen)
        for status in (relay_miner_status(seen, found), supplier_status(found.key_checks[0], seen, found)):
            assert condition(status, "Ready").reason == "InvalidSpec"
            row = condition(status, "SchemaCurrent")
            assert (row.status, row.reason) == told
            assert ("spec.shiny" in row.message) == (told[1] == "CRDNewer")


def test_a_definition_is_compared_with_that_of_this_release_both_ways():
    assert installed().difference("RelayMiner").missing == installed().difference("Supplier").unknown == ()

    def older(schemas):
        del fields(schemas["RelayMiner"], "spec", "relayer")["rollout"]
        del fields(schemas["RelayMiner"], "status")["keys"]
        services = fields(schemas["RelayMiner"], "spec")["services"]["items"]
        services["properties"]["brandNew"] = {"type": "string"}

    found = installed(older).difference("RelayMiner")
    assert found.missing == ("spec.relayer.rollout", "status.keys")
    assert found.unknown == ("spec.services[].brandNew",)
    assert Schemas().difference("RelayMiner") == Schemas.of({}).difference("Supplier")
    assert Schemas().difference("RelayMiner").missing == ()


def test_of_a_status_an_older_definition_gets_what_it_knows():
    def older(schemas):
        del fields(schemas["Supplier"], "status")["earned"]
        del fields(schemas["Supplier"], "status", "last")["loss"]

    status = {
        "address": "a",
        "earned": [{"upokt": 1}],
        "last": {"claim": "c", "loss": "l"},
        "conditions": [{"type": "T"}],
    }
    told = {"address": "a", "last": {"claim": "c"}, "conditions": [{"type": "T"}]}
    assert installed(older).pruned_status("Supplier", status) == told
    assert installed().pruned_status("Supplier", status) == status
    assert Schemas().pruned_status("Supplier", status) == status
    seen = snapshot(schemas=installed(older))
    found = plan(seen)
    told = condition(supplier_status(found.key_checks[0], seen, found), "SchemaCurrent")
    assert (told.status, told.reason) == ("False", "CRDOlder")
    assert "status.earned" in told.message


TROUBLES = {
    "a value that this release does not know": changed(RM, "spec.services", "none"),
    "a missing Secret of Redis": changed(RM, "spec.redis", {"urlSecretRef": {"name": "r", "key": "url"}}),
}


@pytest.mark.parametrize("problem", TROUBLES)
def test_a_deleted_supplier_is_refused_drains_and_goes_whatever_the_trouble_of_its_relay_miner(problem):
    bob = with_uid(changed(changed(ALICE, "metadata.name", "bob"), "spec.operatorAddress", address("bob")), "bob")
    keys = {address(name): "x" for name in ("alice", "bob")}
    world = {
        "relay_miner": TROUBLES[problem], "suppliers": (gone(ALICE), bob), "children": {RELAYER_KEYS: {"data": keys}},
        "owners": {address("alice"): "alice", address("bob"): "bob"},
    }  # fmt: skip
    serving = plan(snapshot(**world, reports=(relayer_report(address("alice")), miner_report(open_sessions=1))))
    assert serving.blocked_by is not None
    assert serving.withdraw == (address("alice"),)
    assert serving.release == ()
    quiet = snapshot(
        **world, reports=(relayer_report(), miner_report(open_sessions=0)), quiet_since={address("alice"): 10.0}
    )
    assert [(change.kind, change.name) for change in plan(quiet).release] == [("Supplier", "alice")]
    told = condition(supplier_status(serving.key_checks[0], snapshot(**world), serving), "Ready")
    assert told.reason == ConditionReason.DRAINING


def test_a_paused_relay_miner_is_left_alone_also_where_it_is_not_valid():
    paused = changed(changed(RM, "spec.services", "none"), "spec.paused", True)
    found = plan(snapshot(relay_miner=paused, suppliers=(gone(ALICE),), children={RELAYER_KEYS: {"data": {"a": "x"}}}))
    assert (found.withdraw, found.release) == ((), ())


def test_the_digest_of_the_redis_url_is_not_the_sealing_keys_matter_but_the_urls_and_the_relay_miners():
    by_secret = changed(RM, "spec.redis", {"urlSecretRef": {"name": "r", "key": "url"}})

    def digest(url="redis://u:pw@r:6379/0", resource=by_secret, **more):
        secrets = {"alice-key": SecretView({"hex": key_of("alice")}), "r": SecretView({"url": url})}
        return plan(snapshot(relay_miner=resource, secrets=secrets, **more)).context.redis_digest

    rotated = Controller.of([Controller.generate(), Controller.generate()])
    assert digest() == digest(controller=rotated)
    assert len({digest(), digest(url="redis://u:other@r:6379/0"), digest(resource=with_uid(by_secret, "other"))}) == 3


def test_entries_of_secrets_that_are_not_ours_are_never_named():
    by_secret = changed(RM, "spec.redis", {"urlSecretRef": {"name": "r", "key": "url"}})
    secrets = {"alice-key": SecretView({"private-name": "x"}), "r": SecretView({"private-name": "x"})}
    seen = snapshot(relay_miner=by_secret, secrets=secrets, published=None)
    found = plan(seen)
    told = f"{found.blocked_by.message} {found.key_checks[0].message} {relay_miner_status(seen, found)}"
    assert "has no entry" in told
    assert "private-name" not in told
