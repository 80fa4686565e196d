"""The terms and params of a session that its volume records with its leaves.

After a restart these suffice to claim and prove while no node states them. Like first answers, they are confirmed by
a second one.
"""

import contextlib
import functools
import json
from dataclasses import asdict
from typing import Final

from pocket.protocol.sessions.windows import SharedParams
from pocket_miner.relay_rows import StoredSession
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.tracked_session import TrackedSession, header_of

_TARGET_BYTES: Final = 32


@functools.lru_cache(64)
def encode_params(params: SharedParams | None) -> str:
    """Return params as JSON, an empty text for None."""
    return "" if params is None else json.dumps(asdict(params))


def restored_session(row: StoredSession) -> TrackedSession:
    """Return a stored session.

    Terms and params that cannot be read are left out, so that the chain is queried. Raises DecodingError for a damaged
    header.
    """
    session = TrackedSession(header_of(row.header), row.position, row.origin)
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        session.params = _params(row.params)
        session.terms = _terms(row.terms, session, row.supplier)
    return session


def _params(text: str) -> SharedParams:
    """Decode params. Raises ValueError, TypeError, AttributeError or RecursionError."""
    params = SharedParams(**{name: int(value) for name, value in json.loads(text).items()})
    if params.num_blocks_per_session <= 0 or params.compute_unit_cost_granularity <= 0:
        raise ValueError("no blocks per session or no price granularity")
    return params


def _terms(text: str, session: TrackedSession, supplier: str) -> LeafTerms:
    """Decode terms from their name. Raises ValueError."""
    target, units = text.split("/")
    target_hash = bytes.fromhex(target)
    if len(target_hash) != _TARGET_BYTES or int(units) <= 0:
        raise ValueError("no target or compute units")
    return LeafTerms(supplier, session.header, target_hash, int(units))
