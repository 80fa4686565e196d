"""A remote signer in the test's own process, and what it is asked to sign."""

import asyncio
import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web

from pocket.api.signer import SignerAccess
from pocket.keys.keyring import Keyring
from pocket.keys.remote_signer import RemoteSigner
from pocket.protocol.relays.messages import RelayResponse, SessionHeader
from pocket.protocol.transactions.build import (
    Timestamp,
    TransactionPlan,
    create_claim_message,
    submit_proof_message,
    unsigned_transaction,
)
from pocket_signer.signable import SigningPolicy
from pocket_signer.signed_roots import SignedRoots
from pocket_signer.signer_server import SignerServer
from world import address, key

POLICY = SigningPolicy("pocket", 1000)
HEADER = SessionHeader(address("app eth"), "eth", "session", 1, 10)
ROOT, OTHER_ROOT = bytes(40) + (3).to_bytes(8, "big"), bytes(40) + (4).to_bytes(8, "big")
RESPONSE = RelayResponse(HEADER, b"", b"", bytes(32)).signable_bytes()


def claim(session_id="session", root=ROOT, supplier="alice"):
    return create_claim_message(address(supplier), replace(HEADER, session_id=session_id), root)


def proof(session_id="session", supplier="alice"):
    return submit_proof_message(address(supplier), replace(HEADER, session_id=session_id), b"a proof")


def sign_doc(*messages, fee=500, chain_id="pocket", signer="alice"):
    """Return the document of a transaction."""
    plan = TransactionPlan(
        messages or (claim(),), chain_id, 7, 100_000, fee, Timestamp(1_800_000_000), timeout_height=9
    )
    return unsigned_transaction(plan, key(signer).public_key).sign_doc_bytes


def keys_folder(folder: Path, *names: str) -> Path:
    """Return a folder with private keys."""
    folder.mkdir(exist_ok=True)
    for name in names:
        file = folder / address(name)
        file.touch(mode=0o600)
        file.write_text(f"{key(name).scalar:064x}")
    return folder


@dataclass
class RunningSigner:
    """A signer's server, which can be stopped and started again on the same files."""

    folder: Path
    names: tuple[str, ...] = ("alice",)
    runner: web.AppRunner | None = None
    roots: SignedRoots | None = None
    requests: int = 0

    @property
    def socket(self) -> Path:
        return self.folder / "signer.sock"

    async def start(self, answer=None) -> None:
        self.roots = SignedRoots(self.folder / "roots.sqlite")
        server = SignerServer(
            Keyring(keys_folder(self.folder / "held", *self.names), {}), self.roots, POLICY, lambda: 0
        )
        server.reload_keys()
        app = server.application()

        @web.middleware
        async def count(request, handler):
            self.requests += request.method == "POST"
            return await (answer or handler)(request)

        app.middlewares.append(count)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.UnixSite(self.runner, self.socket).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None
        if self.roots is not None:
            self.roots.close()
            self.roots = None

    def access(self, **changes) -> SignerAccess:
        return SignerAccess.model_validate({"url": f"unix:{self.socket}", "timeoutSeconds": 10, **changes})


@contextlib.asynccontextmanager
async def running_signer(folder, *names, answer=None):
    folder.mkdir(exist_ok=True)
    signer = RunningSigner(folder, names or ("alice",))
    await signer.start(answer)
    try:
        yield signer
    finally:
        await signer.stop()


@contextlib.asynccontextmanager
async def client_of(access, **options):
    """Run the client of a signer."""
    client = RemoteSigner(access, **options)
    task = asyncio.create_task(client.run())
    try:
        yield client
        assert not task.done(), "no answer may end the client"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
