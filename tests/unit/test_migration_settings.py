"""Every setting that the Go relayer and miner accept is taken, changed with a note, or named with a reason.

The lists hold every setting that the Go programs' parsers were seen to know: they refuse a map in place of its value.
"""

import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from example_counts import examples
from go_settings import CHECK, ETH, JSON_RPC, NODE_RELAYMINER, OF_MINER, OF_RELAYER, RELAYER, put
from pocket.api.base import ManifestError
from pocket.api.manifests import load_manifests
from pocket.api.relayminer import RelayMiner
from pocket.protocol.crypto.addresses import address_of
from relayctl.main import main
from relayctl.migrating.configuration_sources import read_compose
from relayctl.migrating.migration import convert
from relayctl.migrating.node_relayminer import size_bytes
from world import address, key

# What a setting becomes: path in the RelayMiner's spec, and value. An index stands for an element of a list.
TAKEN = {
    "listen_addr": ("relayer.port", 8081),
    f"{ETH}validation_mode": ("services.0.validation", "eager"),
    f"{ETH}max_body_size_bytes": ("services.0.maxBodyBytes", 1000),
    f"{ETH}default_backend": ("services.0.defaultBackend", "jsonRpc"),
    f"{JSON_RPC}base_path": ("services.0.backends.jsonRpc.basePath", "/v1"),
    f"{JSON_RPC}load_balancing": ("services.0.backends.jsonRpc.strategy", "first_healthy"),
    f"{JSON_RPC}headers": ("services.0.backends.jsonRpc.headers", {"A": "b"}),
    f"{JSON_RPC}max_retries": ("services.0.backends.jsonRpc.maxRetries", 2),
    f"{JSON_RPC}recovery_timeout_seconds": ("services.0.backends.jsonRpc.recoverySeconds", 9),
    f"{JSON_RPC}authentication.bearer_token": ("services.0.backends.jsonRpc.auth.type", "bearer"),
    f"{JSON_RPC}authentication.plain_token": ("services.0.backends.jsonRpc.auth.type", "header"),
    "default_validation_mode": ("services.0.validation", "eager"),
    "default_request_timeout_seconds": ("services.0.backends.jsonRpc.timeoutSeconds", 20),
    "default_max_body_size_bytes": ("services.0.maxBodyBytes", 100),
    "http_transport.max_conns_per_host": ("services.0.backends.jsonRpc.maxConnections", 77),
    "http_transport.dial_timeout_seconds": ("services.0.backends.jsonRpc.dialTimeoutSeconds", 4),
    "response_compression.enabled": ("relayer.responseCompression.enabled", True),
    "response_compression.min_size_bytes": ("relayer.responseCompression.minBytes", 2048),
    "relay_meter.enabled": ("relayer.metering.enabled", False),
    "relay_meter.fail_behavior": ("relayer.metering.whenUnavailable", "closed"),
    "pprof.enabled": ("debug", True),
    "logging.level": ("relayer.logLevel", "warning"),
    "pocket_node.chain_id": ("chain.id", "pocket-beta"),
    "pocket_node.query_timeout_seconds": ("chain.queryTimeoutSeconds", 8),
    "transaction.gas_price": ("chain.gasPrice", "0.00001upokt"),
    "transaction.gas_adjustment": ("chain.gasAdjustment", 2.0),
    "block_time_seconds": ("chain.blockSeconds", 45),
    "default_service_factor": ("services.0.serviceFactor", 0.5),
    "service_factors": ("services.0.serviceFactor", 0.25),
}


NOT_OF_MINER = {("miner", "logging.level"), ("miner", "pprof.enabled")}


def at(tree, path):
    for part in path.split("."):
        tree = tree[int(part)] if part.isdecimal() else tree[part]
    return tree


def converted(relayer=RELAYER, miner=None):
    found = convert(relayer, miner or {}, "main", "pocket")
    RelayMiner.model_validate(found.relay_miner)
    return found


@pytest.mark.parametrize("path", [*(f"relayer/{p}" for p in OF_RELAYER), *(f"miner/{p}" for p in OF_MINER)])
def test_a_setting_alone_is_taken_or_named_with_a_reason(path):
    kind, _, setting = path.partition("/")
    value = (OF_RELAYER if kind == "relayer" else OF_MINER)[setting]
    base = converted()
    if kind == "relayer":
        found = converted(put(RELAYER, setting, value))
    else:
        found = converted(RELAYER, put({"pocket_node": {}}, setting, value))
    assert [note for note in found.notes if note.kind == "unknown" and "not defined" not in note.text] == []
    if setting in TAKEN and (kind, setting) not in NOT_OF_MINER:
        place, expected = TAKEN[setting]
        assert at(found.relay_miner["spec"], place) == expected
        return
    said = [note for note in found.notes if note not in base.notes]
    read = setting.startswith(("keys.", f"{ETH}timeout_profile", f"{ETH}pool_profile", f"{JSON_RPC}authentication"))
    same = setting in ("pocket_node.grpc_insecure", f"{CHECK}enabled", "pprof.enabled")
    assert said or read or same, "it vanished"


