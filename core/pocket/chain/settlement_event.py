"""Read from the chain's events how a claim ended and who was paid."""

import base64
import binascii
import enum
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pocket.chain.model import Event
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.smst.digest import Root

CLAIM_SETTLED: Final = "pocket.tokenomics.EventClaimSettled"
_ROOT_BYTES: Final = 48
_LONGEST_ADDRESS: Final = 128
_NUMBER: Final = re.compile(r"[0-9]{1,40}", re.ASCII)
_COIN: Final = re.compile(r"([0-9]{1,40})upokt", re.ASCII)
_SUPPLIER_REASONS: Final = frozenset(
    f"TLM_{module}_SUPPLIER_SHAREHOLDER_REWARD_DISTRIBUTION" for module in ("RELAY_BURN_EQUALS_MINT", "GLOBAL_MINT")
)


class ClaimOutcome(enum.StrEnum):
    """The way in which a claim left the chain."""

    SETTLED = "settled"
    PROOF_MISSING = "proof_missing"
    PROOF_INVALID = "proof_invalid"
    EXPIRED = "expired"
    DISCARDED = "discarded"


_OUTCOMES: Final = {
    CLAIM_SETTLED: ClaimOutcome.SETTLED,
    "pocket.tokenomics.EventClaimExpired": ClaimOutcome.EXPIRED,
    "pocket.tokenomics.EventClaimDiscarded": ClaimOutcome.DISCARDED,
}
_EXPIRATIONS: Final = {"PROOF_MISSING": ClaimOutcome.PROOF_MISSING, "PROOF_INVALID": ClaimOutcome.PROOF_INVALID}


@dataclass(frozen=True, slots=True)
class ClaimEnd:
    """The end of one claim, with amounts in upokt.

    A missing or unreadable value is None or empty.

    `by_recipient` holds all payments, `supplier_side` those to the supplier's operator, owner or shareholders.
    `malformed` names attributes that could not be read.
    """

    outcome: ClaimOutcome
    supplier: str
    application: str
    service_id: str
    session_id: str
    session_end_height: int | None
    reason: str = ""
    relays: int | None = None
    compute_units: int | None = None
    root: bytes = b""
    claimed_upokt: int | None = None
    settled_upokt: int | None = None
    minted_upokt: int | None = None
    by_recipient: Mapping[str, int] = field(default_factory=dict)
    supplier_side: Mapping[str, int] = field(default_factory=dict)
    malformed: tuple[str, ...] = ()

    @property
    def earned_upokt(self) -> int:
        """Return the amount paid to the supplier's side in upokt."""
        return sum(self.supplier_side.values())

    def concerns(self, supplier: str, header: SessionHeader) -> bool:
        """Return whether this is the end of a supplier's claim for a session.

        Every named value must be equal. Without a session id (expired claims have none) application, service and end
        height must all be named.
        """
        named = [
            (self.application, header.application_address),
            (self.service_id, header.service_id),
            (self.session_end_height, header.session_end_block_height),
        ]
        if self.supplier != supplier or self.session_id not in ("", header.session_id):
            return False
        if not self.session_id and not all(value for value, _ in named):
            return False
        return all(value == ours for value, ours in named if value)

    def may_be_of(self, root: bytes) -> bool:
        """Return whether the claim may have had a root, by the event's root, count or sum."""
        if self.root:
            return self.root == root
        known = Root(root)
        return self.relays in (None, known.count) and self.compute_units in (None, known.total)


