"""Get signatures of keys that another process holds.

It is reached by HTTP over a Unix socket, or with TLS on both sides. Each process has a few connections. What waits
while all of them are busy is sent as one request.
"""

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import structlog
from pydantic import ValidationError
from structlog.typing import FilteringBoundLogger

from pocket.api.signer import SignerAccess
from pocket.errors import PocketError
from pocket.keys.signer_protocol import (
    KEYS_PATH,
    SIGN_PATH,
    DocumentType,
    PublicKeys,
    SignBatch,
    SignRequest,
    SignResult,
    SignResults,
    message_of,
)
from pocket.protocol.crypto.ecdsa import PrivateKey, verify_signature
from pocket.runtime.backoff import Backoff
from pocket.runtime.http_sessions import CONNECTOR_OPTIONS
from pocket.runtime.own_authorities import client_context, system_context

_LOG: FilteringBoundLogger = structlog.get_logger()
_MOST_WAITING: Final = 10_000
_BATCH: Final = 64
_BATCH_BYTES: Final = 1024 * 1024
_LARGEST_ANSWER: Final = 1024 * 1024
_POLL_SECONDS: Final = 5.0
_POLL_AGAIN_SECONDS: Final = 0.5
_BACKOFF: Final = Backoff(first=0.05, longest=1.0)


class SignerUnavailable(PocketError):
    """The signer gave no signature within the deadline. A later attempt may succeed."""


class SignerRefused(PocketError):
    """The signer does not sign this document.

    `code` is a Refusal, or one of a later version, `index` the message of a transaction at fault, if known.
    """

    def __init__(self, code: str, message: str, index: int | None = None) -> None:
        super().__init__(f"the signer refused ({code}): {message}")
        self.code = code
        self.index = index


@dataclass(slots=True)
class _Waiting:
    public_key: bytes = field(repr=False)
    kind: DocumentType
    document: bytes = field(repr=False)
    signature: "asyncio.Future[bytes]"

    def request(self) -> SignRequest:
        return SignRequest(public_key=self.public_key.hex(), type=self.kind, document=self.document)


class _Unusable(Exception):
    """An answer that a signer of this protocol does not give."""