def test_no_setting_is_called_unknown_because_another_one_overrides_it():
    relayer, miner = RELAYER, {"pocket_node": {}}
    for setting, value in OF_RELAYER.items():
        relayer = put(relayer, setting, value)
    for setting, value in OF_MINER.items():
        miner = put(miner, setting, value)
    assert [note for note in converted(relayer, miner).notes if note.kind == "unknown"] == []


def test_profiles_apply_to_the_backends_that_name_them():
    tree = RELAYER
    for path, value in OF_RELAYER.items():
        if "profile" in path:
            tree = put(tree, path, value)
    backend = converted(tree).relay_miner["spec"]["services"][0]["backends"]["jsonRpc"]
    assert (backend["timeoutSeconds"], backend["dialTimeoutSeconds"], backend["maxConnections"]) == (7, 3, 44)


def test_a_health_check_is_taken_as_a_whole():
    tree = RELAYER
    for path, value in OF_RELAYER.items():
        if path.startswith(CHECK):
            tree = put(tree, path, value)
    found = converted(tree)
    assert found.relay_miner["spec"]["services"][0]["backends"]["jsonRpc"]["healthCheck"] == {
        "method": "POST", "path": "/h", "body": "{}", "expectBody": "ok", "intervalSeconds": 5.0, "timeoutSeconds": 2.0,
        "unhealthyThreshold": 2, "healthyThreshold": 2, "expectStatus": [200],
    }  # fmt: skip
    assert {
        n.path.partition("health_check.")[2].partition(".")[0] for n in found.notes if "health_check" in n.path
    } == {"headers", "content_type"}


@pytest.mark.parametrize("default", ["websocket", "grpc", "WebSocket"])
def test_a_default_that_needs_none_is_left_out_and_explained(default):
    backends = {"websocket": {"url": "ws://b"}, "grpc": {"url": "b:1"}}
    tree = put(put(RELAYER, f"{ETH}backends", backends), f"{ETH}default_backend", default)
    found = converted(tree)
    assert "defaultBackend" not in found.relay_miner["spec"]["services"][0]
    (note,) = [note for note in found.notes if note.path.endswith("default_backend")]
    assert (note.kind, "without a default" in note.text) == ("changed", True)


def test_a_default_that_is_no_transport_is_named():
    found = converted(put(RELAYER, f"{ETH}default_backend", "ws"))
    assert [(n.kind, n.path) for n in found.notes if "default_backend" in n.path] == [
        ("unknown", "services.eth.default_backend")
    ]


def test_endpoints_may_be_objects():
    urls = [{"url": "http://a", "name": "first"}, "http://b", {"url": "http://c", "zone": "x"}]
    found = converted(put(RELAYER, f"{ETH}backends", {"jsonrpc": {"urls": urls}}))
    backend = found.relay_miner["spec"]["services"][0]["backends"]["jsonRpc"]
    assert backend["urls"] == ["http://a", "http://b", "http://c"]
    notes = {note.path: note.kind for note in found.notes}
    assert notes["relayer: services.eth.backends.jsonrpc.urls[2].zone"] == "unknown"
    assert notes["relayer: services.eth.backends.jsonrpc.urls"] == "left"


def test_a_misspelled_setting_is_never_explained_away():
    for path in ("redis.poolsize", "services.eth.backend", "loging.level", "transaction.gasprice", "pprof.enable"):
        found = converted(put(RELAYER, path, 1))
        assert [note.path for note in found.notes if note.kind == "unknown"] == [f"relayer: {path}"]


def test_the_report_does_not_claim_what_is_not_so():
    """Profiles, compression and levels used to be reported as without counterpart although they were lost."""
    found = converted(put(put(RELAYER, "pprof.enabled", False), "response_compression.enabled", False))
    assert "debug" not in found.relay_miner["spec"]
    assert found.relay_miner["spec"]["relayer"]["responseCompression"] == {"enabled": False}
    assert converted(put(RELAYER, "logging.level", "trace")).relay_miner["spec"]["relayer"]["logLevel"] == "debug"


