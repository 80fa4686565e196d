"""A node of the real chain, started by the program that REALCHAIN names (docs/realchain.md)."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import re
import select
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocket.chain.failover import NodeAddress
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.transactions.batches import MAX_TRANSACTION_BYTES
from relayctl.local_ports import free_ports

REALCHAIN = os.environ.get("REALCHAIN", "")
SUPPLIERS = ("supplier1", "supplier2", "supplier3")
SPARE = "supplier4"
"""Staked, and mined for by nobody."""
GAS_PRICE = "0.000001upokt"
APPLICATIONS = {"develop-http": "app1", "develop-stream": "app3"}
UNITS = 100
THRESHOLD_UPOKT = 1_000
SUBMISSION_FEE_UPOKT = 7
PARAMS = {
    "proof": {
        "proof_requirement_threshold": {"denom": "upokt", "amount": str(THRESHOLD_UPOKT)},
        "proof_submission_fee": {"denom": "upokt", "amount": str(SUBMISSION_FEE_UPOKT)},
    },
    # Room for the suppliers that the tests of stakes add: all others are in each session, too.
    "session": {"num_suppliers_per_session": 20},
}
"""With a probability of 0, a claim needs a proof where it is worth the threshold, and nowhere else."""

NODE_PORTS = 5
"""How many ports in a row a node listens on."""
_START_SECONDS = 150


def _program(*arguments: object) -> str:
    done = subprocess.run(
        [REALCHAIN, *map(str, arguments)], capture_output=True, text=True, timeout=_START_SECONDS, check=False
    )
    if done.returncode:
        raise AssertionError(f"{REALCHAIN} {arguments[0]} failed: {done.stdout[-500:]}{done.stderr[-1500:]}")
    return done.stdout


def keys() -> dict[str, PrivateKey]:
    """Return the keys of the node's genesis by name."""
    return {row["name"]: PrivateKey.from_hex(row["private_key"]) for row in json.loads(_program("keys"))}


@dataclass
class RealNode:
    """One node with its folder.

    After a restart it continues with its own state.
    """

    folder: Path
    port_base: int
    pid: int = 0

    @classmethod
    def start(
        cls, folder: Path, *, block_seconds: float, relayer_url: str, params: Mapping[str, Any] = PARAMS
    ) -> "RealNode":
        """Start a new chain with one validator."""
        made = cls(folder, free_ports(NODE_PORTS))
        made.up(
            "--block-seconds", block_seconds, "--blocks-per-session", 10, "--suppliers", len(SUPPLIERS) + 1,
            "--relayer-url", relayer_url, "--proof-probability", 0, "--units", UNITS, "--params", json.dumps(params),
        )  # fmt: skip
        made.kill(signal.SIGTERM)
        _set(folder / "home/config/app.toml", {"minimum-gas-prices": f'"{GAS_PRICE}"'})
        _set(folder / "home/config/config.toml", {"max_tx_bytes": str(MAX_TRANSACTION_BYTES)})
        made.again()
        return made

    def up(self, *arguments: object) -> None:
        """Start the node and wait for its first block."""
        told = json.loads(_program("start", self.folder, "--port-base", self.port_base, *arguments))
        self.pid = int(told["pid"])

    def again(self) -> None:
        """Start the node with the state that it has."""
        self.up("--keep")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the node and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            os.kill(self.pid, how)
            ended, _, _ = select.select([handle], [], [], 30)
            os.close(handle)
            assert ended, f"the node {self.pid} did not end"

    @property
    def address(self) -> NodeAddress:
        return NodeAddress.parse(f"grpc://127.0.0.1:{self.port_base + 2}", f"http://127.0.0.1:{self.port_base + 1}")

    @property
    def peer_port(self) -> int:
        return self.port_base + 4


def peer_of(node: RealNode, folder: Path, through_port: int) -> RealNode:
    """Return a second node of the chain that is no validator.

    It reaches the first one through a port of this machine.
    """
    made = RealNode(folder, free_ports(NODE_PORTS))
    home = folder / "home"
    (home / "config").mkdir(parents=True)
    (home / "data").mkdir()
    for name in ("genesis.json", "config.toml", "app.toml", "client.toml"):
        text = (node.folder / "home/config" / name).read_text()
        for offset in range(1, NODE_PORTS):
            text = text.replace(f":{node.port_base + offset}", f":{made.port_base + offset}")
        (home / "config" / name).write_text(text)
    identity = _node_id(json.loads((node.folder / "home/config/node_key.json").read_text()))
    changes = {
        "persistent_peers": f'"{identity}@127.0.0.1:{through_port}"', "addr_book_strict": "false",
        "allow_duplicate_ip": "true", "pex": "false",
    }  # fmt: skip
    _set(home / "config/config.toml", changes)
    (home / "data/priv_validator_state.json").write_text('{"height":"0","round":0,"step":0}')
    return made


def _node_id(identity: Mapping[str, Any]) -> str:
    """CometBFT's node id: the first 20 bytes of SHA-256 of the public half of its Ed25519 key."""
    return hashlib.sha256(base64.b64decode(identity["priv_key"]["value"])[32:]).digest()[:20].hex()


def _set(path: Path, changes: Mapping[str, str]) -> None:
    text = path.read_text()
    for name, value in changes.items():
        text, found = re.subn(rf"^{re.escape(name)} *=.*", f"{name} = {value}", text, count=1, flags=re.MULTILINE)
        assert found, f"{path} has no setting {name}"
    path.write_text(text)


class Cable:
    """A TCP connection between two nodes that can be cut."""

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.connected = True
        self.port = 0

    async def __aenter__(self) -> "Cable":
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        assert self._server is not None
        self._server.close()

    def cut(self) -> None:
        """Close the connections and take no new ones."""
        self.connected = False
        for writer in self._ends:
            writer.transport.abort()

    def mend(self) -> None:
        """Take connections again."""
        self.connected = True

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.connected:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        ends = {writer, there_writer}
        self._ends |= ends
        try:
            await asyncio.gather(_pipe(reader, there_writer), _pipe(there_reader, writer))
        finally:
            self._ends -= ends
            for end in ends:
                end.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()
