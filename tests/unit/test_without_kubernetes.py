"""The rendered files, the compose file and the systemd units belong together, and the programs accept them."""

import configparser
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pocket.api.workload import MinerConfig, RelayerConfig, parse_reloadable_config, read_config
from pocket.keys.loading import load_keys_directory
from pocket_operator import install
from pocket_relayer.backends.credentials import Credentials
from relayctl.key_files import key_secret
from relayctl.main import main
from resources import address, changed, key_of, relay_miner, supplier

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "examples/compose/compose.yaml").read_text())
UNITS = sorted((ROOT / "examples/systemd").glob("*.service"))
MODELS = {"relayer": RelayerConfig, "miner": MinerConfig}
URL = "redis://:p4ss@127.0.0.1:6379/0"


def unit(path):
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(path)
    return parser


def rendered(folder, *more, documents=None):
    backend = {"urls": ["http://geth:8545"], "auth": {"type": "bearer", "secretRef": {"name": "geth"}}}
    miner = changed(relay_miner("ns"), "spec.services", [{"id": "eth", "backends": {"jsonRpc": backend}}])
    alice = changed(supplier("ns"), "spec.services", ["eth"])
    keys = [key_secret("alice-key", "ns", {"hex": key_of("alice")}), key_secret("geth", "ns", {"token": "t0ken"})]
    path = folder / "resources.yaml"
    path.write_text(yaml.safe_dump_all(documents or [miner, alice, *keys]))
    words = ["config", "render", str(path), "-o", str(folder / "pocket"), *map(str, more)]
    return CliRunner().invoke(main, words, catch_exceptions=False)


def test_the_programs_read_what_was_rendered(tmp_path):
    root = tmp_path / "pocket"
    done = rendered(tmp_path, "--root", root, "--data", tmp_path / "data")
    assert done.exit_code == 0, done.output
    for name, model in MODELS.items():
        config = read_config(model, root / f"{name}.json", {"POCKET_REDIS_URL": URL})
        assert (config.redis_url, config.prefix) == (URL, "ns-main")
        assert list(load_keys_directory(config.keys_dir).keys) == [address("alice")]
        assert config.data_dir == tmp_path / "data" / name
    relayer = read_config(RelayerConfig, root / "relayer.json", {"POCKET_REDIS_URL": URL})
    hot = parse_reloadable_config(relayer.hot_file.read_bytes(), relayer.hot_file)
    assert hot.limits() == {address("alice"): frozenset({"eth"})}
    backend = hot.services[0].backends.json_rpc
    assert Credentials(relayer.secrets_dir).headers(backend)["Authorization"] == "Bearer t0ken"
    ports = {
        read_config(model, root / f"{name}.json", {"POCKET_REDIS_URL": URL}).admin_port
        for name, model in MODELS.items()
    }
    assert len(ports) == 2, "both run on one machine"


@pytest.mark.parametrize(
    ("words", "relay_host", "admin_host"),
    [((), "0.0.0.0", "127.0.0.1"), (("--host", "10.0.0.5", "--admin-host", "10.1.0.5"), "10.0.0.5", "10.1.0.5")],
)
def test_the_admin_ports_are_on_the_loopback_unless_an_address_is_given(tmp_path, words, relay_host, admin_host):
    assert rendered(tmp_path, *words).exit_code == 0
    configs = {
        name: read_config(model, tmp_path / f"pocket/{name}.json", {"POCKET_REDIS_URL": URL})
        for name, model in MODELS.items()
    }
    assert configs["relayer"].host == relay_host
    assert {config.admin_host for config in configs.values()} == {admin_host}