def test_the_configuration_of_the_chain_program_s_relayminer_is_converted():
    found = converted(yaml.safe_load(NODE_RELAYMINER))
    spec = RelayMiner.model_validate(found.relay_miner).spec
    assert (spec.chain.nodes[0].grpc, spec.chain.nodes[0].rpc) == ("grpc://node:9090", "http://node:26657")
    anvil, llm = spec.services
    assert (anvil.id, anvil.validation, anvil.max_body_bytes) == ("anvil", "eager", 20 << 20)
    assert anvil.backends.json_rpc.urls == ("http://anvil:8547",)
    assert anvil.backends.json_rpc.headers == {"X-A": "b"}
    assert anvil.backends.rest.urls == ("http://rest:8080",)
    assert anvil.backends.web_socket.urls == ("ws://anvil:8546",)
    assert (llm.backends.json_rpc.timeout_seconds, llm.max_body_bytes) == (120, 1 << 30)
    assert found.secrets["main-anvil-jsonrpc"] == {"username": "user", "password": "pwd"}
    assert [note for note in found.notes if note.kind == "unknown"] == []
    left = {note.path for note in found.notes if note.kind == "left"}
    assert {"suppliers[0].listen_url", "suppliers[0].signing_key_names", "pocket_node.tx_node_rpc_url"} <= left
    assert {"relayer: smt_store_path", "relayer: ping.addr"} <= left


@pytest.mark.parametrize(
    ("text", "size"), [("20MB", 20 << 20), ("1GB", 1 << 30), (512, 512), ("4k", 4096), ("7 MiB", 7 << 20)]
)
def test_sizes_are_read(text, size):
    assert size_bytes(text, "max_body_size") == size


@pytest.mark.parametrize("text", ["", "big", "-1", "1.5MB", "10XB"])
def test_what_is_no_size_is_named(text):
    with pytest.raises(ManifestError, match="max_body_size: not a size"):
        size_bytes(text, "max_body_size")


def places(tree, path=()):
    """Return the paths of all settings, also of those that hold others."""
    rows = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for name, value in rows for found in ((*path, name), *places(value, (*path, name)))]


def whole_tree(rows, base):
    for path, value in rows.items():
        if not any(path.startswith(f"{other}.") for other in rows):
            base = put(base, path, value)
    return base


WHOLE = {"relayer": whole_tree(OF_RELAYER, RELAYER), "miner": whole_tree(OF_MINER, {}),
         "node": yaml.safe_load(NODE_RELAYMINER)}  # fmt: skip
PLACES = [(name, place) for name, tree in WHOLE.items() for place in places(tree)]
ODD = st.sampled_from([
    None, True, -1, 1.5, 10**30, float("nan"), float("inf"), "", "x", "a b", "http://[::1", "http://user:s3cret@[",
    "http://x:99999", [], [None], [1], [[]], ["x"], {}, {1: 2}, {"a": None},
])  # fmt: skip


