"""Earnings that a demo expects, and those that the chain paid."""

from collections import Counter
from dataclasses import dataclass, field

from pocket.chain.model import Event
from pocket.chain.settlement_event import ClaimEnd, ClaimOutcome, claim_end
from pocket.protocol.claims.rewards import TokenomicsParams, supplier_reward_upokt
from pocket.protocol.relays.messages import SessionHeader

Pair = tuple[str, str]  # session id, supplier operator address


@dataclass(slots=True)
class Expectation:
    """The payment due for one (session, supplier).

    `split` is how the chain divides what a claim mints.
    """

    header: SessionHeader
    price_upokt: int
    split: TokenomicsParams
    acknowledged: set[bytes] = field(default_factory=set)
    attempted: int = 0
    rejected: int = 0
    settled_upokt: int | None = None
    settled_relays: int = 0
    earned_upokt: int = 0
    outcome: str = ""

    @property
    def end(self) -> int:
        """Return the session end height."""
        return self.header.session_end_block_height

    @property
    def expected_upokt(self) -> int:
        """Return the supplier side's share of the acknowledged relays, in upokt.

        Their price is that of the session.
        """
        return supplier_reward_upokt(len(self.acknowledged) * self.price_upokt, self.split)


@dataclass(slots=True)
class Accounting:
    """The demo's own accounting of the run, independent of relayer and miner."""

    pairs: dict[Pair, Expectation] = field(default_factory=dict)
    height: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    invalid_answers: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def settled(self) -> list[Expectation]:
        """Return the pairs with an outcome."""
        return [row for row in self.pairs.values() if row.outcome]

    def with_acknowledged(self) -> list[Expectation]:
        """Return the pairs that must be paid."""
        return [row for row in self.pairs.values() if row.acknowledged]

    def complete(self) -> bool:
        """Return True if every pair that must be paid has an outcome."""
        return all(row.outcome for row in self.with_acknowledged())

    def record_event(self, event: Event) -> None:
        """Record a settlement event of the chain."""
        end = claim_end(event)
        row = None if end is None else self._row_of(end)
        if end is None or row is None:
            return
        row.outcome = "settled" if end.outcome is ClaimOutcome.SETTLED else f"expired ({end.reason})"
        row.settled_relays, row.settled_upokt = end.relays or 0, end.settled_upokt or 0
        row.earned_upokt = end.earned_upokt
        if row.outcome != "settled":
            row.settled_relays = row.settled_upokt = 0

    def _row_of(self, end: ClaimEnd) -> Expectation | None:
        rows = (row for (_, supplier), row in self.pairs.items() if end.concerns(supplier, row.header))
        return next(rows, None)

    def problems(self, *, exact: bool) -> list[str]:
        """Return why the run failed.

        With `exact` nothing was killed, so no relay may differ.
        """
        problems = list(self.invalid_answers)
        if not self.with_acknowledged():
            problems.append("no relay was acknowledged")
        for (session_id, supplier), row in self.pairs.items():
            name = f"session {session_id[:8]} of {supplier}"
            if row.acknowledged and row.outcome != "settled":
                problems.append(f"{name}: {row.outcome or 'not settled'}, {len(row.acknowledged)} relays unpaid")
                continue
            if row.settled_upokt is None:
                continue
            if row.settled_upokt != row.settled_relays * row.price_upokt:
                problems.append(f"{name}: {row.settled_relays} relays were paid {row.settled_upokt} upokt")
            if row.earned_upokt != (due := supplier_reward_upokt(row.settled_upokt, row.split)):
                problems.append(f"{name}: {row.earned_upokt} upokt reached the supplier's side, {due} are its share")
            if row.settled_relays < len(row.acknowledged):
                problems.append(f"{name}: {len(row.acknowledged)} relays acknowledged, {row.settled_relays} paid")
            if row.settled_relays > (len(row.acknowledged) if exact else row.attempted):
                problems.append(f"{name}: {row.settled_relays} relays paid, {len(row.acknowledged)} acknowledged")
        return problems
