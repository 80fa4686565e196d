"""Run the workloads as local processes.

They take the same resources as `kubectl apply`.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocket.api.manifests import Manifests
from pocket.api.relayminer import RelayMiner
from pocket.api.supplier import Supplier
from pocket.api.workload import config_text
from pocket.errors import ConfigurationError
from pocket.keys.loading import REMOTE
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller, SealError, Subject, UnknownController
from pocket_localnet.genesis import load_genesis
from pocket_operator.resources.workload_config import (
    RuntimePaths,
    miner_config,
    relayer_config,
    reloadable_config,
    suppliers_of,
)
from relayctl.key_files import write_private
from relayctl.local_ports import free_port
from relayctl.local_process import Process, await_http
from relayctl.local_redis import LocalRedis, Topology


def resolve(relay_miner: RelayMiner, hosts: Mapping[str, str]) -> RelayMiner:
    """Return the resource with in-cluster names (`host:port`) replaced by local ones."""
    text = relay_miner.model_dump_json(by_alias=True)
    for name, local in hosts.items():
        text = text.replace(f"//{name}", f"//{local}")
    return RelayMiner.model_validate_json(text)


def write_keys(folder: Path, manifests: Manifests) -> None:
    """Write the suppliers' keys as files named by address, readable by the owner only.

    Raises ConfigurationError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sealing = Controller.of_texts(manifests.secrets.get(SECRET_OF_NAMESPACE, {}))
    for supplier in manifests.suppliers:
        text = key_of(supplier, manifests, sealing)
        write_private(folder / supplier.spec.operator_address, f"{text}\n")


def key_of(supplier: Supplier, manifests: Manifests, sealing: Controller) -> str:
    """Return a Supplier's key as hex.

    It comes from the Secrets among the files. Of a remote key it is the public half. Raises ConfigurationError.
    """
    who, source = supplier.metadata, supplier.spec.key
    if source.remote is not None:
        return f"{REMOTE}{source.remote.public_key}"
    if source.secret_ref is None:
        try:
            return sealing.open(source.sealed or "", Subject(who.namespace, who.name, supplier.spec.operator_address))
        except UnknownController:
            raise ConfigurationError(
                f"Supplier {who.name}: its key is sealed to the operator of a cluster, which alone opens it: "
                f"use secretRef, or seal it to a key in a Secret {SECRET_OF_NAMESPACE} among the files"
            ) from None
        except SealError as error:
            raise ConfigurationError(f"Supplier {who.name}: spec.key.sealed: {error}") from None
    try:
        return manifests.secrets[source.secret_ref.name][source.secret_ref.key]
    except KeyError:
        raise ConfigurationError(
            f"Supplier {who.name}: Secret {source.secret_ref.name} has no key {source.secret_ref.key}"
        ) from None