@settings(max_examples=examples(200))
@given(st.sampled_from(PLACES), ODD)
def test_a_value_of_another_shape_is_converted_or_refused_in_words(chosen, value):
    name, (*folders, last) = chosen
    trees = copy.deepcopy(WHOLE)
    node = trees[name]
    for folder in folders:
        node = node[folder]
    node[last] = value
    said = ""
    try:
        converted(trees["node" if name == "node" else "relayer"], trees["miner"])
    except ManifestError as error:
        said = str(error)
    except ValidationError:
        pass  # the command reports it as an invalid RelayMiner
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("listen_addr", "localhost", "listen_addr"), (f"{JSON_RPC}max_retries", "some", f"{JSON_RPC}max_retries"),
        (f"{JSON_RPC}headers", "A: b", f"{JSON_RPC}headers: expected settings with names"),
        (f"{JSON_RPC}urls", ["http://[::1"], "urls: 'http://\\[::1' is not a URL"),
        ("default_request_timeout_seconds", "30s soon", "default_request_timeout_seconds: not a duration"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_setting(setting, value, said):
    with pytest.raises(ManifestError, match=said):
        converted(put(RELAYER, setting, value))


def test_urls_may_be_a_single_text():
    relayer = put(RELAYER, f"{JSON_RPC}urls", "http://one:8545")
    assert converted(relayer).relay_miner["spec"]["services"][0]["backends"]["jsonRpc"]["urls"] == ["http://one:8545"]


@pytest.fixture
def folder(tmp_path):
    keys = {"keys": [f"{key('alice').scalar:064x}"]}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    relayer = put(RELAYER, "keys.keys_file", str(tmp_path / "keys.yaml"))
    (tmp_path / "config").mkdir()
    (tmp_path / "config/relayer.yaml").write_text(yaml.safe_dump(relayer))
    (tmp_path / "config/miner.yaml").write_text(yaml.safe_dump({"block_time_seconds": 12}))
    return tmp_path


COMPOSE = """
services:
  redis: {image: "redis:8", command: redis-server --appendonly yes}
  relayer:
    image: go
    command: ["relayer", "--config", "/etc/pocket/relayer.yaml", "--redis-url=redis://compose:6379"]
    volumes: ["./config:/etc/pocket:ro"]
  miner:
    image: go
    command: miner --config /miner.yaml
    configs: [{source: miner, target: /miner.yaml}]
configs:
  miner: {file: ./config/miner.yaml}
"""


def run(*words):
    return CliRunner().invoke(main, ["migrate", *map(str, words)], catch_exceptions=False)


def test_a_compose_file_is_followed_to_its_configurations(folder):
    (folder / "compose.yaml").write_text(COMPOSE)
    done = run("--compose", folder / "compose.yaml", "--output", folder / "out")
    assert done.exit_code == 0, done.output
    found = load_manifests([folder / "out"])
    (spec,) = [row.spec for row in found.relay_miners]
    assert (spec.redis.url, spec.chain.block_seconds) == ("redis://compose:6379", 12)
    assert [row.spec.operator_address for row in found.suppliers] == [address("alice")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("volumes: [\"./config:/etc/pocket:ro\"]", "volumes: [data:/etc/pocket]"), "no volume and no config provides"),
        (
            ("volumes: [\"./config:/etc/pocket:ro\"]", "volumes: [\"${DIR:-./config}:/etc/pocket:ro\"]"),
            "Its volumes have variables: name the output of `docker compose",
        ),
        (("relayer\", \"--config", "redis\", \"--config"), "no service runs `relayer"),
        (("miner --config /miner.yaml", "relayer --config /miner.yaml"), "two services run a relayer with different"),
        (("services:", "sevices:"), "not a docker compose file"),
    ],
)  # fmt: skip
def test_a_compose_file_that_leads_nowhere_is_refused(folder, change, why):
    (folder / "compose.yaml").write_text(COMPOSE.replace(*change))
    with pytest.raises(ManifestError, match=why):
        read_compose(folder / "compose.yaml")


def test_replicas_and_mounts_of_a_compose_file_are_followed(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    relayer = put(RELAYER, "keys.keys_file", "/keys/keys.yaml")
    (folder / "config/relayer.yaml").write_text(yaml.safe_dump(relayer))
    replica = "configs: [{source: miner, target: /miner.yaml}]\n  other:\n    command: miner --config /miner.yaml "
    text = COMPOSE.replace('ro"]', 'ro", "~/:/keys"]').replace(
        "configs: [", f"{replica}--consumer-name other\n    configs: [", 1
    )
    (folder / "compose.yaml").write_text(text)
    done = run("--compose", folder / "compose.yaml", "--output", folder / "out")
    assert done.exit_code == 0, done.output
    assert [row.spec.operator_address for row in load_manifests([folder / "out"]).suppliers] == [address("alice")]


def test_options_of_the_command_line_replace_settings(folder):
    words = "miner --keys-file /k.yaml --redis-url redis://r:1 --consumer-name me --hot-reload --session-ttl 1h"
    text = COMPOSE.replace("command: miner --config /miner.yaml", f"command: {words}")
    (folder / "compose.yaml").write_text(text)
    assert read_compose(folder / "compose.yaml").miner == {
        "keys": {"keys_file": "/k.yaml"}, "redis": {"url": "redis://r:1", "consumer_name": "me"},
        "hot_reload_enabled": "", "session_ttl": "1h",
    }  # fmt: skip


def test_a_config_map_holds_a_configuration(folder):
    config_map = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "r"},
        "data": {"relayer.yaml": (folder / "config/relayer.yaml").read_text()},
    }  # fmt: skip
    (folder / "map.yaml").write_text(json.dumps(config_map))
    done = run("--relayer", folder / "map.yaml", "--output", folder / "out")
    assert done.exit_code == 0, done.output
    config_map["data"]["other.yaml"] = "a: 1"
    (folder / "map.yaml").write_text(json.dumps(config_map))
    done = run("--relayer", folder / "map.yaml", "--output", folder / "out")
    assert "2 configurations in ConfigMaps" in done.output


