"""Real servers for tests: a Redis of the embedded mode, started once per test session."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pocket.redis_store.connection import connect
from relayctl.local_ports import free_port
from relayctl.local_redis import redis_server


@dataclass
class RedisServer:
    """A redis-server with an append-only file, which can be killed and started again."""

    folder: Path
    port: int = field(default_factory=free_port)
    arguments: tuple[str, ...] = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
    child: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "RedisServer":
        command = [redis_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        at_once = ["--repl-diskless-sync-delay", "0"]  # no five seconds for further replicas
        self.child = subprocess.Popen([*command, *at_once, *self.arguments], stdout=subprocess.DEVNULL)
        wait_for_port(self.port)
        return self

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()

    def wipe(self) -> None:
        """Remove everything that is lost with a volume."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def wait_for_port(port: int, seconds: float = 10.0) -> None:
    """Wait until the port accepts connections.

    The connection synchronises, and the select only bounds the retries.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
    raise TimeoutError(f"nothing listens on port {port}")


@contextlib.contextmanager
def running_redis(*arguments: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="redis-test-") as folder:
        server = RedisServer(Path(folder))
        if arguments:
            server.arguments = arguments
        try:
            yield server.start()
        finally:
            server.kill()


@contextlib.asynccontextmanager
async def clients(*urls):
    """Connect to each URL."""
    made = [connect(url) for url in urls]
    try:
        yield made
    finally:
        for client in made:
            await client.aclose()


async def until(answer, seconds=60):
    """Poll an async function until it returns something true."""
    async with asyncio.timeout(seconds):
        while not await answer():  # noqa: ASYNC110 - a server does not announce its state
            await asyncio.sleep(0.02)
