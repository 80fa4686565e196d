"""The Go relay miner's files become valid resources, and settings without a counterpart are reported."""

import functools
import stat

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey as SealingKey

from pocket.api.base import ManifestError
from pocket.api.manifests import load_manifests
from pocket.api.relayminer import RelayMiner
from relayctl.main import main
from relayctl.migrating.migration import convert, supplier_name
from world import address, key

RELAYER = """
listen_addr: 0.0.0.0:8545
redis: {url: "redis://:secret-word@redis.local:6379/0", pool_size: 100, namespace: {base_prefix: ha}}
pocket_node:
  query_node_rpc_url: tcp://node:26657
  query_node_grpc_url: node:9090
  grpc_insecure: true
  chain_id: pocket-beta
keys: {keys_file: KEYS}
default_validation_mode: optimistic
default_max_body_size_bytes: 5242880
relay_meter: {enabled: true, fail_behavior: closed, cache_ttl: 2h}
pool_profiles: {high: {max_conns_per_host: 800}}
metrics: {enabled: true, addr: 0.0.0.0:9090}
logging: {level: warn, async: true}
services:
  eth:
    validation_mode: eager
    timeout_profile: fast
    pool_profile: high
    default_backend: jsonrpc
    backends:
      jsonrpc:
        urls: [http://geth-1:8545, http://geth-2:8545]
        load_balancing: round_robin
        headers: {X-Env: prod}
        authentication: {username: user, password: pass-word}
        health_check: {enabled: true, endpoint: /health, interval_seconds: 5, expected_status: 200, method: GET}
        max_retries: 2
        recovery_timeout_seconds: 20
      websocket: {url: "http://geth-1:8546"}
  llm:
    timeout_profile: streaming
    backends:
      rest: {url: "http://llm:8000", base_path: /v1, authentication: {bearer_token: bear-er}}
      grpc: {url: "10.0.0.7:50051"}
"""
MINER = """
redis: {url: "redis://:secret-word@redis.local:6379/0", consumer_name: miner-1}
pocket_node:
  {query_node_rpc_url: "tcp://node:26657", query_node_grpc_url: "node:9090", grpc_insecure: true, chain_id: pocket-beta}
transaction: {gas_price: 0.00001upokt, gas_adjustment: 1.5, batching: true}
block_time: 60s
default_service_factor: 0.01
service_factors: {llm: 0.5}
leader_election: {ttl_seconds: 30}
smst_live_root_checkpoint_interval: 10
made_up: 1
"""


@pytest.fixture
def files(tmp_path):
    keys = tmp_path / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": [f"{key(name).scalar:064x}" for name in ("alice", "bob")] + ["nonsense"]}))
    (tmp_path / "relayer.yaml").write_text(RELAYER.replace("KEYS", str(keys)))
    (tmp_path / "miner.yaml").write_text(MINER)
    return tmp_path


def migrated(files, *more):
    arguments = ["migrate", "--relayer", str(files / "relayer.yaml"), "--miner", str(files / "miner.yaml"),
                 "--output", str(files / "out"), *more]  # fmt: skip
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_the_resources_say_what_the_files_said():
    found = convert(yaml.safe_load(RELAYER), yaml.safe_load(MINER), "main", "pocket")
    spec = RelayMiner.model_validate(found.relay_miner).spec
    assert spec.chain.id == "pocket-beta"
    assert (spec.chain.nodes[0].grpc, spec.chain.nodes[0].rpc) == ("grpc://node:9090", "http://node:26657")
    assert (spec.chain.gas_price, spec.chain.gas_adjustment, spec.chain.block_seconds) == ("0.00001upokt", 1.5, 60.0)
    assert spec.redis.url_secret_ref.name == "main-redis"
    assert (spec.relayer.port, spec.relayer.log_level) == (8545, "warning")
    assert spec.relayer.metering.when_unavailable == "closed"
    eth, llm = spec.services
    assert (eth.id, eth.validation, eth.max_body_bytes, eth.service_factor) == ("eth", "eager", 5242880, 0.01)
    http = eth.backends.json_rpc
    assert http.urls == ("http://geth-1:8545", "http://geth-2:8545")
    assert (http.strategy, http.max_retries, http.recovery_seconds) == ("round_robin", 2, 20)
    assert (http.timeout_seconds, http.max_connections, http.headers) == (30, 800, {"X-Env": "prod"})
    assert (http.auth.type, http.auth.secret_ref.name) == ("basic", "main-eth-jsonrpc")
    assert (http.health_check.path, http.health_check.expect_status) == ("/health", (200,))
    assert eth.backends.web_socket.urls == ("ws://geth-1:8546",)
    assert (llm.validation, llm.service_factor) == ("optimistic", 0.5)
    assert (llm.backends.rest.timeout_seconds, llm.backends.rest.base_path) == (600, "/v1")
    assert llm.backends.grpc.urls == ("grpc://10.0.0.7:50051",)
    assert found.secrets["main-eth-jsonrpc"] == {"username": "user", "password": "pass-word"}
    assert found.secrets["main-llm-rest"] == {"token": "bear-er"}