def test_keys_of_a_keyring_become_secrets_and_suppliers(folder):
    vectors = Path(__file__).resolve().parents[1] / "vectors/keyrings"
    keyring = {"backend": "test", "dir": str(vectors), "key_names": ["first", "third"]}
    (folder / "r.yaml").write_text(yaml.safe_dump(put(RELAYER, "keys", {"keyring": keyring})))
    done = run("--relayer", folder / "r.yaml", "--output", folder / "out")
    assert done.exit_code == 0, done.output
    found = load_manifests([folder / "out"])
    assert len(found.suppliers) == 2
    for row in found.suppliers:
        secret = found.secrets[row.spec.key.secret_ref.name]["hex"]
        assert secret not in done.output
        from pocket.protocol.crypto.ecdsa import PrivateKey  # noqa: PLC0415

        assert address_of(PrivateKey.from_hex(secret).public_key) == row.spec.operator_address
    (folder / "r.yaml").write_text(yaml.safe_dump(put(RELAYER, "keys", {"keyring": {**keyring, "backend": "os"}})))
    done = run("--relayer", folder / "r.yaml", "--output", folder / "out2")
    assert done.exit_code == 1
    assert "pocketd keys export" in done.output
    files = {"backend": "os", "dir": str(vectors / "home-os")}
    (folder / "r.yaml").write_text(yaml.safe_dump(put(RELAYER, "keys", {"keyring": files})))
    words = ["migrate", "--relayer", str(folder / "r.yaml"), "--output", str(folder / "out3")]
    done = CliRunner().invoke(main, words, input="ospassword\n", catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [row.spec.operator_address for row in load_manifests([folder / "out3"]).suppliers] == [
        "pokt19rl4cm2hmr8afy4kldpxz3fka4jguq0apxjfrd"
    ]


def test_keys_that_pocketd_s_relayminer_names_are_migrated(folder, monkeypatch):
    """They used to be left out, and no line of the report said so."""
    vectors = Path(__file__).resolve().parents[1] / "vectors/keyrings"
    tree = yaml.safe_load(NODE_RELAYMINER)
    tree["suppliers"][0]["signing_key_names"] = ["third"]
    (folder / "r.yaml").write_text(yaml.safe_dump(tree))
    done = run("--relayer", folder / "r.yaml", "--keyring", vectors, "--output", folder / "out")
    assert done.exit_code == 0, done.output
    assert {row.spec.operator_address for row in load_manifests([folder / "out"]).suppliers} == {
        "pokt13s825rdr6wlxrq58zk85kwvyjyze873md6xye2", "pokt1kjnlaar8npevnjz85e5tnruk3skrtc8xyyxcq3",
    }  # fmt: skip
    monkeypatch.setenv("HOME", str(folder))
    done = run("--relayer", folder / "r.yaml", "--output", folder / "none")
    assert done.exit_code == 0, done.output
    assert "Key ignored: second: no keyring in ~/.pocket: name its folder with --keyring" in done.output
    assert "Key ignored: third: " in done.output
    shutil.copytree(vectors / "keyring-test", folder / ".pocket/keyring-test")
    done = run("--relayer", folder / "r.yaml", "--output", folder / "home")
    assert "(2 suppliers)" in done.output
    tree["default_signing_key_names"] = {"second": 1}
    (folder / "r.yaml").write_text(yaml.safe_dump(tree))
    done = run("--relayer", folder / "r.yaml", "--output", folder / "bad")
    assert "default_signing_key_names: expected a list" in done.output


@pytest.mark.parametrize(
    ("value", "path"),
    [(5, "keys"), ({"keyring": "test"}, "keys.keyring"), ({"keyring": {"key_names": 5}}, "key_names")],
)
def test_keys_of_another_shape_are_refused_by_their_path(folder, value, path):
    (folder / "r.yaml").write_text(yaml.safe_dump(put(RELAYER, "keys", value)))
    done = run("--relayer", folder / "r.yaml", "--output", folder / "out")
    assert done.exit_code == 1
    assert f"{path}: expected" in done.output


def test_addresses_of_this_machine_are_named():
    found = converted(put(RELAYER, f"{ETH}backends", {"rest": {"urls": ["http://b", "localhost:1"]}}))
    found.notes += converted(put(RELAYER, "pocket_node.query_node_grpc_url", "127.0.0.2:9090")).notes
    found.notes += converted(put(RELAYER, "redis.url", "redis://[::1]")).notes
    places = {note.path for note in found.notes if "names this machine" in note.text}
    assert {"services.eth.backends.rest.urls", "pocket_node.query_node_grpc_url", "redis.url"} <= places


def test_one_source_is_named(folder):
    assert "name either --relayer or --compose" in run("--output", folder / "out").output
