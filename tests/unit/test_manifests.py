import base64
import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pocket.api.base import ManifestError
from pocket.api.manifests import load_manifests
from pocket.errors import ConfigurationError
from pocket.keys.loading import load_keys_directory
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE
from pocket_operator.resources.workload_config import RuntimePaths, miner_config, relayer_config, suppliers_of
from pod_settings import POD, REFUSED, TAKEN
from relayctl.local_stack import resolve, write_keys
from resources import changed

SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples/trial"
FILES = [SAMPLES / "relayminer.yaml", SAMPLES / "suppliers.yaml"]
GOOD = (SAMPLES / "relayminer.yaml").read_text().replace("trial:\n      storage: 1Gi", "url: redis://redis:6379/0")


def runtime_paths(tmp_path):
    return RuntimePaths(
        redis_url="redis://r:1/0", keys_dir=tmp_path / "keys", data_dir=tmp_path / "data", host="127.0.0.1",
        admin_port=1, port=2,
    )  # fmt: skip


def test_the_samples_become_configurations_of_both_workloads(tmp_path):
    manifests = load_manifests(FILES)
    (relay_miner,) = manifests.relay_miners
    relayer = relayer_config(relay_miner, runtime_paths(tmp_path))
    miner = miner_config(relay_miner, runtime_paths(tmp_path))
    assert relayer.prefix == miner.prefix == "pocket-trial-trial"
    assert [who for who, _ in sorted(suppliers_of(relay_miner, manifests.suppliers))] == sorted(
        s.spec.operator_address for s in manifests.suppliers
    )
    assert (relayer.port, relayer.workers) == (2, 2)
    assert type(relayer).model_validate_json(relayer.model_dump_json(by_alias=True)) == relayer
    assert type(miner).model_validate_json(miner.model_dump_json(by_alias=True)) == miner
    assert "redis://" not in repr(relayer) + repr(runtime_paths(tmp_path))


def test_in_cluster_names_are_resolved_and_keys_written_for_the_owner_only(tmp_path):
    manifests = load_manifests(FILES)
    local = resolve(manifests.relay_miners[0], {"localnet:9090": "127.0.0.1:5", "backend:8545": "127.0.0.1:6"})
    assert local.spec.chain.nodes[0].grpc == "grpc://127.0.0.1:5"
    assert local.spec.services[1].backends.rest.urls == ("http://127.0.0.1:6/v1",)
    write_keys(tmp_path / "keys", manifests)
    loaded = load_keys_directory(tmp_path / "keys")
    assert set(loaded.keys) == {s.spec.operator_address for s in manifests.suppliers}
    assert not loaded.problems
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "keys").iterdir()} == {0o600}
    secret = next(iter(manifests.secrets.values()))["hex"]
    assert secret not in repr(manifests)


SUPPLIERS = list(yaml.safe_load_all((SAMPLES / "suppliers.yaml").read_text()))


def as_written_by_kubectl(documents):
    """Write documents as `kubectl get -o yaml` does: a List, with status, the Secrets in base64."""
    items = copy.deepcopy(documents)
    for item in items:
        item["metadata"]["resourceVersion"] = "7"
        if item["kind"] == "Secret":
            item["data"] = {key: base64.b64encode(v.encode()).decode() for key, v in item.pop("stringData").items()}
        else:
            item["status"] = {"loadedPods": 3}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("one.yml", yaml.safe_dump_all),
        ("one.json", lambda documents: json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})),
        ("one.yaml", as_written_by_kubectl),
    ],
)
def test_a_folder_holds_whatever_kubectl_applies_from_it_and_prints(tmp_path, file, write):
    (tmp_path / file).write_text(write(SUPPLIERS))
    (tmp_path / "README.md").write_text("# not a resource: [")
    expected = load_manifests([SAMPLES / "suppliers.yaml"])
    loaded = load_manifests([tmp_path])
    assert (loaded.suppliers, loaded.secrets) == (expected.suppliers, expected.secrets)


@pytest.mark.parametrize("version", ["pocket.network/v1alpha1", "pocket.network/v1", "", None])
@pytest.mark.parametrize("kind", ["Supplier", "RelayMiner"])
def test_a_resource_of_another_version_is_an_error_and_never_left_out(tmp_path, kind, version):
    document = {"apiVersion": version, "kind": kind, "metadata": {"name": "alice"}, "spec": {}}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ManifestError, match=rf"one.yaml: {kind} alice: apiVersion .*: write pocket.network/v1beta1"):
        load_manifests([tmp_path])


def test_a_kind_of_another_group_is_none_of_ours(tmp_path):
    document = {"apiVersion": "shop.example/v1", "kind": "Supplier", "metadata": {"name": "baker"}, "spec": {}}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(document))
    assert load_manifests([tmp_path]).suppliers == ()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"data": {"hex": "hunter2!"}}, "data.hex is not base64 of a text"),
        ({"data": {"hex": "/w=="}}, "data.hex is not base64 of a text"),
        ({"data": ["hunter2"]}, "data is not a mapping"),
        ({"stringData": "hunter2"}, "stringData is not a mapping"),
        ({"metadata": ["hunter2"]}, "metadata is not a mapping"),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_without_its_value(tmp_path, fields, why):
    document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "alice-key"}} | fields
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ManifestError, match=why) as error:
        load_manifests([tmp_path])
    assert "hunter2" not in str(error.value)