def test_every_setting_is_taken_or_named_with_a_reason():
    found = convert(yaml.safe_load(RELAYER), yaml.safe_load(MINER), "main", "pocket")
    said = {note.path: note for note in found.notes}
    assert said["miner: made_up"].kind == "unknown"
    for path in ("relayer: redis.pool_size", "relayer: redis.namespace.base_prefix", "miner: redis.consumer_name",
                 "relayer: metrics.addr", "miner: leader_election.ttl_seconds", "relayer: logging.async",
                 "miner: smst_live_root_checkpoint_interval", "relayer: relay_meter.cache_ttl"):  # fmt: skip
        assert said[path].kind == "left", path
        assert said[path].text
    assert [note.path for note in found.notes if note.kind == "unknown"] == ["miner: made_up"]


def test_the_command_writes_what_validates_and_keeps_secrets_apart(files):
    done = migrated(files)
    assert done.exit_code == 0, done.output
    out = files / "out"
    assert stat.S_IMODE((out / "secrets.yaml").stat().st_mode) == 0o600
    manifests = load_manifests([out])
    assert {s.spec.operator_address for s in manifests.suppliers} == {address("alice"), address("bob")}
    assert manifests.secrets["main-redis"]["url"] == "redis://:secret-word@redis.local:6379/0"
    name = supplier_name(address("alice"))
    assert manifests.secrets[f"{name}-key"]["hex"] == f"{key('alice').scalar:064x}"
    public = (out / "relayminer.yaml").read_text() + (out / "suppliers.yaml").read_text() + done.output
    for secret in ("secret-word", "pass-word", "bear-er", f"{key('alice').scalar:064x}"):
        assert secret not in public
    assert "entry 3" in done.output
    assert "made_up" in done.output
    assert migrated(files).exit_code == 0, "it can be run again"


CREDENTIALS = """
pocket_node: {query_node_rpc_url: "tcp://node:26657", query_node_grpc_url: "tcp://node:9090", grpc_insecure: true}
services:
  eth:
    backends:
      jsonrpc: {url: "https://rpc.example/v2/s3cretKeyInPath", headers: {X-Env: prod, X-Api-Key: s3cret-1}}
      rest: {url: "http://us%65r:s3cret-2@rest:80/a@b"}
      cometbft: {url: "http://comet?apikey=s3cretInQuery"}
  llm:
    backends:
      rest: {url: "http://llm", headers: {Cookie: s3cret-4, authorization: "Bearer s3cret-3"}}
"""


def test_credentials_in_headers_and_urls_become_secrets_or_are_named(files):
    (files / "relayer.yaml").write_text(CREDENTIALS)
    done = migrated(files, "--keys-file", str(files / "keys.yaml"))
    assert done.exit_code == 0, done.output
    assert "s3cret" not in done.output
    manifests = load_manifests([files / "out"])
    assert {name: entries for name, entries in manifests.secrets.items() if not name.startswith("supplier")} == {
        "main-redis": {"url": "redis://:secret-word@redis.local:6379/0"},
        "main-eth-jsonrpc": {"value": "s3cret-1"}, "main-eth-rest": {"username": "user", "password": "s3cret-2"},
        "main-llm-rest": {"value": "Bearer s3cret-3"},
    }  # fmt: skip
    eth, llm = (service.backends.by_type() for service in manifests.relay_miners[0].spec.services)
    rpc, rest = eth["jsonRpc"], eth["rest"]
    assert (rpc.headers, rpc.auth.type, rpc.auth.header) == ({"X-Env": "prod"}, "header", "X-Api-Key")
    assert (rest.urls, rest.auth.type) == (("http://rest:80/a@b",), "basic")
    (only,) = llm.values()
    assert (only.headers, only.auth.header) == ({"Cookie": "s3cret-4"}, "authorization")
    for path in ("eth.backends.jsonrpc.urls", "eth.backends.cometbft.urls", "llm.backends.rest.headers.Cookie"):
        (line,) = (row for row in done.output.splitlines() if f"services.{path}:" in row)
        assert "stays in relayminer.yaml" in line
    assert "relayer and miner differ" not in done.output, "two forms of one address"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (files / "out").iterdir()} == {0o600}


def test_a_difference_between_the_files_is_reported_without_a_password(files):
    (files / "miner.yaml").write_text(MINER.replace("secret-word", "other-word"))
    done = migrated(files)
    assert "redis.url: relayer and miner differ" in done.output
    assert "word" not in done.output


