"""A way to an API server on which all bytes are late."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml


@asynccontextmanager
async def slow_way_to(host: str, port: int, one_way_seconds: float) -> AsyncIterator[int]:
    """Open a port that forwards all bytes late and in order."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, late, ended = asyncio.get_running_loop(), deque[bytes](), asyncio.Event()

        def deliver() -> None:
            if content := late.popleft():
                writer.write(content)
            else:
                ended.set()

        content = b"begun"
        while content:
            content = await reader.read(65536)
            late.append(content)
            loop.call_later(one_way_seconds, deliver)
        await ended.wait()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        try:
            await asyncio.gather(carry(reader, back), carry(there, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # an end went away, or the way itself
        finally:
            writer.close()
            back.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def through(kubeconfig: Path, port: int) -> Path:
    """Return a kubeconfig that names a port of this machine."""
    found = yaml.safe_load(kubeconfig.read_text())
    for row in found["clusters"]:
        row["cluster"]["server"] = f"https://127.0.0.1:{port}"
    slow = kubeconfig.with_name("slow.kubeconfig")
    slow.write_text(yaml.safe_dump(found))
    return slow


def server_of(kubeconfig: Path) -> tuple[str, int]:
    """Return host and port of the API server."""
    server = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    host, port = re.fullmatch(r"https://([^:/]+):(\d+)", server).groups()
    return host, int(port)


@asynccontextmanager
async def late(kubeconfig: Path, one_way_seconds: float) -> AsyncIterator[Path]:
    """Yield a kubeconfig of the same cluster over a slow way."""
    host, port = server_of(kubeconfig)
    async with slow_way_to(host, port, one_way_seconds) as slow:
        yield through(kubeconfig, slow)
