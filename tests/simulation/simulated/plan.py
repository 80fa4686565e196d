"""What goes wrong in a life, drawn before it begins: each fault stands for itself, so that it can be left out."""

from dataclasses import dataclass
from enum import StrEnum

BLOCK_SECONDS = 3.0
SESSION_BLOCKS = 10
WINDOW_BLOCKS = 8
"""Length of the windows of claims and of proofs."""
NODES = ("node0", "node1")
SUPPLIERS = ("alice", "bob", "carol")
SERVICES = ("eth", "base")
SESSION_ENDS = (10, 20)  # heights
NO_ANSWER_SHARE = 0.9  # of calls that fail: whoever has so many fail gets no answer


class Kind(StrEnum):
    """Kinds of faults.

    In brackets: the meaning of `share`, by default a probability for each call.
    """

    NODE_DOWN = "chain node away"
    NODE_RESTART = "chain node restarted"  # it answers UNKNOWN until its next block
    NODE_LAGS = "chain node lags"  # (blocks)
    NODE_FAILS = "chain node answers UNKNOWN"
    NODE_DENIES = "chain node answers PERMISSION_DENIED"
    NODE_EMPTY = "chain node answers with nothing"
    NODE_GARBAGE = "chain node answers with garbage"
    NODE_HANGS = "chain node does not answer"
    NODE_REPLY_LOST = "chain node's reply is lost"
    NODE_STALE = "chain node answers from some blocks ago"
    NODE_HOLLOW = "chain node answers with empty lists"
    NODE_HEADLESS = "chain node ignores the height that is asked"
    NODE_SILENT = "subscriptions announce nothing"
    NODE_SLOW = "chain node takes long"  # (seconds for each call)
    NODE_SWALLOWS = "chain node takes transactions and passes none on"
    NODE_NO_INDEX = "chain nodes do not index transactions"
    NODE_PRUNES = "chain nodes keep few states"  # (of how many blocks)
    NODE_OTHER_CHAIN = "address leads to another network's node"
    NODE_OTHER_HASH = "chain node tells another hash"
    NODE_LOW_GAS = "chain nodes simulate with too little gas"  # (part of it that it tells)
    NO_FUNDS = "a supplier's account is empty"
    MEMPOOL_LOSS = "mempool loses transactions"  # (how many)
    MEMPOOL_REFUSES = "mempool refuses"  # (how many)
    NO_TRANSACTIONS = "blocks without transactions"  # (blocks)
    BLOCKS_SLOW = "blocks come late"  # (factor)
    BLOCKS_FAST = "blocks come early"  # (factor)
    CHAIN_HALTS = "chain makes no blocks"
    SHARED_PARAMS = "session and window params change"
    PROOF_PARAMS = "proof params change"
    PRICES = "prices change"
    REDIS_SLOW = "Redis is slow"  # (seconds)
    REDIS_HANGS = "Redis does not answer"
    REDIS_CUT = "connections to Redis break"
    REDIS_REPLY_LOST = "replies of Redis are lost"
    REDIS_CRASH = "Redis crashes"  # (seconds of writes that are lost)
    REDIS_FAIL_OVER = "Redis fails over"  # (seconds of writes that are lost)
    REDIS_FULL = "Redis is full"
    REDIS_EMPTY = "Redis comes back empty"
    REDIS_EMPTY_UNREAD = "Redis comes back empty before the miners have read it"
    REDIS_AWAY = "Redis away for a window"
    REDIS_OLDER = "Redis comes back with an older file"  # (seconds)
    REDIS_KEY_LOST = "Redis lacks one key of a supplier"
    LEASES_AWAY = "API server away"
    LEASES_EMPTY = "API server lists no Leases"
    LEASES_SLOW = "API server is slow"  # (seconds for each call)
    LEASES_FAIL = "API server fails, before or after it has written"
    KEYS_AWAY = "key files are missing"
    PEERS_AWAY = "peers cannot be reached"
    PEERS_GARBAGE = "peers answer with what is no answer"
    BACKEND_FAILS = "backend fails"
    KILL = "SIGKILL"
    GONE = "SIGKILL, back after others took over"
    TERMINATE = "SIGTERM"
    FREEZE = "SIGSTOP"
    UNREAD = "miners stopped with a session's last relays unread"
    FREEZE_AT_END = "SIGSTOP with a session's last relays in hand"
    UPGRADE = "rolling upgrade"
    SCALE_UP = "one more miner"
    DISK_SLOW = "disk is slow"  # (seconds)
    DISK_HANGS = "disk hangs"  # (seconds)
    DISK_FULL = "volume is full"
    VOLUME_LOST = "volume is lost"
    VOLUME_OLDER = "volume comes back as it was before"  # (seconds)
    LOG_LOST = "relayer pod deleted"
    SUPPLIER_AWAY = "calls about one supplier fail"  # its sessions may be lost, those of others may not
    APPLICATION_AWAY = "queries about one application fail"  # as above
    GARBAGE_ROWS = "garbage among one supplier's rows in Redis"
    CLOCK_JUMP = "wall clock jumps"  # (seconds)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan.

    `at` and `seconds` are virtual time. `target` is a process, node, supplier or service, and all of them if empty.
    """

    number: int
    kind: Kind
    at: float
    seconds: float
    target: str
    share: float
    seed: int

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind.value}{f' ({self.target})' if self.target else ''}{lasts}, {self.share:.3g}"
