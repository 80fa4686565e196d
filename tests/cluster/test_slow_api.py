"""A slow API server: the operator leads, keeps leading and brings about what is declared."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from waits import create, leading

from kube import eventually
from pocket.kube.api_client import ResourceKind
from pocket_operator.resources.kinds import BY_KIND
from resources import key_secret, relay_miner, supplier

LEASES = ResourceKind("coordination.k8s.io/v1", "leases", "Lease")
ONE_WAY_SECONDS = 0.5


@asynccontextmanager
async def slow_way_to(host: str, port: int) -> AsyncIterator[int]:
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
            loop.call_later(ONE_WAY_SECONDS, deliver)
        await ended.wait()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        try:
            await asyncio.gather(carry(reader, back), carry(there, writer))
        except* OSError:
            pass  # an end went away
        finally:
            writer.close()
            back.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def through(kubeconfig: Path, port: int) -> Path:
    found = yaml.safe_load(kubeconfig.read_text())
    for row in found["clusters"]:
        row["cluster"]["server"] = f"https://127.0.0.1:{port}"
    slow = kubeconfig.with_name("slow.kubeconfig")
    slow.write_text(yaml.safe_dump(found))
    return slow


async def test_an_operator_leads_and_keeps_leading_though_listing_takes_longer_than_its_lease(
    api, namespace, replicas, nodes
):
    (first, _) = replicas
    server = yaml.safe_load(first.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    host, port = re.fullmatch(r"https://([^:/]+):(\d+)", server).groups()
    async with slow_way_to(host, int(port)) as slow:
        first.kubeconfig = through(first.kubeconfig, slow)
        first.start()
        await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
        await eventually(lambda: leading(first), 30)

        async def brought_about():
            return await api.get_or_none(BY_KIND["Deployment"], namespace, "main-relayer")

        await eventually(brought_about, 180)
        lease = await api.get(LEASES, namespace, "pocket-operator")
        assert lease["spec"]["leaseTransitions"] == 1, "it led without a break"
        assert await leading(first)
        assert first.child.poll() is None
        first.stop(kill=True)
