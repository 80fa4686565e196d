"""Keep the connections of a worker below the process's limit of open files.

Without a free descriptor a worker accepts no client and reaches neither backends nor Redis.
"""

import resource
from contextlib import suppress
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.relayminer import ConnectionLimits

_LOG: FilteringBoundLogger = structlog.get_logger()
_WANTED: Final = 1_048_576
_RESERVED: Final = 2048  # open files for backends, Redis, chain nodes and logs, at most half of all


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one.

    Returns the limit that applies.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems allow less than they state
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return _WANTED if soft == resource.RLIM_INFINITY else soft


def within_open_files(limits: ConnectionLimits, open_files: int) -> ConnectionLimits:
    """Return the limits with a total that leaves open files for everything else."""
    total = max(1, open_files - min(_RESERVED, open_files // 2))
    if limits.total <= total:
        return limits
    _LOG.warning("fewer client connections than configured: raise the limit of open files (ulimit -Hn, LimitNOFILE)",
                 configured=limits.total, connections=total, open_files=open_files)  # fmt: skip
    return limits.model_copy(update={"total": total, "per_address": min(limits.per_address, max(1, total // 4))})
