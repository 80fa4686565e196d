"""Serve signatures of the keys of a folder (docs/signer.md)."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, generate_latest
from pydantic import ValidationError
from structlog.typing import FilteringBoundLogger

from pocket.api.base import problem_of
from pocket.keys.keyring import Keyring
from pocket.keys.signer_protocol import (
    HEALTH_PATH,
    KEYS_PATH,
    SIGN_PATH,
    DocumentType,
    PublicKeys,
    Refusal,
    SignBatch,
    SignRequest,
    SignResult,
    SignResults,
    message_of,
)
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket_signer.signable import NotSignable, SigningPolicy, roots_to_claim
from pocket_signer.signed_roots import SignedRoots

_LOG: FilteringBoundLogger = structlog.get_logger()
LARGEST_BODY: Final = 32 * 1024 * 1024
_RELOAD_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class SignerMetrics:
    """Metrics of a signer, in a registry of its own."""

    registry: CollectorRegistry
    results: Counter

    @classmethod
    def create(cls) -> "SignerMetrics":
        """Return metrics that start at zero."""
        registry = CollectorRegistry()
        results = Counter(
            "pocket_signer_documents_total", "Documents by type and result: signed, or the reason of a refusal.",
            ["type", "result"], registry=registry,
        )  # fmt: skip
        for kind in DocumentType:
            for result in ("signed", *Refusal):
                results.labels(kind.value, result)
        return cls(registry, results)


class SignerServer:
    """Signs what the policy allows, and for each session no second root."""

    def __init__(
        self, keyring: Keyring, roots: SignedRoots, policy: SigningPolicy, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._keyring = keyring
        self._roots = roots
        self._policy = policy
        self._wall_clock = wall_clock
        self._by_public_key: dict[bytes, PrivateKey] = {}
        self._is_idle = False
        self.metrics = SignerMetrics.create()

    def reload_keys(self) -> None:
        """Read the keys again, and warn once while there is none.

        It waits for files, so it belongs in a thread.
        """
        if self._keyring.reload():
            keys = self._keyring.by_address().values()
            self._by_public_key = {key.public_key: key for key in keys if isinstance(key, PrivateKey)}
        was_idle, self._is_idle = self._is_idle, not self._by_public_key
        if self._is_idle and not was_idle:
            _LOG.warning("no key is loaded, so nothing is signed: put key files into the folder of --keys")

    async def run(self) -> None:
        """Read changed keys until cancelled."""
        while True:
            await asyncio.sleep(_RELOAD_SECONDS)
            await asyncio.to_thread(self.reload_keys)

    def application(self) -> web.Application:
        """Return the paths for relayers and miners."""
        app = web.Application(client_max_size=LARGEST_BODY)
        app.add_routes(
            [web.get(HEALTH_PATH, self._health), web.get(KEYS_PATH, self._public_keys), web.post(SIGN_PATH, self._sign)]
        )
        return app

    def admin_application(self) -> web.Application:
        """Return the paths for probes and monitoring, which sign nothing."""
        app = web.Application()
        app.add_routes([web.get(HEALTH_PATH, self._health), web.get("/metrics", self._metrics)])
        return app

    async def _health(self, _: web.Request) -> web.Response:
        if not self._by_public_key:
            return web.json_response({"problem": "no key is loaded"}, status=503)
        return web.json_response({"keys": len(self._by_public_key)})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.metrics.registry), content_type="text/plain")

    async def _public_keys(self, _: web.Request) -> web.Response:
        listed = PublicKeys(public_keys=tuple(key.hex() for key in sorted(self._by_public_key)))
        return web.Response(text=listed.model_dump_json(by_alias=True), content_type="application/json")

    async def _sign(self, request: web.Request) -> web.Response:
        try:
            batch = SignBatch.model_validate_json(await request.read())
        except ValidationError as error:
            return web.Response(
                status=400, text=json.dumps({"error": problem_of(error)[:500]}), content_type="application/json"
            )
        try:
            results = [await self._result(row) for row in batch.requests]
        except sqlite3.Error as error:
            # Without the file, a second root could be signed: no claim is signed until it can be written.
            _LOG.error("signed roots cannot be stored", error=error)
            return web.Response(status=503, text="signed roots cannot be stored")
        return web.Response(
            text=SignResults(results=tuple(results)).model_dump_json(by_alias=True, exclude_none=True),
            content_type="application/json",
        )

    async def _result(self, row: SignRequest) -> SignResult:
        try:
            signature = await self._signature(row)
        except NotSignable as error:
            self.metrics.results.labels(row.type.value, error.refusal).inc()
            _LOG.warning(
                "refused to sign", type=row.type.value, refusal=error.refusal.value, problem=str(error),
                supplier=address_of(bytes.fromhex(row.public_key)),
            )  # fmt: skip
            return SignResult(error=error.refusal, message=str(error), message_index=error.index)
        self.metrics.results.labels(row.type.value, "signed").inc()
        return SignResult(signature=signature.hex())

    async def _signature(self, row: SignRequest) -> bytes:
        public_key = bytes.fromhex(row.public_key)
        key = self._by_public_key.get(public_key)
        if key is None:
            raise NotSignable(Refusal.UNKNOWN_KEY, "this signer does not hold the key")
        roots = roots_to_claim(row.type, row.document, public_key, self._policy)
        if roots:
            other = await asyncio.to_thread(self._roots.remember, public_key, roots, int(self._wall_clock()))
            if other is not None:
                raise NotSignable(
                    Refusal.SECOND_ROOT,
                    f"another root was signed for session {other.session_id} before: `relayctl signer forget` "
                    "removes it if that claim was never sent",
                    other.index,
                )
        return key.sign(message_of(row.type, row.document))