class _Detail(BaseModel):
    """One payment out of a settled claim."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    recipient_address: str
    op_reason: str
    amount: str


_DETAILS: Final = TypeAdapter(list[_Detail])
_REWARDS: Final = TypeAdapter(dict[str, str])


def _is_named(address: str) -> bool:
    return 0 < len(address) <= _LONGEST_ADDRESS


class _Attributes:
    """Reads attributes one by one and notes which ones are unreadable."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self._attributes = attributes
        self.malformed: list[str] = []

    def text(self, name: str) -> str:
        return self._attributes.get(name, "")

    def number(self, name: str) -> int | None:
        return self._matched(name, _NUMBER)

    def coin(self, name: str) -> int | None:
        return self._matched(name, _COIN)

    def _matched(self, name: str, form: re.Pattern[str]) -> int | None:
        text = self.text(name)
        if not text:
            return None
        match = form.fullmatch(text)
        if match is None:
            self.malformed.append(name)
            return None
        return int(match[match.re.groups])

    def root(self, name: str) -> bytes:
        """Bytes of an attribute, which JSON holds as base64."""
        try:
            root = base64.b64decode(self.text(name), validate=True)
        except (binascii.Error, ValueError):
            root = b""
        if len(root) == _ROOT_BYTES:
            return root
        if self.text(name):
            self.malformed.append(name)
        return b""

    def rewards(self, name: str) -> dict[str, int]:
        """Return recipients and amounts of a JSON object without unreadable entries."""
        rows = self._json(name, _REWARDS)
        return self._amounts(name, list(rows.items()) if rows is not None else [])

    def payments(self, name: str) -> list[_Detail] | None:
        """Return the single payments, or None if any of them is unreadable."""
        rows: list[_Detail] | None = self._json(name, _DETAILS)
        if rows is None or all(_COIN.fullmatch(row.amount) and _is_named(row.recipient_address) for row in rows):
            return rows
        self.malformed.append(name)
        return None

    def _json(self, name: str, form: TypeAdapter[Any]) -> Any:
        text = self.text(name)
        if not text:
            return None
        try:
            return form.validate_python(json.loads(text))
        except (ValidationError, ValueError, RecursionError):
            self.malformed.append(name)
            return None

    def _amounts(self, name: str, rows: Collection[tuple[str, str]]) -> dict[str, int]:
        amounts = {
            address: int(match[1])
            for address, text in rows
            if (match := _COIN.fullmatch(text)) and _is_named(address)
        }  # fmt: skip
        if len(amounts) < len(rows):
            self.malformed.append(name)
        return amounts


def claim_end(event: Event, shareholders: Collection[str] = ()) -> ClaimEnd | None:
    """Return the end of a claim from an event, or None for other events. Never raises.

    The event lists each payment with the reason for it, which shows what reached the supplier's side. The same address
    may also be paid as the owner of the service. Where that list is missing or unreadable, the amounts by address count
    that went to operator, owner and `shareholders`, the addresses that share the supplier's revenue.
    """
    outcome = _OUTCOMES.get(event.type)
    if outcome is None:
        return None
    read = _Attributes(event.attributes)
    reason = read.text("expiration_reason") or read.text("error")
    if outcome is ClaimOutcome.EXPIRED:
        outcome = _EXPIRATIONS.get(reason, ClaimOutcome.EXPIRED)
    supplier = read.text("supplier_operator_address")
    by_recipient = read.rewards("reward_distribution")
    payments = read.payments("reward_distribution_detailed")
    side = _paid_as_supplier(payments or ())
    if not side:
        known = {supplier, read.text("supplier_owner_address"), *shareholders}
        side = {address: upokt for address, upokt in by_recipient.items() if address in known}
    return ClaimEnd(
        outcome=outcome,
        supplier=supplier,
        application=read.text("application_address"),
        service_id=read.text("service_id"),
        session_id=read.text("session_id"),
        session_end_height=read.number("session_end_block_height"),
        reason=reason,
        relays=read.number("num_relays"),
        compute_units=read.number("num_claimed_compute_units"),
        root=read.root("root_hash"),
        claimed_upokt=read.coin("claimed_upokt"),
        settled_upokt=read.coin("settled_upokt"),
        minted_upokt=read.coin("minted_upokt"),
        by_recipient=by_recipient or _summed(payments or ()),
        supplier_side=side,
        malformed=tuple(read.malformed),
    )


def _paid_as_supplier(payments: Collection[_Detail]) -> dict[str, int]:
    return _summed([row for row in payments if row.op_reason in _SUPPLIER_REASONS])


def _summed(payments: Collection[_Detail]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for row in payments:
        upokt = int(row.amount.removesuffix("upokt"))
        sums[row.recipient_address] = sums.get(row.recipient_address, 0) + upokt
    return sums
