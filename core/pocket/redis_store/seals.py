"""The seal: what defines a claim, kept before anything is broadcast (docs/fragile/seal.md).

A session is sealed once. Whoever owns it later broadcasts only the sealed root.
"""

import base64
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis

from pocket.errors import DecodingError
from pocket.redis_store.lua_scripts import CLOSE, FENCE, FINISH, HORIZON, LIFE, SEAL
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import ConcurrentAppend, FenceMissing, RedisStoreError, StaleEpoch

_LOG = logging.getLogger("pocket.redis_store.seals")
_UNREADABLE_KEPT = 1000
_LIVES = 3
_OTHER_CHAIN_BLOCKS = 100
"""A node that lags tells a lower height, but not by so much."""
_COSTS_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class SessionSeal:
    """A sealed leaf set: root (48 bytes), digest over the sorted leaf digests, height and epoch of the sealing."""

    session_id: str
    root: bytes
    leaf_digest: bytes
    height: int
    epoch: int

    def encode(self) -> str:
        """JSON, byte fields as hex."""
        fields = asdict(self)
        return json.dumps({k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}, sort_keys=True)

    @classmethod
    def decode(cls, text: str | bytes) -> "SessionSeal":
        """From JSON; raises DecodingError."""
        try:
            row = json.loads(text)
            return cls(
                str(row["session_id"]), bytes.fromhex(row["root"]), bytes.fromhex(row["leaf_digest"]),
                int(row["height"]), int(row["epoch"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise DecodingError("a seal cannot be read") from error


@dataclass(frozen=True, slots=True)
class SignedGroup:
    """Signed bytes of the claims of one supplier and session end, with what rebuilds them later."""

    tx_raw: bytes
    timeout_ns: int
    height: int

    def encode(self) -> str:
        """JSON, the bytes as base64."""
        return json.dumps({"tx": base64.b64encode(self.tx_raw).decode(), "timeout": self.timeout_ns, "h": self.height})

    @classmethod
    def decode(cls, text: str | bytes) -> "SignedGroup":
        """From JSON; raises DecodingError."""
        try:
            row = json.loads(text)
            return cls(base64.b64decode(row["tx"]), int(row["timeout"]), int(row["h"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DecodingError("a signed transaction cannot be read") from error


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _fenced(reply: Sequence[Any]) -> None:
    if _text(reply[0]) == "fenced":
        epoch = int(_text(reply[1]))
        raise StaleEpoch(f"another owner holds epoch {epoch}", epoch)
    if _text(reply[0]) == "unfenced":
        raise FenceMissing("Redis does not know this owner")


class SealStore:
    """Seals of one supplier; every write carries the owner's epoch."""

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

    @property
    def supplier(self) -> str:
        """Operator address."""
        return self._supplier

    async def fence(self, confirm: Callable[[], Awaitable[None]]) -> None:
        """Makes smaller epochs powerless; raises Fenced when a greater one is known, and what `confirm` raises.

        `confirm` takes a fresh look at who owns the supplier. It counts only for the life of Redis in which it was
        taken: an owner that was stopped in between, while Redis was lost, has to look again.
        """
        keys = [self._keys.fence(self._supplier), self._keys.incarnation(self._supplier)]
        for _ in range(_LIVES):
            life = await LIFE.run(self._redis, [keys[1]], [self._unique()])
            await confirm()
            reply = await FENCE.run(self._redis, keys, [self.epoch, life])
            _fenced(reply)
            if _text(reply[0]) == "ok":
                return
        raise FenceMissing("Redis is lost again and again")

    async def check_fence(self) -> None:
        """Raise Fenced where another owner has a higher epoch; raises what Redis raises."""
        known = int(_text(await self._redis.get(self._keys.fence(self._supplier)) or 0))
        if known > self.epoch:
            raise StaleEpoch(f"another owner holds epoch {known}", known)

    async def raise_horizon(self, session_end: int, height: int) -> tuple[int, int]:
        """Sessions that ended by then and have no relay yet take none any more; what the horizon was, and what it is.

        It never falls, but where it is far above the chain's height: then another chain left it there. Raises Fenced,
        Unfenced and what Redis raises.
        """
        keys = [self._keys.fence(self._supplier), self._keys.horizon(self._supplier)]
        reply = await HORIZON.run(self._redis, keys, [self.epoch, session_end, height + _OTHER_CHAIN_BLOCKS])
        _fenced(reply)
        return int(_text(reply[1])), int(_text(reply[2]))

    async def close(self, sessions: Mapping[str, int]) -> dict[str, str]:
        """Closes sessions (id → session end height) to new relays; the last entry id of each stream.

        Raises Fenced, or Unfenced where `fence` has to come first: so does every other write.
        """
        keys = [self._keys.fence(self._supplier), self._keys.closed(self._supplier)]
        arguments: list[Any] = [self.epoch]
        for session_id, end in sessions.items():
            keys.append(self._keys.stream(self._supplier, session_id))
            arguments += [session_id, f"sealing/{end}"]
        reply = await CLOSE.run(self._redis, keys, arguments)
        _fenced(reply)
        return dict(zip(sessions, map(_text, reply[1:]), strict=True))

    async def seal(
        self, seals: Sequence[SessionSeal], last_ids: Mapping[str, str], group: str, signed: SignedGroup
    ) -> None:
        """Stores all seals with their transaction in one step.

        Raises Fenced, StaleView when a stream grew or is open, or LedgerError when one is sealed already
        (read `load` and use that seal).
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
        _fenced(reply)
        verdict = _text(reply[0])
        if verdict in ("stale", "open"):
            raise ConcurrentAppend(f"session {_text(reply[1])} is {verdict}")
        if verdict == "exists":
            raise RedisStoreError("a session of the group is sealed already")

    async def load(self) -> dict[str, SessionSeal]:
        """Return all seals of open sessions by session id.

        A row that cannot be read is its session's trouble alone: it is left out, and logged once.
        """
        found = {}
        for key, value in (await self._redis.hgetall(self._keys.seals(self._supplier))).items():
            session_id = _text(key)
            try:
                found[session_id] = SessionSeal.decode(value)
            except DecodingError as error:
                if session_id not in self._unreadable and len(self._unreadable) < _UNREADABLE_KEPT:
                    self._unreadable.add(session_id)
                    fields = {"supplier": self._supplier, "session": repr(session_id), "error": str(error)}
                    _LOG.error("a seal in Redis cannot be read and is left out", extra={"fields": fields})
        return found

    async def signed(self, session_end: int) -> list[SignedGroup]:
        """The transactions that were signed with the seals of one session end."""
        names = [_text(name) for name in await self._redis.hkeys(self._keys.transactions(self._supplier))]
        wanted = [name for name in names if name.startswith(f"{session_end}/claim/")]
        if not wanted:
            return []
        rows = await self._redis.hmget(self._keys.transactions(self._supplier), wanted)
        return [SignedGroup.decode(row) for row in rows if row]

    async def restore(self, seals: Mapping[str, SessionSeal], ends: Mapping[str, int]) -> None:
        """Puts seals of the mirror back after Redis lost them; existing ones stay."""
        for session_id, seal in seals.items():
            await self.close({session_id: ends[session_id]})
            await self._redis.hsetnx(self._keys.seals(self._supplier), session_id, seal.encode())

    async def share_costs(self, tx_hash: str, what: str, upokt: Mapping[str, int]) -> None:
        """Tells later owners what a transaction cost each session; raises what Redis raises.

        A fact, which no fence guards: a former owner that has paid may say so.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            for session_id, amount in upokt.items():
                name = self._keys.costs(self._supplier, session_id)
                pipe.hset(name, tx_hash, f"{what}/{amount}")
                pipe.expire(name, _COSTS_SECONDS)
            await pipe.execute()

    async def costs(self, session_id: str) -> dict[str, tuple[str, int]]:
        """Transaction hash → (claim or proof, upokt) as all owners told; raises what Redis raises."""
        rows = await self._redis.hgetall(self._keys.costs(self._supplier, session_id))
        found = {}
        for tx_hash, value in rows.items():
            what, _, amount = _text(value).partition("/")
            if amount.isdecimal():
                found[_text(tx_hash)] = (what, int(amount))
        return found

    async def finish(self, session_id: str, session_end: int) -> None:
        """Deletes the session's stream and budget and leaves a tombstone; raises Fenced."""
        supplier = self._supplier
        keys = [
            self._keys.fence(supplier),
            self._keys.closed(supplier),
            self._keys.sessions(supplier),
            self._keys.seals(supplier),
            self._keys.mirrored(supplier),
            self._keys.stream(supplier, session_id),
            self._keys.costs(supplier, session_id),
            *self._keys.spent(supplier, session_id),
        ]
        _fenced(await FINISH.run(self._redis, keys, [self.epoch, session_id, f"done/{session_end}"]))

    async def forget_before(self, height: int) -> None:
        """Drops tombstones and transactions of sessions that ended below `height`."""
        closed = await self._redis.hgetall(self._keys.closed(self._supplier))
        old = [k for k, v in closed.items() if _text(v).startswith("done/") and int(_text(v)[5:]) < height]
        if old:
            await self._redis.hdel(self._keys.closed(self._supplier), *old)
        groups = await self._redis.hkeys(self._keys.transactions(self._supplier))
        stale = [name for name in groups if int(_text(name).split("/")[0]) < height]
        if stale:
            await self._redis.hdel(self._keys.transactions(self._supplier), *stale)
