"""Simulated relays: who may send them, and how often (relay-lifecycle.md, section 12).

They go through decoding, backends and signing like any relay and stop there: nothing of them is charged, mined or
counted with real traffic, and the chain is never asked. Invariant: a simulated relay is proven by the pinned ring
before a backend sees it, on every transport and whatever a service's `validation` is.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from redis.asyncio import Redis

from pocket.api.simulation import Simulation, SimulationIdentity
from pocket.errors import DecodingError, InvalidSignature
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ring import ExpectedRing, verify_request_signature
from pocket.protocol.relays.simulated import SESSION_ID
from pocket.redis_store.redis_errors import REDIS_ERRORS
from pocket.redis_store.redis_keys import RedisKeys
from pocket_relayer.pipeline.admission import Admitted
from pocket_relayer.pipeline.metering import Metered
from pocket_relayer.pipeline.relay import AdmissibleRelay, TransportInfo
from pocket_relayer.rejection import Rejected, RejectionReason
from pocket_relayer.token_bucket import TokenBucket

HEADER: Final = "Pocket-Simulation-Key-Id"
CONNECTION_SECONDS: Final = 60.0
"""A simulated WebSocket is a probe: it ends then, whatever it subscribed to."""
_NO_TARGET: Final = b"\xff" * 32
_FREE: Final = nullcontext()
_UNPAID: Final = Metered(None, paid=False)


class SimulatedRelayAdmission:
    """What one worker knows of simulated relays; replays are known to all workers through Redis."""

    def __init__(
        self,
        redis: "Redis",
        keys: RedisKeys,
        config: Callable[[], Simulation],
        *,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._config = config
        self._wall_clock = wall_clock
        self._clock = clock
        self._running = 0
        self._buckets: dict[str, TokenBucket] = {}

    def wanted(self, caller: TransportInfo) -> str:
        """The key id of a caller that asks for a simulated relay; empty while that is switched off."""
        return caller.headers.get(HEADER, "").strip()[:64] if self._config().enabled else ""

    def slot(self, caller: TransportInfo) -> AbstractContextManager[None]:
        """Room for one simulated relay or connection; free for any other. Raises Rejected when it is entered."""
        return self._slot() if self.wanted(caller) else _FREE

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._running >= self._config().max_concurrent:
            raise Rejected(RejectionReason.SIMULATION_LIMITED, "too many simulated relays at once")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def admit(self, relay: AdmissibleRelay) -> tuple[Admitted, Metered]:
        """Proves a simulated relay; raises Rejected."""
        config = self._config()
        identity = next((row for row in config.identities if row.key_id == relay.simulated), None)
        now = self._wall_clock()
        if identity is None or not config.enabled or not identity.enabled or identity.expired(now):
            raise Rejected(
                RejectionReason.SIMULATION_REFUSED, "this simulation key is not known, switched off or expired"
            )
        header = relay.header
        if header.application_address != address_of(bytes.fromhex(identity.application_public_key)):
            raise Rejected(RejectionReason.SIMULATION_REFUSED, "the application is not the one that is pinned")
        if identity.services and header.service_id not in identity.services:
            raise Rejected(
                RejectionReason.SIMULATION_REFUSED, f"service {header.service_id} is not allowed for this key"
            )
        found = re.fullmatch(SESSION_ID, header.session_id)
        if found is None:
            raise Rejected(
                RejectionReason.INVALID_REQUEST, "the session id must be simv1:<unix seconds>:<nonce in hex>"
            )
        if abs(now - int(found[1])) >= config.freshness_seconds:
            raise Rejected(RejectionReason.SIMULATION_REFUSED, "the simulated relay is not fresh: compare the clocks")
        ring = ExpectedRing.of([bytes.fromhex(key) for key in identity.ring])
        try:
            signed = verify_request_signature(relay.request.signable_hash(), relay.request.signature, ring)
        except (InvalidSignature, DecodingError) as error:
            raise Rejected(RejectionReason.SIMULATION_REFUSED, str(error)) from error
        await self._once(signed, config.freshness_seconds)
        self._charge(identity)
        return Admitted(header, _NO_TARGET, None, signed), _UNPAID

    async def _once(self, signed: bytes, freshness_seconds: int) -> None:
        key = self._keys.simulated(signed.hex())
        try:
            fresh = await self._redis.set(key, b"", nx=True, ex=2 * freshness_seconds)
        except REDIS_ERRORS as error:
            raise Rejected(
                RejectionReason.SIMULATION_UNAVAILABLE, "Redis, which knows of replays, does not answer"
            ) from error
        if not fresh:
            raise Rejected(
                RejectionReason.SIMULATION_REPLAYED, "this simulated relay was served before: sign each anew"
            )

    def _charge(self, identity: SimulationIdentity) -> None:
        """Take from an identity's rate, after the proof: nobody else can use it up. Raises Rejected."""
        most = float(identity.max_per_second)
        bucket = self._buckets.setdefault(identity.key_id, TokenBucket(most, most))
        bucket.rate = bucket.burst = most  # as it is configured now
        if not bucket.try_take(1, self._clock()):
            raise Rejected(
                RejectionReason.SIMULATION_LIMITED, f"more than {identity.max_per_second} simulated relays a second"
            )
