"""The commands `relayctl signer serve` and `relayctl signer forget`."""

import asyncio
import contextlib
import os
import signal
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import structlog
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from pocket.errors import ConfigurationError, system_reason
from pocket.keys.keyring import Keyring
from pocket.runtime import logs
from pocket.runtime.port_options import PORT
from pocket_signer.signable import SigningPolicy
from pocket_signer.signed_roots import SignedRoots
from pocket_signer.signer_server import SignerServer

_LOG: FilteringBoundLogger = structlog.get_logger()
_CERTIFICATE_SECONDS = 60.0
_ROOTS_FILE = "signed-roots.sqlite"


@dataclass(frozen=True, slots=True)
class SignerOptions:
    """Where the signer listens.

    Either a socket, or host and port with the folder of its certificate.
    """

    socket: Path | None
    host: str
    port: int | None
    tls_dir: Path | None
    admin: tuple[str, int] | None


class ServerTls:
    """The signer's certificate, and the authority of its clients' certificates."""

    def __init__(self, folder: Path) -> None:
        """Read tls.crt, tls.key and ca.crt. Raises ConfigurationError."""
        self._files = [folder / name for name in ("tls.crt", "tls.key", "ca.crt")]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.verify_mode = ssl.CERT_REQUIRED
        self._stamp: list[int] = []
        try:
            self.context.load_verify_locations(self._files[2])
            self.renew()
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{folder}: needs tls.crt, tls.key and ca.crt as PEM: {error}") from error

    def renew(self) -> None:
        """Use a certificate that was replaced, for new connections.

        Raises OSError or SSLError.
        """
        stamp = [file.stat().st_mtime_ns for file in self._files[:2]]
        if stamp != self._stamp:
            self.context.load_cert_chain(self._files[0], self._files[1])
            self._stamp = stamp

    async def run(self) -> None:
        """Look for a replaced certificate until cancelled."""
        while True:
            await asyncio.sleep(_CERTIFICATE_SECONDS)
            try:
                await asyncio.to_thread(self.renew)
            except (OSError, ssl.SSLError) as error:
                _LOG.warning("certificate not renewed, keeping the previous one", error=error)


async def serve_until_stopped(server: SignerServer, options: SignerOptions) -> None:
    """Serve until SIGINT or SIGTERM. Raises ConfigurationError and OSError."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await asyncio.to_thread(server.reload_keys)
    loops = [server.run]
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if options.socket is not None:
            await listen_on_socket(runner, options.socket)
            _LOG.info("signer serves", socket=str(options.socket))
        elif options.tls_dir is not None and options.port is not None:
            tls = await asyncio.to_thread(ServerTls, options.tls_dir)
            loops.append(tls.run)
            await web.TCPSite(runner, options.host, options.port, ssl_context=tls.context).start()
            _LOG.info("signer serves", host=options.host, port=options.port)
        if options.admin is not None:
            admin = web.AppRunner(server.admin_application(), access_log=None)
            await admin.setup()
            stack.push_async_callback(admin.cleanup)
            await web.TCPSite(admin, *options.admin).start()
        tasks = [asyncio.create_task(run()) for run in loops]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopped, *tasks):
                task.cancel()
            await asyncio.gather(stopped, *tasks, return_exceptions=True)
        for task in done - {stopped}:
            task.result()


async def listen_on_socket(runner: web.AppRunner, path: Path) -> None:
    """Listen on a socket that its owner and group may use. Raises ConfigurationError."""
    if await _is_served(path):
        raise ConfigurationError(f"{path}: another process serves this socket. Stop it, or name another --socket")
    before = os.umask(0o117)
    try:
        await web.UnixSite(runner, path).start()
    except OSError as error:
        raise ConfigurationError(f"{path}: {system_reason(error)}") from error
    finally:
        os.umask(before)


async def _is_served(path: Path) -> bool:
    """Return whether a process accepts connections at a socket.

    A socket of one that is gone may be replaced.
    """
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


@click.group("signer")
def signer() -> None:
    """Keep suppliers' keys in a process of their own (docs/signer.md)."""


@signer.command()
@click.option(
    "--keys",
    "keys_dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of key files, as relayers and miners read it",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the signed roots. Never lose it, and never run two signers with the same keys",
)
@click.option("--chain-id", required=True, help="The only chain whose transactions are signed")
@click.option(
    "--max-fee-upokt",
    type=click.IntRange(0),
    default=1_000_000,
    show_default=True,
    help="Largest fee of one transaction",
)
@click.option("--socket", type=click.Path(path_type=Path), help="Serve on a Unix socket")
@click.option("--host", default="0.0.0.0", show_default=True, help="Serve on this address, with --port")
@click.option("--port", type=PORT, help="Serve with TLS on this port, with --tls")
@click.option(
    "--tls",
    "tls_dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with tls.crt, tls.key, and ca.crt, which issued the clients' certificates",
)
@click.option("--admin-host", default="127.0.0.1", show_default=True)
@click.option("--admin-port", type=PORT, help="Serve /upcheck and /metrics without TLS")
def serve(
    keys_dir: Path, data: Path, chain_id: str, max_fee_upokt: int, socket: Path | None, host: str, port: int | None,
    tls_dir: Path | None, admin_host: str, admin_port: int | None,
) -> None:  # fmt: skip
    """Sign relay responses, claims and proofs until SIGTERM."""
    if (socket is None) == (port is None) or (port is None) != (tls_dir is None):
        raise click.UsageError("give --socket, or --port with --tls")
    logs.configure("signer", os.environ.get("LOG_LEVEL", "INFO"))
    admin = None if admin_port is None else (admin_host, admin_port)
    try:
        roots = SignedRoots(data / _ROOTS_FILE)
        server = SignerServer(Keyring(keys_dir, {}), roots, SigningPolicy(chain_id, max_fee_upokt))
        try:
            asyncio.run(serve_until_stopped(server, SignerOptions(socket, host, port, tls_dir, admin)))
        finally:
            roots.close()
    except (ConfigurationError, OSError) as error:
        raise click.ClickException(str(error)) from None


@signer.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of the signed roots",
)
@click.option("--public-key", required=True, help="Public key of the supplier, 66 hex digits")
@click.argument("session")
def forget(data: Path, public_key: str, session: str) -> None:
    """Allow another root for SESSION. Its claim was signed and never sent.

    Check first that the chain has no claim of the session: a second claim replaces it, and its proof may fail.
    """
    try:
        roots = SignedRoots(data / _ROOTS_FILE)
        root = roots.forget(bytes.fromhex(public_key), session)
        roots.close()
    except (ConfigurationError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if root is None:
        raise click.ClickException(f"no root was signed for session {session}")
    click.echo(f"forgot root {root.hex()} of session {session}")
