"""Hold what the mining of a session adds to its outcome."""

from dataclasses import dataclass, fields


@dataclass(slots=True)
class SessionDetails:
    """Values for the outcome of an open session, None for those that do not apply.

    The names of the fields are the keys in the stored outcome. Amounts are upokt.
    """

    reason: str | None = None
    """Why the session is not claimed."""
    refusal: str | None = None
    """The chain's latest rejection of the claim."""
    foreign_root: str | None = None
    """Root of the conflicting claim on chain, in hexadecimal."""
    proof_refusal: str | None = None
    """The chain's latest rejection of the proof."""
    proof_problem: str | None = None
    """Why the proof cannot be built."""
    expected_earnings_upokt: int | None = None
    expected_fees_upokt: int | None = None
    proof_cost_upokt: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the values that apply."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}
