"""Admit simulated relays by key and rate (relay-lifecycle.md, section 12).

They are decoded, forwarded and signed like any relay and end there: they are not charged, mined or counted with real
traffic, and the chain is not queried. Invariant: a simulated relay is authenticated by the pinned ring before a
backend sees it, on every transport and with any `validation` of its service.
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
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.limits.token_bucket import TokenBucket
from pocket_relayer.pipeline.authorization import Admitted
from pocket_relayer.pipeline.metering import Metered
from pocket_relayer.pipeline.relay import AdmissibleRelay, TransportInfo

HEADER: Final = "Pocket-Simulation-Key-Id"
CONNECTION_SECONDS: Final = 60.0
"""Limit of a simulated WebSocket, which is a probe."""
_NO_TARGET: Final = b"\xff" * 32
_FREE: Final = nullcontext()
_UNPAID: Final = Metered(None, paid=False)


class SimulatedRelayAdmission:
    """Admission of simulated relays by one worker.

    All workers share the record of replays in Redis.
    """

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

    def key_id(self, caller: TransportInfo) -> str:
        """Return the key id of a caller that asks for a simulated relay.

        It is empty while simulation is disabled.
        """
        return caller.headers.get(HEADER, "").strip()[:64] if self._config().enabled else ""

    def _identity(self, key_id: str) -> SimulationIdentity | None:
        """Return the identity of a key id that may send simulated relays, or None."""
        config = self._config()
        identity = next((row for row in config.identities if row.key_id == key_id), None)
        if identity is None or not config.enabled or not identity.enabled or identity.expired(self._wall_clock()):
            return None
        return identity

    def knows(self, key_id: str) -> bool:
        """Return True if the key id is that of an identity that may send simulated relays."""
        return self._identity(key_id) is not None

    def limit(self, key_id: str) -> AbstractContextManager[None]:
        """Return a context that holds one of the limited simulated relays or connections.

        It is without limit for any other relay, which has no key id, and for a key id that is rejected in any case. A
        connection enters it with its first authenticated relay, so that strangers cannot use the limit up. Entering it
        raises Rejected.
        """
        return self._limited() if key_id and self.knows(key_id) else _FREE

    @contextmanager
    def _limited(self) -> Iterator[None]:
        if self._running >= self._config().max_concurrent:
            raise Rejected(RejectionReason.SIMULATION_LIMITED, "too many simulated relays at once")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def admit(self, relay: AdmissibleRelay) -> tuple[Admitted, Metered]:
        """Authenticate a simulated relay.

        Raises Rejected.
        """
        config, now = self._config(), self._wall_clock()
        identity = self._identity(relay.simulated)
        if identity is None:
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
        match = re.fullmatch(SESSION_ID, header.session_id)
        if match is None:
            raise Rejected(
                RejectionReason.INVALID_REQUEST, "the session id must be simv1:<unix seconds>:<nonce in hex>"
            )
        if abs(now - int(match[1])) >= config.freshness_seconds:
            raise Rejected(RejectionReason.SIMULATION_REFUSED, "the simulated relay is not fresh: compare the clocks")
        ring = ExpectedRing.of([bytes.fromhex(key) for key in identity.ring])
        try:
            signed = verify_request_signature(relay.request.signable_hash(), relay.request.signature, ring)
        except (InvalidSignature, DecodingError) as error:
            raise Rejected(RejectionReason.SIMULATION_REFUSED, str(error)) from error
        await self._reject_replay(signed, config.freshness_seconds)
        self._charge(identity)
        return Admitted(header, _NO_TARGET, None, signed), _UNPAID

    async def _reject_replay(self, signed: bytes, freshness_seconds: int) -> None:
        key = self._keys.simulated(signed.hex())
        try:
            fresh = await self._redis.set(key, b"", nx=True, ex=2 * freshness_seconds)
        except RedisUnavailable as error:
            raise Rejected(
                RejectionReason.SIMULATION_UNAVAILABLE, "Redis, which knows of replays, does not answer"
            ) from error
        if not fresh:
            raise Rejected(
                RejectionReason.SIMULATION_REPLAYED, "this simulated relay was served before: sign each relay again"
            )

    def _charge(self, identity: SimulationIdentity) -> None:
        """Charge an identity's rate limit.

        It follows authentication, so that no one else can use the limit up.

        Raises Rejected.
        """
        limit = float(identity.max_per_second)
        bucket = self._buckets.setdefault(identity.key_id, TokenBucket(limit, limit))
        bucket.rate = bucket.burst = limit  # as it is configured now
        if not bucket.try_take(1, self._clock()):
            raise Rejected(
                RejectionReason.SIMULATION_LIMITED, f"more than {identity.max_per_second} simulated relays a second"
            )