@dataclass(slots=True)
class LocalStack:
    """Redis, localnet, backend, relayer, miners and any console below one folder.

    Redis is one of this machine, whatever the manifest names.
    """

    folder: Path
    manifests: Manifests
    genesis: Path
    miners: int = 1
    topology: Topology = Topology.SINGLE
    console: bool = False
    """True to serve the console, too."""
    processes: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    block_seconds: float = 0.0
    """The time between blocks. It is longer than the genesis' on a machine on which processes start slowly."""
    redis: LocalRedis = field(init=False)

    def __post_init__(self) -> None:
        self.redis = LocalRedis(self.folder / "redis", self.topology)

    @property
    def relay_miner(self) -> RelayMiner:
        """Return the only RelayMiner.

        Raises ConfigurationError if there is not exactly one.
        """
        if len(self.manifests.relay_miners) != 1:
            raise ConfigurationError("the manifests must hold exactly one RelayMiner")
        return self.manifests.relay_miners[0]

    def url(self, name: str) -> str:
        """Return http://127.0.0.1:port of a part."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self) -> None:
        """Start everything in order. Raises ConfigurationError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        miners = [f"{name}-admin" for name in self.miner_names]
        names = ("grpc", "rpc", "backend", "backend-grpc", "relayer", "relayer-admin", "console", *miners)
        self.ports = {name: free_port() for name in names}
        write_keys(self.folder / "keys", self.manifests)
        self.redis.start()
        python = sys.executable
        self._add(
            "backend", [python, "-m", "pocket_localnet", "backend", "--port", str(self.ports["backend"]),
                        "--grpc-port", str(self.ports["backend-grpc"])],
        )  # fmt: skip
        self.block_seconds = max(load_genesis(self.genesis).block_seconds, self._start_seconds("backend"))
        self._write_configs()
        self._add(
            "localnet", [python, "-m", "pocket_localnet", "chain", "--genesis", str(self._write_genesis()),
                         "--grpc-port", str(self.ports["grpc"]), "--rpc-port", str(self.ports["rpc"]),
                         "--block-seconds", f"{self.block_seconds:.3f}"],
        )  # fmt: skip
        self._add("relayer", [python, "-m", "pocket_relayer", "--config", str(self.folder / "relayer.json")])
        for name in self.miner_names:
            self._add(name, [python, "-m", "pocket_miner", "--config", str(self.folder / f"{name}.json")])
        if self.console:
            self._add("console", self._console_command())
        self.processes.update(self.redis.processes)
        self.revive()

    def _start_seconds(self, name: str) -> float:
        """Start a part and return after how many seconds it answers."""
        begun = time.monotonic()
        self.processes[name].start()
        self.await_part(name)
        return time.monotonic() - begun

    def revive(self) -> None:
        """Start the parts that do not run, and wait until all answer.

        Raises ConfigurationError.
        """
        for process in self.processes.values():
            if not process.running:
                process.start()
        for name in self.processes:
            self.await_part(name)

    def await_part(self, name: str) -> None:
        """Wait until a part answers. Raises ConfigurationError with the end of its log."""
        process = self.processes[name]
        if name in self.redis.processes:
            self.redis.await_server(name)
        elif name in self.miner_names:
            await_http(self.url(f"{name}-admin") + "/health", process)
        elif name == "relayer":
            await_http(self.url(name) + "/ready", process)
        else:
            await_http(self.url("rpc" if name == "localnet" else name) + "/health", process)

    @property
    def miner_names(self) -> list[str]:
        """Return the names of the miners' processes."""
        return ["miner", *(f"miner-{number}" for number in range(1, self.miners))]

    def _add(self, name: str, command: list[str]) -> None:
        """Declare a process whose temporary files go with the stack's folder."""
        self.processes[name] = Process(name, command, self.folder / f"{name}.log", {"TMPDIR": str(self.folder)})

    def _console_command(self) -> list[str]:
        rpc = self.url("rpc")
        miners = [f"--miner={name}={self.url(f'{name}-admin')}" for name in self.miner_names]
        return [
            sys.executable, "-m", "relayctl.main", "console", "--port", str(self.ports["console"]), *miners,
            f"--relayer=relayer={self.url('relayer-admin')}", "--interval=1",
            f"--block-url={rpc}/block?height={{height}}", f"--transaction-url={rpc}/tx?hash=0x{{hash}}",
        ]  # fmt: skip

    def _write_genesis(self) -> Path:
        """Write the genesis, and return its path.

        Clients on this machine reach its staked endpoints.
        """
        path = self.folder / "genesis.yaml"
        name = f"http://{self.relay_miner.metadata.name}-relayer"
        path.write_text(
            self.genesis.read_text(encoding="utf-8").replace(f'"{name}"', f'"{self.url("relayer")}"'), "utf-8"
        )
        return path

    def _write_configs(self) -> None:
        ports = self.ports
        chain = self.relay_miner.spec.chain
        chain = chain.model_copy(update={"block_seconds": max(chain.block_seconds, self.block_seconds)})
        spec = self.relay_miner.spec.model_copy(update={"chain": chain})
        local = resolve(
            self.relay_miner.model_copy(update={"spec": spec}),
            {
                "localnet:9090": f"127.0.0.1:{ports['grpc']}",
                "localnet:26657": f"127.0.0.1:{ports['rpc']}",
                "backend:8545": f"127.0.0.1:{ports['backend']}",
                "backend:9545": f"127.0.0.1:{ports['backend-grpc']}",
            },
        )

        def runtime_paths(admin: str, port: int | None = None, data: str = "data", debug: int = 6060) -> RuntimePaths:
            return RuntimePaths(
                redis_url=self.redis.url,
                keys_dir=self.folder / "keys",
                data_dir=self.folder / data,
                hot_file=self.folder / "hot.json",
                signer_dir=self.folder / "signer",
                host="127.0.0.1",
                admin_port=ports[admin],
                port=port,
                debug_port=debug,
            )

        hot = reloadable_config(local, suppliers_of(self.relay_miner, self.manifests.suppliers))
        relayer = relayer_config(local, runtime_paths("relayer-admin", ports["relayer"]))
        # The first miner shares the relayer's folder, as on a single machine. Each other miner has its own volume.
        miners = {
            name: miner_config(
                local,
                runtime_paths(f"{name}-admin", data="data" if name == "miner" else f"data-{name}", debug=6160 + number),
            )
            for number, name in enumerate(self.miner_names)
        }
        for name, config in (("relayer", relayer), ("hot", hot), *miners.items()):
            path = self.folder / f"{name}.json"
            path.write_text(config_text(config), encoding="utf-8")

    def stop(self) -> None:
        """Stop everything, the servers last."""
        for name in ("console", "relayer", *self.miner_names, "backend", "localnet"):
            if name in self.processes:
                self.processes[name].stop()
        self.redis.stop()
