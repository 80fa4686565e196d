"""Define `relayctl console` and `relayctl top`.

Both are read-only views of relayers and miners.
"""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import click
from rich.console import Console as Terminal

from pocket.errors import PocketError
from pocket.kube.api_client import KubeError, connect
from pocket.runtime.port_options import PORT_OR_FREE
from pocket_console.collector import Collector
from pocket_console.discovery import ClusterPods, Finder, GivenAddresses
from pocket_console.fetch import Fetcher, HttpFetcher, KubernetesFetcher
from pocket_console.server import Console, serving
from pocket_console.snapshot import Links
from pocket_console.terminal import show_live, show_once

_URL = re.compile(r"([\w.-]+=)?https?://[^\s/@?#=]+")


@dataclass(frozen=True, slots=True)
class ConsoleSources:
    """Where relayers and miners are found: addresses, or a cluster if there are none.

    `direct` reaches pods at their own addresses, as a pod in the cluster can, instead of through the API server.
    """

    miners: tuple[str, ...] = ()
    relayers: tuple[str, ...] = ()
    namespace: str = ""
    relay_miner: str = ""
    direct: bool = False

    @property
    def given(self) -> bool:
        """Return True if there are addresses."""
        return bool(self.miners or self.relayers)


def _url(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Check addresses. Credentials in them would be shown, so they are refused."""
    for value in values:
        if not _URL.fullmatch(value.rstrip("/")):
            shown = value.rpartition("@")[2]  # without a login
            raise click.BadParameter(f"{shown!r}: give [NAME=]http://HOST:PORT without credentials and path")
    return values


def _sources(command: click.decorators.FC) -> click.decorators.FC:
    for option in (
        click.option("--miner", "miners", multiple=True, callback=_url, help="Admin address of a miner, [NAME=]http://host:9090"),
        click.option("--relayer", "relayers", multiple=True, callback=_url, help="Admin address of a relayer, [NAME=]http://host:9090"),
        click.option("--namespace", "-n", default="", help="Only pods of this namespace. Default: all"),
        click.option("--relayminer", "relay_miner", default="", help="Only pods of this RelayMiner"),
        click.option("--direct", is_flag=True, help="Reach pods at their addresses, from inside the cluster"),
        click.option("--interval", type=click.FloatRange(0.2, 300), default=2.0, show_default=True,
                     help="Seconds between polls"),
    )[::-1]:  # fmt: skip
        command = option(command)
    return command


@contextlib.asynccontextmanager
async def collecting(sources: ConsoleSources, interval: float) -> AsyncIterator[Collector]:
    """Yield a collector of the sources that does not run yet.

    Raises KubeError if there are neither addresses nor a cluster.
    """
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        finder: Finder = GivenAddresses(sources.miners, sources.relayers)
        fetcher: Fetcher = HttpFetcher(http)
        if not sources.given:
            api = await stack.enter_async_context(connect())
            finder = ClusterPods(api, sources.namespace, sources.relay_miner, not sources.direct)
            fetcher = fetcher if sources.direct else KubernetesFetcher(api)
        yield Collector(finder, fetcher, interval=interval)


async def _until_interrupted(work: Callable[[], Awaitable[None]]) -> None:
    """Run until SIGINT or SIGTERM, or until the work ends."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work())
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _run(work: Callable[[], Awaitable[None]]) -> None:
    try:
        asyncio.run(_until_interrupted(work))
    except (PocketError, KubeError) as error:
        raise click.ClickException(str(error)) from None


@click.command()
@_sources
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on")
@click.option("--port", type=PORT_OR_FREE, default=8900, show_default=True, help="0: any free port")
@click.option("--allow-host", "hosts", multiple=True, help="Host name under which a proxy serves the console")
@click.option("--block-url", default="", help="Link to blocks of an explorer, with {height}")
@click.option("--transaction-url", default="", help="Link to transactions of an explorer, with {hash}")
@click.option("--dashboards-url", default="", help="Link to Grafana")
def console(
    host: str, port: int, hosts: tuple[str, ...], block_url: str, transaction_url: str, dashboards_url: str,
    interval: float, **sources: Any,
) -> None:  # fmt: skip
    """Serve a read-only web page. It shows earnings, sessions, services and fleet.

    Without addresses, relayers and miners are found through the Kubernetes API.
    """
    links = Links(block_url, transaction_url, dashboards_url)

    async def work() -> None:
        async with collecting(ConsoleSources(**sources), interval) as collector:
            page = Console(collector, links=links, hosts=(*hosts, host))
            async with serving(page, host, port) as bound:
                shown = f"[{host}]" if ":" in host else host
                click.echo(f"console: http://{shown}:{bound}/ (read-only, Ctrl-C ends it)")
                await collector.run()

    _run(work)


@click.command()
@_sources
@click.option("--once", is_flag=True, help="Print one screen and end")
def top(*, once: bool, interval: float, **sources: Any) -> None:
    """Show earnings, deadlines, services and fleet in the terminal."""
    terminal = Terminal()

    async def work() -> None:
        async with collecting(ConsoleSources(**sources), interval) as collector:
            if once:
                await show_once(collector, terminal)
                return
            async with asyncio.TaskGroup() as group:
                group.create_task(collector.run())
                group.create_task(show_live(collector, terminal))

    _run(work)
