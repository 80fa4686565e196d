"""Store the seal of a claim before anything is broadcast (docs/fragile/seal.md).

The seal defines the claim. A session is sealed once. A later owner broadcasts only the sealed root.
"""

import base64
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from pocket.errors import DecodingError
from pocket.protocol.smst.digest import DIGEST_BYTES
from pocket.protocol.transactions.build import transaction_hash
from pocket.redis_store.lua_scripts import CLOSE, CUTOFF, FENCE, FINISH, LIFE, SEAL
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.reply_text import text_of
from pocket.redis_store.server_info import UNREPORTED
from pocket.redis_store.store_errors import (
    ConcurrentAppend,
    FenceMissing,
    RedisStoreError,
    RedisUnavailable,
    StaleEpoch,
    foreign_reply,
)

_LOG: FilteringBoundLogger = structlog.get_logger()
_UNREADABLE_KEPT = 1000
_LIVES = 3
_OTHER_CHAIN_BLOCKS = 100
"""A lagging node reports a lower height, but not by this many blocks."""
_COSTS_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class SessionSeal:
    """A sealed leaf set.

    The root has 48 bytes, leaf_digest is taken over the sorted leaf digests, height and epoch are those of the sealing.
    """

    session_id: str
    root: bytes
    leaf_digest: bytes
    height: int
    epoch: int

    def encode(self) -> str:
        """Return JSON with byte fields as hex."""
        fields = asdict(self)
        return json.dumps({k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}, sort_keys=True)

    @classmethod
    def decode(cls, text: str | bytes) -> "SessionSeal":
        """Decode from JSON. Raises DecodingError."""
        try:
            row = json.loads(text)
            root = bytes.fromhex(row["root"])
            if len(root) != DIGEST_BYTES:
                raise ValueError("the root has another length")
            leaf_digest = bytes.fromhex(row["leaf_digest"])
            return cls(str(row["session_id"]), root, leaf_digest, int(row["height"]), int(row["epoch"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise DecodingError("invalid seal in Redis") from error


@dataclass(frozen=True, slots=True)
class SignedGroup:
    """Signed claims or proofs of one supplier and session end.

    With the data to build them again.
    """

    tx_raw: bytes
    timeout_ns: int
    height: int

    def encode(self) -> str:
        """Return JSON with the bytes as base64."""
        return json.dumps({"tx": base64.b64encode(self.tx_raw).decode(), "timeout": self.timeout_ns, "h": self.height})

    @classmethod
    def decode(cls, text: str | bytes) -> "SignedGroup":
        """Decode from JSON. Raises DecodingError."""
        try:
            row = json.loads(text)
            return cls(base64.b64decode(row["tx"]), int(row["timeout"]), int(row["h"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise DecodingError("invalid signed transaction in Redis") from error


def _end(text: str, prefix: str = "") -> int | None:
    """Return the session end height that a value begins with, None for a damaged one."""
    number = text.removeprefix(prefix).partition("/")[0]
    return int(number) if text.startswith(prefix) and number.isascii() and number.isdecimal() else None


def _status(reply: Sequence[Any], *known: str) -> str:
    """Return the status of an owner's write.

    Raises StaleEpoch, FenceMissing, and RedisUnavailable for a status that is not known.
    """
    status = text_of(reply[0])
    if status == "fenced":
        epoch = int(text_of(reply[1]))
        raise StaleEpoch(f"another owner holds epoch {epoch}", epoch)
    if status == "unfenced":
        raise FenceMissing("Redis does not know this owner's epoch: fence again")
    if status not in known:
        raise foreign_reply(reply)
    return status


class SealStore:
    """Seals of one supplier. Every write carries the owner's epoch."""

    def __init__(
        self, redis: "Redis", keys: RedisKeys, supplier: str, epoch: int,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:  # fmt: skip
        self._redis = redis
        self._keys = keys
        self._supplier = supplier
        self.epoch = epoch
        self._unique = unique
        self._unreadable: set[str] = set()
        self._fenced_life: object = None
        self._fence_doubted = False

    @property
    def supplier(self) -> str:
        """Return the supplier's operator address."""
        return self._supplier

    def doubt_fence(self) -> None:
        """Doubt the fence after a restart or fail-over of Redis.

        It may have lost that of a newer owner.
        """
        self._fence_doubted = True

    async def fence(self, confirm: Callable[[], Awaitable[None]], *, urgent: bool = False) -> None:
        """Fence off smaller epochs.

        `confirm` verifies from the Lease that this owner still owns the supplier. The result counts only for the life
        of Redis in which it was read: an owner that was paused in between, while Redis lost its data, has to confirm
        again.

        While the Lease cannot be read, the fence of this owner's epoch counts if it is still there in the life of Redis
        in which it was written. If it is doubted, it counts only once it is `urgent`: a newer owner has fenced again by
        then.

        Raises StaleEpoch when a greater epoch is known, and what `confirm` raises.
        """
        keys = [self._keys.fence(self._supplier), self._keys.incarnation(self._supplier)]
        for _ in range(_LIVES):
            life = await LIFE.run(self._redis, [keys[1]], [self._unique()])
            try:
                await confirm()
            except RedisUnavailable:
                doubted = self._fence_doubted and not urgent
                if doubted or life != self._fenced_life or await self._highest_epoch() != self.epoch:
                    raise
                return
            reply = await FENCE.run(self._redis, keys, [self.epoch, life])
            if _status(reply, "ok", "reborn") == "ok":
                self._fenced_life, self._fence_doubted = life, False
                return
        raise FenceMissing(f"Redis lost its data {_LIVES} times while fencing epoch {self.epoch}")

    async def check_fence(self) -> None:
        """Check that no other owner has a higher epoch.

        Raises StaleEpoch, and RedisUnavailable.
        """
        known = await self._highest_epoch()
        if known > self.epoch:
            raise StaleEpoch(f"another owner holds epoch {known}", known)

    async def _highest_epoch(self) -> int:
        known = text_of(await self._redis.get(self._keys.fence(self._supplier)) or "0")
        return int(known) if known.isascii() and known.isdecimal() else 0

    async def advance_cutoff(self, session_end: int, height: int) -> tuple[int, int]:
        """Advance the cut-off of sessions without relays.

        Ended sessions up to this height are no longer registered. The cut-off never falls, except when it is far above
        the chain's height: then another chain left it there.

        Returns the previous and the new cut-off, in blocks. Raises StaleEpoch, FenceMissing and RedisUnavailable.
        """
        keys = [self._keys.fence(self._supplier), self._keys.cutoff(self._supplier)]
        reply = await CUTOFF.run(self._redis, keys, [self.epoch, session_end, height + _OTHER_CHAIN_BLOCKS])
        _status(reply, "ok")
        return int(text_of(reply[1])), int(text_of(reply[2]))

    async def close(self, sessions: Mapping[str, int], history: str = "") -> dict[str, str]:
        """Close sessions (id → session end height) to new relays.

        Returns the last entry id of each stream. Raises ConcurrentAppend, and closes nothing, if Redis has another
        history than `history`: it may lack relays that a closed session would not take. Raises StaleEpoch, or
        FenceMissing if `fence` has to come first, as does every other write.
        """
        keys = [self._keys.fence(self._supplier), self._keys.closed(self._supplier)]
        arguments: list[Any] = [self.epoch, "" if history.startswith(UNREPORTED) else history]
        for session_id, end in sessions.items():
            keys.append(self._keys.stream(self._supplier, session_id))
            arguments += [session_id, f"sealing/{end}"]
        reply = await CLOSE.run(self._redis, keys, arguments)
        if _status(reply, "ok", "moved") == "moved":
            raise ConcurrentAppend("Redis was restarted or failed over a moment ago")
        if len(reply) != 1 + len(sessions):
            raise foreign_reply(reply)
        return dict(zip(sessions, map(text_of, reply[1:]), strict=True))

    async def seal(
        self, seals: Sequence[SessionSeal], last_ids: Mapping[str, str], group: str, signed: SignedGroup
    ) -> None:
        """Store all seals with their transaction in one step.

        Raises StaleEpoch, ConcurrentAppend when a stream grew or is open, or RedisStoreError when a session is sealed
        already (read `load` and use that seal).
        """
        keys = [
            self._keys.fence(self._supplier),
            self._keys.closed(self._supplier),
            self._keys.seals(self._supplier),
            self._keys.transactions(self._supplier),
        ]
        arguments: list[Any] = [self.epoch, group, signed.encode()]
        for seal in seals:
            keys.append(self._keys.stream(self._supplier, seal.session_id))
            arguments += [seal.session_id, last_ids[seal.session_id], seal.encode()]
        reply = await SEAL.run(self._redis, keys, arguments)
        status = _status(reply, "sealed", "stale", "open", "exists")
        if status in ("stale", "open"):
            raise ConcurrentAppend(f"session {text_of(reply[1])} is {status}")
        if status == "exists":
            raise RedisStoreError("a session of the group is sealed already")

    async def load(self) -> dict[str, SessionSeal]:
        """Return all seals of open sessions by session id.

        A row that cannot be read is its session's trouble alone: it is left out, and logged once.
        """
        seals = {}
        for key, value in (await self._redis.hgetall(self._keys.seals(self._supplier))).items():
            session_id = text_of(key)
            try:
                seals[session_id] = SessionSeal.decode(value)
            except DecodingError as error:
                if session_id not in self._unreadable and len(self._unreadable) < _UNREADABLE_KEPT:
                    self._unreadable.add(session_id)
                    _LOG.error(
                        "a seal in Redis cannot be read and is left out",
                        supplier=self._supplier,
                        session=repr(session_id),
                        error=error,
                    )
        return seals

    async def share_signed(self, session_end: int, message: str, signed: SignedGroup) -> None:
        """Publish signed claims or proofs to later owners.

        They send the same bytes instead of paying a second fee. It is a fact that no fence guards.
        """
        name = f"{session_end}/{message}/{transaction_hash(signed.tx_raw)}"
        await self._redis.hset(self._keys.transactions(self._supplier), name, signed.encode())

    async def signed(self, session_end: int, message: str = "claim") -> list[SignedGroup]:
        """Return the signed transactions of one session end.

        Those of its seals, or with `what` = proof its proofs.
        """
        names = [text_of(name) for name in await self._redis.hkeys(self._keys.transactions(self._supplier))]
        wanted = [name for name in names if name.startswith(f"{session_end}/{message}/")]
        if not wanted:
            return []
        rows: Any = await self._redis.hmget(self._keys.transactions(self._supplier), wanted)
        groups = []
        for row in filter(None, rows):
            try:
                groups.append(SignedGroup.decode(row))
            except DecodingError as error:
                _LOG.error("a signed transaction in Redis cannot be read and is left out", error=error)
        return groups

    async def restore(self, seals: Mapping[str, SessionSeal], ends: Mapping[str, int]) -> None:
        """Put saved seals back after Redis lost them. Existing ones stay."""
        for session_id, seal in seals.items():
            await self.close({session_id: ends[session_id]})
            await self._redis.hsetnx(self._keys.seals(self._supplier), session_id, seal.encode())

    async def share_costs(self, tx_hash: str, message: str, upokt: Mapping[str, int]) -> None:
        """Publish to later owners what a transaction cost each session.

        Raises RedisUnavailable. It is a fact that no fence guards: a former owner that has paid may publish it.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            for session_id, amount in upokt.items():
                name = self._keys.costs(self._supplier, session_id)
                pipe.hset(name, tx_hash, f"{message}/{amount}")
                pipe.expire(name, _COSTS_SECONDS)
            await pipe.execute()

    async def costs(self, session_id: str) -> dict[str, tuple[str, int]]:
        """Return transaction hash → (claim or proof, upokt) as published by all owners.

        Raises RedisUnavailable.
        """
        rows = await self._redis.hgetall(self._keys.costs(self._supplier, session_id))
        costs = {}
        for tx_hash, value in rows.items():
            message, _, amount = text_of(value).partition("/")
            if amount.isdecimal():
                costs[text_of(tx_hash)] = (message, int(amount))
        return costs

    async def finish(self, session_id: str, session_end: int) -> None:
        """Delete the session's stream and budget and leave a tombstone. Raises StaleEpoch."""
        supplier = self._supplier
        keys = [
            self._keys.fence(supplier),
            self._keys.closed(supplier),
            self._keys.sessions(supplier),
            self._keys.seals(supplier),
            self._keys.replicated(supplier),
            self._keys.stream(supplier, session_id),
            self._keys.costs(supplier, session_id),
            *self._keys.spent(supplier, session_id),
        ]
        _status(await FINISH.run(self._redis, keys, [self.epoch, session_id, f"done/{session_end}"]), "ok")

    async def forget_before(self, height: int) -> None:
        """Delete tombstones and transactions of sessions that ended below `height`."""
        closed = await self._redis.hgetall(self._keys.closed(self._supplier))
        old = [k for k, v in closed.items() if (end := _end(text_of(v), "done/")) is not None and end < height]
        if old:
            await self._redis.hdel(self._keys.closed(self._supplier), *old)
        groups = await self._redis.hkeys(self._keys.transactions(self._supplier))
        stale = [name for name in groups if (end := _end(text_of(name))) is not None and end < height]
        if stale:
            await self._redis.hdel(self._keys.transactions(self._supplier), *stale)