def test_only_the_owner_reads_the_files_and_no_output_has_a_secret(tmp_path):
    done = rendered(tmp_path)
    files = [path for path in (tmp_path / "pocket").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert key_of("alice") not in done.output
    for name in ("relayer.json", "miner.json", "hot.json"):
        text = (tmp_path / "pocket" / name).read_text()
        assert "t0ken" not in text
        assert key_of("alice") not in text


def test_rendering_again_replaces_and_names_keys_that_are_no_longer_declared(tmp_path):
    assert rendered(tmp_path).exit_code == 0
    other = [
        relay_miner("ns"),
        supplier("ns", "bob"),
        key_secret("bob-key", "ns", {"hex": key_of("bob")}),
    ]
    done = rendered(tmp_path, documents=other)
    assert done.exit_code == 0
    assert f"{address('alice')} belongs to no Supplier" in done.output
    assert {path.name for path in (tmp_path / "pocket/keys").iterdir()} == {address("alice"), address("bob")}


def test_what_is_missing_is_named(tmp_path):
    assert "has no key hex" in rendered(tmp_path, documents=[relay_miner("ns"), supplier("ns")]).output
    assert "hold no RelayMiner" in rendered(tmp_path, documents=[supplier("ns")]).output
    two = [relay_miner("ns", "a"), relay_miner("ns", "b")]
    assert "the files have: a, b" in rendered(tmp_path, documents=two).output
    assert rendered(tmp_path, "--name", "a", documents=two).exit_code == 0


@pytest.mark.processes
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_accepts_the_units(path, tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    there = tmp_path / path.name
    there.write_text(path.read_text().replace("/opt/pocket/bin/python", sys.executable))
    done = subprocess.run([program, "verify", there], capture_output=True, text=True, check=False)
    about_ours = [line for line in done.stderr.splitlines() if there.name in line]
    assert (done.returncode, about_ours) == (0, [])
    broken = tmp_path / "broken.service"
    broken.write_text(there.read_text().replace("Restart=always", "Restart=perhaps"))
    assert "perhaps" in subprocess.run([program, "verify", broken], capture_output=True, text=True, check=False).stderr


def commands():
    for path in (row for row in UNITS if row.stem != "pocket-signer"):
        yield path.stem.removeprefix("pocket-"), shlex.split(unit(path)["Service"]["ExecStart"])
    for name in MODELS:
        yield name, COMPOSE["services"][name]["command"]


@pytest.mark.processes
@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_the_real_program_accepts_the_command_and_the_rendered_file(tmp_path, name, command):
    """With a Redis URL that the variable lacks it ends with the code for a configuration that cannot be used."""
    assert rendered(tmp_path, "--root", tmp_path / "pocket").exit_code == 0
    words = [word.replace("/etc/pocket", str(tmp_path / "pocket")) for word in command[1:]]
    environment = {key: value for key, value in os.environ.items() if key != "POCKET_REDIS_URL"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    assert (done.returncode, "POCKET_REDIS_URL, which is not set" in done.stderr) == (78, True), done.stderr


def test_units_and_compose_use_the_paths_that_are_rendered_by_default(tmp_path):
    assert rendered(tmp_path).exit_code == 0
    for name, model in MODELS.items():
        config = read_config(model, tmp_path / f"pocket/{name}.json", {"POCKET_REDIS_URL": URL})
        service = COMPOSE["services"][name]
        binds = dict(reversed(row.removesuffix(":ro").split(":")) for row in service["volumes"])
        assert binds[str(config.keys_dir.parent)] == "./pocket"
        assert binds[str(config.data_dir)] == f"./data/{name}"
        assert any(row.endswith(f":{config.admin_port}") for row in service["ports"])
        own = unit(ROOT / f"examples/systemd/pocket-{name}.service")["Service"]
        assert f"/var/lib/{own['StateDirectory']}" == str(config.data_dir)
        assert f"{config.keys_dir.parent}/{name}.json" in own["ExecStart"]
        assert own["EnvironmentFile"].startswith(str(config.keys_dir.parent))
        assert service["environment"]["POCKET_REDIS_URL"].startswith("redis://redis:")
    assert [row for row in COMPOSE["services"]["relayer"]["ports"] if "8080" in row] == ["8080:8080"]


def test_the_signer_listens_where_relayer_and_miner_may_reach_it():
    own, relayer = (unit(ROOT / f"examples/systemd/pocket-{name}.service")["Service"] for name in ("signer", "relayer"))
    words = shlex.split(own["ExecStart"])
    assert words[1:4] == ["-m", "pocket_signer", "serve"]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    known = {name for row in main.commands["signer"].commands["serve"].params for name in row.opts}
    assert set(options) <= known
    assert options["--data"] == f"/var/lib/{own['StateDirectory']}"
    assert Path(options["--socket"]).parent == Path("/run", own["RuntimeDirectory"])
    assert f"unix:{options['--socket']}" in (ROOT / "docs/signer.md").read_text()
    assert (own["Group"], own["RuntimeDirectoryMode"]) == (relayer["Group"], "0750")
    assert own["User"] != relayer["User"], "the relayer must not read the keys"


def test_the_images_are_those_of_this_release():
    values = install.Values()
    for name, image in (("relayer", values.relayer_image), ("miner", values.miner_image)):
        assert image in COMPOSE["services"][name]["image"]


def test_redis_keeps_what_relayers_record():
    words = COMPOSE["services"]["redis"]["command"]
    assert words[words.index("--appendonly") + 1] == "yes"
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