def test_a_supplier_without_its_secret_is_named(tmp_path):
    manifests = load_manifests(FILES)
    broken = type(manifests)(manifests.relay_miners, manifests.suppliers, {})
    with pytest.raises(ConfigurationError, match="Secret alice-key"):
        write_keys(tmp_path / "keys", broken)


def test_a_sealed_key_of_the_samples_opens_with_the_sealing_key_beside_it_only(tmp_path):
    manifests = load_manifests(FILES)
    assert [s.metadata.name for s in manifests.suppliers if s.spec.key.sealed] == ["carol"]
    write_keys(tmp_path / "keys", manifests)
    others = {name: entries for name, entries in manifests.secrets.items() if name != SECRET_OF_NAMESPACE}
    with pytest.raises(ConfigurationError, match="Supplier carol: its key is sealed to the operator"):
        write_keys(tmp_path / "keys", replace(manifests, secrets=others))
    elsewhere = [
        s.model_copy(update={"metadata": s.metadata.model_copy(update={"namespace": "other"})})
        for s in manifests.suppliers
    ]
    with pytest.raises(ConfigurationError, match="sealed for another namespace"):
        write_keys(tmp_path / "keys", replace(manifests, suppliers=tuple(elsewhere)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("url: redis://redis:6379/0", "{}", "exactly one of url, urlSecretRef, sentinel, cluster and trial"),
        ("url: redis://redis:6379/0", "url: http://redis", "redis://host:6379/0"),
        ("url: redis://redis:6379/0", "url: redis://u:p@redis", "credentials"),
        ("grpc: grpc://localnet:9090", "grpc: localnet", "grpc://host:port"),
        ("rpc: http://localnet:26657", "rpc: localnet", "http://host:port"),
        ("- id: eth", "- id: 'e th'", "services.0.id"),
        ("- id: weather", "- id: eth", "service id eth occurs twice"),
        ("validation: eager", "validation: lazy", "eager"),
        ("jsonRpc:", "websocket:", "services.0.backends"),
        ("urls: [http://backend:8545]", "urls: []", "at least 1"),
        ("urls: [http://backend:8545]", "urls: [ftp://x]", "http://host:port/path"),
        ("urls: [http://backend:8545]", "urls: [http://x, http://x]", "twice"),
        ("timeoutSeconds: 10", "healthCheck: {intervalSeconds: 0}", "healthCheck"),
        ("workers: 2", "workers: 0", "workers"),
        ("port: 8080", "port: 70000", "port"),
        ("recording: strict", "recording: maybe", "strict"),
        ("storage: 1Gi", "storage: lots", "storage"),
        ("replicas: 1\n    shards: 16", "replicas: 17\n    shards: 16", "replicas than shards"),
        ("blockSeconds: 1", "blockSeconds: 0", "blockSeconds"),
        ("blockSeconds: 1", "blockSecond: 1", "spec.chain.blockSecond: is unknown: did you mean blockSeconds?"),
        ("recording: strict", "recordings: strict", "spec.relayer.recordings: is unknown: did you mean recording?"),
        ("jsonRpc:", "jsonrpc:", "spec.services.0.backends.jsonrpc: is unknown: did you mean jsonRpc?"),
        ("validation: eager", "colour: red", "spec.services.0.colour: is unknown"),
        (
            "recording: strict",
            "podTemplate: {spec: {dnsPolici: None}}",
            "spec.relayer.podTemplate.spec.dnsPolici is unknown: did you mean dnsPolicy?",
        ),
        (
            "recording: strict",
            "podTemplate: {tolerations: [{keys: a}]}",
            "tolerations.0.keys is unknown: did you mean key?",
        ),
        ("kind: RelayMiner", "kind: [", "not YAML"),
    ],
)
def test_a_bad_resource_is_refused_with_a_sentence_that_names_the_field(tmp_path, old, new, said):
    assert old in GOOD
    file = tmp_path / "bad.yaml"
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ManifestError) as caught:
        load_manifests([file])
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


def written(folder, pod_settings):
    """Return a file with a RelayMiner that has these settings, by path."""
    file, body = folder / "relayminer.yaml", yaml.safe_load(GOOD)
    for path, value in pod_settings:
        body = changed(body, path, value)
    file.write_text(yaml.safe_dump(body))
    return file


@pytest.mark.parametrize(("path", "value", "said"), REFUSED)
def test_what_kubernetes_would_refuse_in_the_pods_is_refused_with_its_path(tmp_path, path, value, said):
    with pytest.raises(ManifestError, match=rf"RelayMiner trial: {path}.*: {said}$"):
        load_manifests([written(tmp_path, [(path, value)])])


def test_what_kubernetes_takes_in_the_pods_is_taken(tmp_path):
    load_manifests([written(tmp_path, [(POD, TAKEN), ("spec.miner.podTemplate.spec", TAKEN)])])


def test_files_that_are_no_manifests_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="No such file"):
        load_manifests([tmp_path / "none.yaml"])
    file = tmp_path / "list.yaml"
    file.write_text("[1]")
    with pytest.raises(ManifestError, match="not a mapping"):
        load_manifests([tmp_path])