def test_keys_are_sealed_where_the_operators_key_is_given(files):
    import base64  # noqa: PLC0415 - beside its use

    public = base64.b64encode(bytes(SealingKey.generate().public_key)).decode()
    done = migrated(files, "--public-key", public)
    assert done.exit_code == 0, done.output
    suppliers = list(yaml.safe_load_all((files / "out/suppliers.yaml").read_text()))
    assert all(s["spec"]["key"]["sealed"] for s in suppliers)
    assert "hex" not in (files / "out/secrets.yaml").read_text()


def test_secrets_are_readable_by_their_owner_only_even_where_a_file_was_there(files):
    (files / "out").mkdir()
    (files / "out/secrets.yaml").write_text("old")
    (files / "out/secrets.yaml").chmod(0o644)
    assert migrated(files).exit_code == 0
    assert (files / "out/secrets.yaml").stat().st_mode & 0o777 == 0o600
    assert "old" not in (files / "out/secrets.yaml").read_text()


def test_a_file_of_an_earlier_run_does_not_stay_between_new_ones(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/suppliers.yaml").write_text("old")
    (tmp_path / "relayer.yaml").write_text(RELAYER.replace("keys: {keys_file: KEYS}\n", ""))
    done = CliRunner().invoke(
        main, ["migrate", "--relayer", str(tmp_path / "relayer.yaml"), "--output", str(tmp_path / "out")]
    )
    assert done.exit_code == 1
    assert "suppliers.yaml is of an earlier run: remove it, or choose another --output" in done.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["suppliers.yaml"]


def test_an_output_that_cannot_be_written_is_named(files):
    (files / "out/suppliers.yaml").mkdir(parents=True)
    done = migrated(files)
    assert done.exit_code == 1
    assert f"{files / 'out/suppliers.yaml'}: Is a directory" in done.output


@pytest.mark.parametrize(
    ("relayer", "said"),
    [
        ("{}", "services: the relayer's configuration has none"),
        ("services: {eth: {backends: {jsonrpc: {url: 'http://b'}}}}", "query_node_grpc_url"),
        ("services: {eth: {backends: {ws: {url: 'ws://b'}}}}\npocket_node: {query_node_rpc_url: 'http://n', "
         "query_node_grpc_url: 'n:1'}", "no backend"),
        ("services: {eth: {backends: {jsonrpc: {url: 'http://b'}}}}\nredis: {url: 'redis-sentinel://a'}\npocket_node: "
         "{query_node_rpc_url: 'http://n', query_node_grpc_url: 'n:1'}", "redis-sentinel:// is not supported"),
        ("services: {eth: {backends: {jsonrpc: {url: 'http://b'}}}}\npocket_node: {query_node_rpc_url: 'http://u:p@n', "
         "query_node_grpc_url: 'n:1'}", "pocket_node.query_node_rpc_url: holds a login"),
        ("services: {eth: {backends: {rest: {urls: ['http://u:p@a', 'http://b']}}}}\npocket_node: {query_node_rpc_url: "
         "'http://n', query_node_grpc_url: 'n:1'}", "services.eth.backends.rest.urls: the endpoints have different"),
        ("services: {eth: {backends: {jsonrpc: {url: 'http://b'}}}}\nredis: {url: '${REDIS_URL}'}\npocket_node: "
         "{query_node_rpc_url: 'http://n', query_node_grpc_url: 'n:1'}", "redis.url: write redis://host:port"),
        ("- 1", "expected the configuration"), ("{", "not YAML"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_in_words(tmp_path, relayer, said):
    (tmp_path / "relayer.yaml").write_text(relayer)
    done = CliRunner().invoke(
        main, ["migrate", "--relayer", str(tmp_path / "relayer.yaml"), "--output", str(tmp_path / "out")]
    )
    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output


@functools.cache
def converted() -> tuple[dict, dict]:
    """Return a configuration and the RelayMiner that it is converted to."""
    base = yaml.safe_load(RELAYER)
    return base, convert(base, {}, "main", "pocket").relay_miner


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["redis", "keys", "metrics", "logging", "simulation", "extra"]), TREES))
def test_arbitrary_further_settings_change_nothing_but_the_report(more):
    base, expected = converted()
    more.pop("redis", None)
    assert convert({**more, **base}, {}, "main", "pocket").relay_miner == expected


def test_a_duration_that_is_none_is_named():
    relayer = {**yaml.safe_load(RELAYER), "default_request_timeout_seconds": "soon"}
    with pytest.raises(ManifestError, match="default_request_timeout_seconds: not a duration"):
        convert(relayer, {}, "main", "pocket")
