"""The commands of the compose file and the systemd units, run as processes on a localnet."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml
from click.testing import CliRunner

from pocket.api.manifests import load_manifests
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.gateway import Gateway, json_rpc_envelope
from relayctl.local_ports import free_port
from relayctl.local_process import Process, await_http, await_port, wait_until
from relayctl.local_redis import redis_server
from relayctl.local_stack import resolve
from relayctl.main import main
from trial import remote_samples

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "manifests/samples/trial"
COMPOSE = yaml.safe_load((ROOT / "examples/compose/compose.yaml").read_text())["services"]
SIGNER = yaml.safe_load((ROOT / "examples/compose/signer.yaml").read_text())["services"]["signer"]
pytestmark = [pytest.mark.processes, pytest.mark.redis, pytest.mark.timeout(120)]


def command_of(source: str, name: str) -> list[str]:
    """Return the arguments of a workload's Python as the example has them."""
    if source == "compose":
        command = SIGNER["command"] if name == "signer" else COMPOSE[name]["command"]
        return [word.replace("${CHAIN_ID:-pocket}", "pocket") for word in command[1:]]
    text = (ROOT / f"examples/systemd/pocket-{name}.service").read_text()
    line = next(row for row in text.splitlines() if row.startswith("ExecStart="))
    return shlex.split(line.removeprefix("ExecStart="))[1:]