class RemoteSigner:
    """The client of one signer.

    `observe` is called with the result and the seconds of each signature.
    """

    def __init__(
        self,
        access: SignerAccess,
        *,
        observe: Callable[[str, float], None] = lambda result, seconds: None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._observe = observe
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._clock = clock
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(_MOST_WAITING)
        self._doubted = asyncio.Event()
        self._tls: tuple[object, ssl.SSLContext] | None = None
        self.problem = ""
        """Why the signer cannot be used now, empty if it can."""
        self.listed: frozenset[bytes] | None = None
        """The public keys that the signer listed last, None before its first answer."""

    async def sign(self, public_key: bytes, kind: DocumentType, document: bytes) -> bytes:
        """Return the verified signature of a document.

        Raises SignerUnavailable or SignerRefused.
        """
        began = self._clock()
        waiting = _Waiting(public_key, kind, document, asyncio.get_running_loop().create_future())
        result = "unavailable"
        try:
            self._waiting.put_nowait(waiting)
            async with asyncio.timeout(self._access.timeout_seconds):
                signature = await waiting.signature
            if not verify_signature(public_key, message_of(kind, document), signature):
                result = "invalid"
                raise SignerUnavailable("the signer returned a signature that is not of this key")
            result = "signed"
            return signature
        except asyncio.QueueFull:
            raise SignerUnavailable(f"{_MOST_WAITING} signatures wait for the signer already") from None
        except TimeoutError:
            if not self.problem:
                self._doubted.set()
            self.problem = self.problem or f"no signature within {self._access.timeout_seconds:g} s"
            raise SignerUnavailable(f"the signer gave no signature in time: {self.problem}") from None
        except SignerRefused:
            result = "refused"
            raise
        finally:
            self._observe(result, self._clock() - began)

    def missing(self, public_keys: Iterable[bytes]) -> list[bytes]:
        """Return the keys that the signer did not list, none before its first answer."""
        return [] if self.listed is None else sorted(set(public_keys) - self.listed)

    async def run(self) -> None:
        """Send what waits, and poll the signer, until cancelled."""
        socket = self._access.socket
        limit = self._access.connections + 1  # one for polls
        connector = (
            aiohttp.TCPConnector(limit=limit, **CONNECTOR_OPTIONS)
            if socket is None
            else aiohttp.UnixConnector(socket, limit=limit)
        )
        timeout = aiohttp.ClientTimeout(total=max(0.05, self._access.timeout_seconds / 2))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._poll(session))
            for _ in range(self._access.connections):
                group.create_task(self._send(session))

    async def _send(self, session: aiohttp.ClientSession) -> None:
        """Send batches over one connection.

        Each is sent again until it is answered or no one waits any more.
        """
        while True:
            batch, failures = await self._take(), 0
            while batch := [waiting for waiting in batch if not waiting.signature.done()]:
                try:
                    results = await self._exchange(session, batch)
                except SignerRefused as refusal:
                    for waiting in batch:
                        _resolve(waiting, refusal)
                except (aiohttp.ClientError, OSError, TimeoutError, ValidationError, _Unusable) as error:
                    failures += 1
                    self._failed(error)
                    await asyncio.sleep(_BACKOFF.pause(failures, self._rng))
                else:
                    self._answered()
                    for waiting, result in zip(batch, results, strict=True):
                        _resolve(waiting, result)

    async def _take(self) -> list[_Waiting]:
        batch = [await self._waiting.get()]
        size = len(batch[0].document)
        while len(batch) < _BATCH and size < _BATCH_BYTES and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
            size += len(batch[-1].document)
        return batch

    async def _exchange(self, session: aiohttp.ClientSession, batch: list[_Waiting]) -> list[bytes | SignerRefused]:
        body = SignBatch(requests=tuple(waiting.request() for waiting in batch)).model_dump_json(by_alias=True)
        answer = SignResults.model_validate_json(await self._call(session, "POST", SIGN_PATH, body))
        if len(answer.results) != len(batch):
            raise _Unusable(f"{len(answer.results)} results for {len(batch)} documents")
        return [_result(row) for row in answer.results]

    async def _call(self, session: aiohttp.ClientSession, method: str, path: str, body: str | None = None) -> bytes:
        base, tls = "http://signer", None
        if self._access.socket is None:
            base, tls = self._access.url, await asyncio.to_thread(self._context)
        async with session.request(
            method, base + path, data=body, ssl=tls if tls is not None else system_context(), allow_redirects=False,
            headers={"Content-Type": "application/json"},
        ) as response:  # fmt: skip
            content = await response.content.read(_LARGEST_ANSWER)
            if response.status in (400, 413, 422):
                raise SignerRefused(f"HTTP {response.status}", content[:200].decode("utf-8", "replace"))
            if response.status != 200:
                raise _Unusable(f"HTTP {response.status}")
            return content

    def _context(self) -> ssl.SSLContext:
        """Return the client's certificate and the signer's authority.

        They are read again once a file changed.
        """
        folder = self._access.tls_dir or Path()
        files = [folder / name for name in ("tls.crt", "tls.key", "ca.crt")]
        stamp = [(state.st_ino, state.st_mtime_ns, state.st_size) for state in (file.stat() for file in files)]
        if self._tls is None or self._tls[0] != stamp:
            context = client_context(files[2])
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(files[0], files[1])
            self._tls = stamp, context
        return self._tls[1]

    async def _poll(self, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                answer = PublicKeys.model_validate_json(await self._call(session, "GET", KEYS_PATH))
            except (aiohttp.ClientError, OSError, TimeoutError, ValidationError, _Unusable, SignerRefused) as error:
                self._failed(error)
                self.problem = _text(error)
            else:
                self.listed = frozenset(bytes.fromhex(text) for text in answer.public_keys)
                self._answered()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_AGAIN_SECONDS if self.problem else _POLL_SECONDS):
                    await self._doubted.wait()
            self._doubted.clear()

    def _failed(self, error: Exception) -> None:
        if not self.problem:
            _LOG.warning("signer does not answer, retrying", url=self._access.url, error=_text(error))

    def _answered(self) -> None:
        if self.problem:
            _LOG.info("signer answers again", url=self._access.url)
        self.problem = ""


def _text(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "the signer's answer is not of this protocol"
    return str(error) or type(error).__name__


def _result(row: SignResult) -> bytes | SignerRefused:
    if row.signature is not None:
        return bytes.fromhex(row.signature)
    return SignerRefused(row.error or "", row.message, row.message_index)


def _resolve(waiting: _Waiting, result: bytes | SignerRefused) -> None:
    if waiting.signature.done():
        return
    if isinstance(result, SignerRefused):
        waiting.signature.set_exception(result)
    else:
        waiting.signature.set_result(result)


def remote_signer(
    access: SignerAccess | None,
    observe: Callable[[str, float], None],
    rng: random.Random,
    clock: Callable[[], float],
) -> RemoteSigner | None:
    """Return the client of the configured signer, None without one."""
    return None if access is None else RemoteSigner(access, observe=observe, rng=rng, clock=clock)


@dataclass(frozen=True, slots=True)
class RemoteKey:
    """A key that a remote signer holds."""

    public_key: bytes
    signer: RemoteSigner = field(repr=False, compare=False)


SigningKey = PrivateKey | RemoteKey


async def sign_document(key: SigningKey, kind: DocumentType, document: bytes) -> bytes:
    """Return the signature of a document with a key of this process or of a signer.

    Raises SignerUnavailable or SignerRefused.
    """
    if isinstance(key, PrivateKey):
        return key.sign(message_of(kind, document))
    return await key.signer.sign(key.public_key, kind, document)
