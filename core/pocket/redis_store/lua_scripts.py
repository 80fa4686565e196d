"""The Lua scripts: every decision that must be atomic in Redis."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError

from pocket.redis_store.store_errors import foreign_reply

# KEYS: closed, sessions, incarnation, cutoff, stream...   ARGV: fresh incarnation, then per stream: session id,
# header, session end (0: ignore the cutoff), count, relay...   Returns the incarnation, then per stream the last
# entry id, nil where the session is closed, 0 where it is not registered and ended at or before the cutoff, or -1 where
# Redis refuses the stream, as when its key has another type.
# A session and its stream are made and deleted together: one without the other shows that a key was lost, and then
# others may have been, too.
APPEND_SOURCE: Final = """
local incarnation = redis.call('GET', KEYS[3])
local lost = not incarnation
local cutoff = tonumber(redis.call('GET', KEYS[4]) or '0') or 0
local out = {''}
local at = 2
for i = 5, #KEYS do
  local session, header, ends, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 4
  if redis.call('HEXISTS', KEYS[1], session) == 1 then
    out[#out + 1] = false
  elseif ends > 0 and ends <= cutoff and redis.call('HEXISTS', KEYS[2], session) == 0 then
    out[#out + 1] = 0
  else
    local fresh, known = redis.call('HSETNX', KEYS[2], session, header), 1
    local id = redis.pcall('XADD', KEYS[i], 'NOMKSTREAM', '*', 'r', ARGV[at])
    if not id then id, known = redis.call('XADD', KEYS[i], '*', 'r', ARGV[at]), 0 end
    if fresh == known then lost = true end
    if type(id) == 'table' then
      id = -1
    else
      for j = 1, count - 1 do id = redis.call('XADD', KEYS[i], '*', 'r', ARGV[at + j]) end
    end
    out[#out + 1] = id
  end
  at = at + count
end
if lost then incarnation = ARGV[1]; redis.call('SET', KEYS[3], incarnation) end
out[1] = incarnation
return out
"""

# KEYS: incarnation, closed, sessions, stream...   ARGV: session id of each stream.   Returns the incarnation, then per
# stream nil where the session is closed, -1 where the stream or the session is missing, else how many of its entries
# were deleted. It writes nothing.
STATES_SOURCE: Final = """
local out = {redis.call('GET', KEYS[1]) or ''}
for i = 4, #KEYS do
  local session, deleted = ARGV[i - 3], 0
  if redis.call('HEXISTS', KEYS[2], session) == 1 then
    deleted = false
  elseif redis.call('EXISTS', KEYS[i]) == 0 or redis.call('HEXISTS', KEYS[3], session) == 0 then
    deleted = -1
  else
    local fields, row = redis.pcall('XINFO', 'STREAM', KEYS[i]), {}
    for j = 1, #fields, 2 do row[fields[j]] = fields[j + 1] end
    deleted = math.max(0, (row['entries-added'] or 0) - (row['length'] or 0))
  end
  out[#out + 1] = deleted
end
return out
"""

# An owner's writes are small, and its last one frees the memory of a session. Once a script has written, Redis lets it
# go on above its `maxmemory`, and a deletion is never refused.
WHEN_FULL: Final = "redis.call('DEL', KEYS[1] .. ':none')\n"

# Every write of an owner: only the epoch that was fenced last may write. An epoch that Redis does not know has to be
# fenced first, which reads the Lease again: a former owner must not write after Redis came back empty. A fence that is
# no number counts as lost.
_FENCE: Final = (
    """
local fence = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if tonumber(ARGV[1]) < fence then return {'fenced', tostring(fence)} end
if tonumber(ARGV[1]) > fence then return {'unfenced'} end
"""
    + WHEN_FULL
)

# KEYS: incarnation   ARGV: fresh incarnation.   Returns the marker of this life of Redis, creating it if missing.
LIFE_SOURCE: Final = (
    WHEN_FULL
    + """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
"""
)

# KEYS: fence, incarnation   ARGV: epoch, incarnation under which ownership was confirmed
FENCE_SOURCE: Final = (
    WHEN_FULL
    + """
local fence = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if tonumber(ARGV[1]) < fence then return {'fenced', tostring(fence)} end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return {'reborn'} end
redis.call('SET', KEYS[1], ARGV[1])
return {'ok'}
"""
)

# KEYS: fence, cutoff   ARGV: epoch, session end height, the limit of any cutoff of this chain.   It only rises,
# except from one of another chain. Returns 'ok', the previous and the new cutoff.
CUTOFF_SOURCE: Final = (
    _FENCE
    + """
local known, is = tonumber(redis.call('GET', KEYS[2]) or '0') or 0, tonumber(ARGV[2])
if known <= tonumber(ARGV[3]) then is = math.max(known, is) end
redis.call('SET', KEYS[2], is)
return {'ok', tostring(known), tostring(is)}
"""
)

# KEYS: fence, closed, stream...   ARGV: epoch, history ('' for any), then per stream: session id, reason
# Returns 'ok' and per stream the last entry id ('0-0' when empty), or 'moved' where Redis has another history by now.
# What is appended before the close is replicated and saved before it, so that no later history has the one without the
# other. A Redis that does not let scripts read INFO has any history.
CLOSE_SOURCE: Final = (
    _FENCE
    + """
local function fact(section, name)
  local rows = redis.pcall('INFO', section)
  return type(rows) == 'string' and string.match(rows, name .. ':([^\\r\\n]*)') or ''
end
if ARGV[2] ~= '' then
  local history = fact('server', 'run_id') .. '/' .. fact('replication', 'master_replid')
  if history ~= '/' and history ~= ARGV[2] then return {'moved'} end
end
local out = {'ok'}
for i = 3, #KEYS do
  local at = 3 + (i - 3) * 2
  redis.call('HSETNX', KEYS[2], ARGV[at], ARGV[at + 1])
  local last = redis.call('XREVRANGE', KEYS[i], '+', '-', 'COUNT', 1)
  out[#out + 1] = last[1] and last[1][1] or '0-0'
end
return out
"""
)

# KEYS: fence, closed, seals, transactions, stream...   ARGV: epoch, group, transaction bytes, then per stream:
# session id, expected last id, seal.   All or nothing: an existing seal or a grown stream changes nothing.
SEAL_SOURCE: Final = (
    _FENCE
    + """
local existing = {'exists'}
for i = 5, #KEYS do
  local at = 4 + (i - 5) * 3
  local seal = redis.call('HGET', KEYS[3], ARGV[at])
  if seal then existing[#existing + 1] = ARGV[at]; existing[#existing + 1] = seal end
end
if #existing > 1 then return existing end
for i = 5, #KEYS do
  local at = 4 + (i - 5) * 3
  if redis.call('HEXISTS', KEYS[2], ARGV[at]) == 0 then return {'open', ARGV[at]} end
  local last = redis.call('XREVRANGE', KEYS[i], '+', '-', 'COUNT', 1)
  if (last[1] and last[1][1] or '0-0') ~= ARGV[at + 1] then return {'stale', ARGV[at]} end
end
for i = 5, #KEYS do
  local at = 4 + (i - 5) * 3
  redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 2])
end
redis.call('HSET', KEYS[4], ARGV[2], ARGV[3])
return {'sealed'}
"""
)

# KEYS: fence, closed, sessions, seals, replicated, stream   ARGV: epoch, session id, tombstone
FINISH_SOURCE: Final = (
    _FENCE
    + """
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('HDEL', KEYS[5], ARGV[2])
for i = 6, #KEYS do redis.call('UNLINK', KEYS[i]) end
return {'ok'}
"""
)


@functools.lru_cache
def _digest(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Script:
    """A script that is loaded again when Redis has forgotten it.

    `form` is the type of its replies.
    """

    source: str
    form: type = list

    @property
    def digest(self) -> str:
        """Return the SHA-1 by which Redis knows the script."""
        return _digest(self.source)

    async def run(self, redis: "Redis", keys: list[str], arguments: list[Any], rows: int | None = None) -> Any:
        """Run the script once and return its result, which has so many rows.

        Raises the errors of the client, and RedisUnavailable for a result that the script cannot have.
        """
        try:
            reply = await redis.evalsha(self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            reply = await redis.eval(self.source, len(keys), *keys, *arguments)
        fits = isinstance(reply, self.form)
        if not fits or (isinstance(reply, list) and (not reply or rows not in (None, len(reply)))):
            raise foreign_reply(reply)
        return reply

    def queue(self, pipe: "Pipeline", keys: list[str], arguments: list[Any]) -> None:
        """Queue the script in a pipeline, with its source.

        A pipeline cannot load what Redis has forgotten.
        """
        pipe.eval(self.source, len(keys), *keys, *arguments)


LIFE: Final = Script(LIFE_SOURCE, bytes)
APPEND: Final = Script(APPEND_SOURCE)
STATES: Final = Script(STATES_SOURCE)
FENCE: Final = Script(FENCE_SOURCE)
CUTOFF: Final = Script(CUTOFF_SOURCE)
CLOSE: Final = Script(CLOSE_SOURCE)
SEAL: Final = Script(SEAL_SOURCE)
FINISH: Final = Script(FINISH_SOURCE)