class Standalone:
    """Redis, localnet and backend, and the rendered files of the samples in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.samples = folder, folder / "pocket", SAMPLES
        self.ports = {
            name: free_port() for name in ("redis", "grpc", "rpc", "backend", "relayer", "relayer-admin", "miner-admin")
        }
        self.processes: list[Process] = []

    def run(self, name: str, *command: object, **environment: str) -> Process:
        process = Process(name, [str(word) for word in command], self.folder / f"{name}.log", environment)
        process.start()
        self.processes.append(process)
        return process

    def start_others(self) -> None:
        options = COMPOSE["redis"]["command"][1:]
        (self.folder / "redis").mkdir()
        redis = self.run(
            "redis", redis_server(), "--port", self.ports["redis"], "--dir", self.folder / "redis", *options
        )
        await_port(self.ports["redis"], redis)
        genesis = yaml.safe_load((SAMPLES / "genesis.yaml").read_text())
        genesis["shared_params"]["num_blocks_per_session"] = 200
        (self.folder / "genesis.yaml").write_text(yaml.safe_dump(genesis))
        localnet, ports = (sys.executable, "-m", "pocket_localnet"), self.ports
        chain = self.run(
            "localnet", *localnet, "chain", "--genesis", self.folder / "genesis.yaml", "--grpc-port", ports["grpc"],
            "--rpc-port", ports["rpc"],
        )  # fmt: skip
        backend = self.run("backend", *localnet, "backend", "--port", ports["backend"], "--grpc-port", free_port())
        await_http(f"http://127.0.0.1:{ports['rpc']}/health", chain)
        await_http(f"http://127.0.0.1:{ports['backend']}/health", backend)

    def render(self) -> None:
        """Render as docs/standalone.md has it, with free ports."""
        names = {"localnet:9090": "grpc", "localnet:26657": "rpc", "backend:8545": "backend"}
        hosts = {name: f"127.0.0.1:{self.ports[port]}" for name, port in names.items()}
        relay_miner = resolve(load_manifests([self.samples / "relayminer.yaml"]).relay_miners[0], hosts)
        document = json.loads(relay_miner.model_dump_json(by_alias=True, exclude_none=True))
        document["spec"]["relayer"]["port"] = self.ports["relayer"]
        (self.folder / "relayminer.yaml").write_text(yaml.safe_dump(document))
        files = [str(self.folder / "relayminer.yaml"), str(self.samples / "suppliers.yaml")]
        words = ["config", "render", *files, "-o", str(self.root), "--root", str(self.root)]
        done = CliRunner().invoke(main, [*words, "--data", str(self.folder / "data"), "--host", "127.0.0.1"])
        assert done.exit_code == 0, done.output
        for name in ("relayer", "miner"):
            path = self.root / f"{name}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"adminPort": self.ports[f"{name}-admin"]}))

    def start(self, source: str, name: str) -> Process:
        (self.folder / "data" / name).mkdir(parents=True)  # as docs/standalone.md and StateDirectory do
        words = [word.replace("/etc/pocket", str(self.root)) for word in command_of(source, name)]
        url = COMPOSE[name]["environment"]["POCKET_REDIS_URL"].replace("redis:6379", f"127.0.0.1:{self.ports['redis']}")
        return self.run(name, sys.executable, *words, POCKET_REDIS_URL=url)

    def start_signer(self, source: str) -> Process:
        """Move the keys of the samples to a signer."""
        socket, data = self.folder / "s.sock", self.folder / "signed"
        self.samples, keys = remote_samples(self.folder, socket)
        places = {
            "/etc/pocket-signer/keys": keys,
            "/var/lib/pocket-signer": data,
            "/run/pocket-signer/signer.sock": socket,
        }
        words = [str(places.get(word, word)) for word in command_of(source, "signer")]
        assert {str(place) for place in places.values()} < set(words)
        signer = self.run("signer", sys.executable, *words)
        assert wait_until(socket.exists, 20, ignored=()), signer.tail()
        return signer

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()


@pytest.mark.long
@pytest.mark.parametrize(("source", "with_signer"), [("compose", False), ("compose", True), ("systemd", True)])
async def test_the_commands_of_the_examples_serve_and_store_a_relay(tmp_path, source, with_signer):
    there = Standalone(tmp_path)
    try:
        await asyncio.to_thread(there.start_others)
        signer_process = [await asyncio.to_thread(there.start_signer, source)] if with_signer else []
        there.render()
        keys = [path.read_text() for path in (there.root / "keys").iterdir()]
        assert all(text.startswith("remote:") is with_signer for text in keys)
        relayer, miner = there.start(source, "relayer"), there.start(source, "miner")
        url = f"http://127.0.0.1:{there.ports['relayer']}"
        await asyncio.to_thread(await_http, f"{url}/ready", relayer)
        report = f"http://127.0.0.1:{there.ports['miner-admin']}"
        await asyncio.to_thread(await_http, f"{report}/ready", miner)
        gateway_file = yaml.safe_load((SAMPLES / "gateway.yaml").read_text())
        node = NodeAddress.parse(f"grpc://127.0.0.1:{there.ports['grpc']}", f"http://127.0.0.1:{there.ports['rpc']}")
        async with aiohttp.ClientSession() as http, ChainClient([node]) as chain:
            gateway = Gateway(chain, http, PrivateKey.from_hex(gateway_file["key"]))
            signer = await gateway.signer(gateway_file["applications"]["eth"], "eth")
            supplier = min(signer.session.supplier_addresses)
            request = signer.sign(supplier, json_rpc_envelope(f"{url}/", b'{"jsonrpc":"2.0","id":1,"method":"m"}'))
            await gateway.send(url, request, 3, timeout_seconds=20)
            async with asyncio.timeout(30):
                while await open_sessions(http, report, supplier) == 0:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0.1)
        environment = {
            **os.environ,
            "POCKET_MINER_CONFIG": str(there.root / "miner.json"),
            "POCKET_REDIS_URL": "redis://x",
        }
        words = [sys.executable, "-m", "pocket_miner.console", "ledger", "relays", signer.session.header.session_id]
        done = await asyncio.to_thread(
            subprocess.run, words, capture_output=True, text=True, env=environment, check=False
        )
        assert json.loads(done.stdout)["supplier"] == supplier, done.stderr
        for process in (relayer, miner, *signer_process):
            await asyncio.to_thread(process.stop, 40)
            assert process.child.returncode == 0, process.tail()
    finally:
        there.stop()


async def open_sessions(http, url, supplier):
    """Return the number of a supplier's sessions that the miner reports as open."""
    async with http.get(f"{url}/report") as answer:
        return ((await answer.json())["suppliers"].get(supplier) or {}).get("open", 0)
