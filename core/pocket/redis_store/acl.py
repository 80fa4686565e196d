"""List the rights that a user of Redis needs.

They are the commands that the processes send, and those of their scripts.
"""

import re
from collections.abc import Sequence
from typing import Final

from pocket.errors import ConfigurationError

_USER = re.compile(r"[A-Za-z0-9._-]{1,64}")

RELAYS: Final = (
    "eval", "evalsha", "info",
    "del", "exists", "expire", "get", "incr", "incrby", "decrby", "set", "unlink",
    "hdel", "hexists", "hget", "hgetall", "hkeys", "hlen", "hmget", "hset", "hsetnx",
    "xadd", "xinfo|stream", "xread", "xrevrange",
    "zadd", "zrem", "zrevrange", "zremrangebyscore",
    "publish", "subscribe",
)  # fmt: skip
"""Commands of relayers and miners, on one Redis or behind Sentinels."""

CLUSTER: Final = ("asking", "cluster|slots", "cluster|info")
"""Commands that a Cluster needs in addition."""

INSPECTION: Final = ("memory|usage", "scan", "strlen", "ttl", "xlen", "hgetall", "hkeys", "get", "xrevrange", "del")
"""Commands of `relayctl inspect` and `relayctl cache`, which a user of its own may have."""

SENTINEL: Final = ("ping", "sentinel|masters", "sentinel|get-master-addr-by-name")
"""Commands of the user on Sentinels that have users."""


def rules(prefix: str, commands: Sequence[str]) -> list[str]:
    """Return the ACL rules that allow these commands on the keys of one prefix."""
    return [
        "resetkeys", f"~{prefix}:*", "resetchannels", f"&{prefix}:*", "-@all",
        *(f"+{name}" for name in sorted(set(commands))),
    ]  # fmt: skip


def set_user(user: str, prefix: str, commands: Sequence[str]) -> str:
    """Return the command that creates a user, without its password.

    Raises ConfigurationError for a name that a configuration file would read otherwise.
    """
    if not _USER.fullmatch(user):
        raise ConfigurationError(f"user {user!r}: at most 64 letters, digits, ., - or _")
    return " ".join(["ACL SETUSER", user, "on", *rules(prefix, commands)])
