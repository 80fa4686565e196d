"""Redis, a backend, a relayer and a miner as processes, on a node of the real chain."""

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pocket.api.relayminer import RelayMiner
from pocket.chain.failover import NodeAddress
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket_operator.resources.trial_redis import REDIS_OPTIONS
from pocket_operator.resources.workload_config import RuntimePaths, miner_config, relayer_config, reloadable_config
from realchain import SUPPLIERS
from relayctl.local_ports import free_port
from relayctl.local_process import Process, await_http, await_port
from relayctl.local_redis import redis_server

PARTS = ("redis", "backend", "relayer", "relayer-admin", "miner-admin")


class RealStack:
    """The workloads of some suppliers.

    `point_at` changes the node that they query.
    """

    def __init__(
        self, folder: Path, keys: Mapping[str, PrivateKey], block_seconds: float, names: Sequence[str] = SUPPLIERS
    ) -> None:
        self.folder = folder
        self.block_seconds = block_seconds
        self.ports = {name: free_port() for name in PARTS}
        self.suppliers = {name: keys[name] for name in names}
        self.processes: dict[str, Process] = {}
        (folder / "keys").mkdir(parents=True, mode=0o700)
        (folder / "redis").mkdir()
        for key in self.suppliers.values():
            path = folder / "keys" / address_of(key.public_key)
            path.touch(mode=0o600)
            path.write_text(f"{key.scalar:064x}\n", encoding="ascii")

    @property
    def addresses(self) -> list[str]:
        """The suppliers' operator addresses."""
        return [address_of(key.public_key) for key in self.suppliers.values()]

    @property
    def relayer_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['relayer']}"

    def start(self, node: NodeAddress) -> None:
        """Start all workloads.

        Raises ConfigurationError.
        """
        self.write(node)
        python, redis = sys.executable, str(self.ports["redis"])
        commands = {
            "redis": [redis_server(), "--port", redis, "--bind", "127.0.0.1", "--dir", str(self.folder / "redis"),
                      *REDIS_OPTIONS],
            "backend": [python, "-m", "pocket_localnet", "backend", "--port", str(self.ports["backend"])],
            "relayer": [python, "-m", "pocket_relayer", "--config", str(self.folder / "relayer.json")],
            "miner": [python, "-m", "pocket_miner", "--config", str(self.folder / "miner.json")],
        }  # fmt: skip
        for name, command in commands.items():
            self.processes[name] = Process(name, command, self.folder / f"{name}.log")
            self.processes[name].start()
        await_port(self.ports["redis"], self.processes["redis"])
        await_http(f"http://127.0.0.1:{self.ports['backend']}/health", self.processes["backend"])
        self.await_ready()

    def write(self, node: NodeAddress) -> None:
        """Write the configurations."""
        backend = f"http://127.0.0.1:{self.ports['backend']}"
        model = RelayMiner.model_validate({
            "apiVersion": "pocket.network/v1beta1", "kind": "RelayMiner",
            "metadata": {"name": "real", "namespace": "chain"},
            "spec": {
                "chain": {"id": "pocket", "blockSeconds": self.block_seconds,
                          "nodes": [{"grpc": node.grpc, "rpc": node.rpc}]},
                "redis": {"url": f"redis://127.0.0.1:{self.ports['redis']}/0"},
                "services": [
                    {"id": "develop-http", "backends": {"jsonRpc": {"urls": [backend]}}},
                    {"id": "develop-stream", "defaultBackend": "rest", "backends": {"rest": {"urls": [backend]}}},
                ],
                "relayer": {"workers": 1, "recording": "strict"},
                "miner": {"shards": 4, "storage": "1Gi", "checkEndpoints": False},
            },
        })  # fmt: skip

        def runtime_paths(admin: str, port: int | None = None) -> RuntimePaths:
            return RuntimePaths(
                redis_url=f"redis://127.0.0.1:{self.ports['redis']}/0", keys_dir=self.folder / "keys",
                data_dir=self.folder / "data", hot_file=self.folder / "hot.json", host="127.0.0.1",
                admin_port=self.ports[admin], port=port,
            )  # fmt: skip

        configs = {
            "hot": reloadable_config(model, [(address, ()) for address in self.addresses]),
            "relayer": relayer_config(model, runtime_paths("relayer-admin", self.ports["relayer"])),
            "miner": miner_config(model, runtime_paths("miner-admin")),
        }
        for name, config in configs.items():
            (self.folder / f"{name}.json").write_text(config.model_dump_json(by_alias=True, indent=2))

    def await_ready(self) -> None:
        """Wait until relayer and miner work.

        Raises ConfigurationError.
        """
        await_http(f"{self.relayer_url}/ready", self.processes["relayer"])
        await_http(f"http://127.0.0.1:{self.ports['miner-admin']}/ready", self.processes["miner"])

    def restart_miner(self) -> None:
        """End the miner with SIGKILL and start it again."""
        self.processes["miner"].kill()
        self.processes["miner"].start()

    def point_at(self, node: NodeAddress) -> None:
        """Start relayer and miner again with another node."""
        self.write(node)
        for name in ("relayer", "miner"):
            self.processes[name].stop()
            self.processes[name].start()
        self.await_ready()

    def stop(self) -> None:
        for name in ("relayer", "miner", "backend", "redis"):
            if name in self.processes:
                self.processes[name].stop()


@contextlib.contextmanager
def prepared(
    folder: Path, keys: Mapping[str, PrivateKey], block_seconds: float, names: Sequence[str] = SUPPLIERS
) -> Iterator[RealStack]:
    """Yield a stack, stop it at the end and keep its logs in the folder."""
    stack = RealStack(folder, keys, block_seconds, names)
    try:
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(folder / "redis", ignore_errors=True)
