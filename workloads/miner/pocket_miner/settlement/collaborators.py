"""Define what concluding a session needs of fees, reports and other miners."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from pocket.chain.client import ChainClient
from pocket.protocol.relays.messages import SessionHeader
from pocket.redis_store.seals import SealStore


class SessionFees(Protocol):
    """Knows the fees of claims and proofs."""

    async def settle(
        self, store: SealStore, session_id: str, chain: ChainClient, missed: Collection[str] = ()
    ) -> None:  # fmt: skip
        """Determine the final cost of a session."""

    async def record_failed(self, store: SealStore, raw: bytes, *, fee_paid: bool) -> None:
        """Record that a transaction failed in a block."""

    def of(self, supplier: str, session_id: str) -> int:
        """Return what a session has cost so far, in upokt."""


class OutcomeReport(Protocol):
    """Reports the outcomes of one supplier."""

    earned_by: dict[str, int]

    def record_outcome(self, outcome: Mapping[str, Any]) -> None:
        """Record an outcome of the audit trail."""

    def shareholders(self, header: SessionHeader) -> frozenset[str]:
        """Return the addresses that share a session's revenue, by the known stake."""


class OtherMiners(Protocol):
    """The miners that may have concluded a session before."""

    async def ended(self, supplier: str, session_ids: Sequence[str]) -> tuple[bool, set[str]]:
        """Return whether all answered, and the sessions with a recorded outcome."""
