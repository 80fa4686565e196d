"""Outcomes as rows of a table; amounts in upokt, heights in blocks."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from relayctl.explanations import shares

COLUMNS = (
    "height", "session_end_height", "supplier", "service_id", "application_address", "session_id", "outcome", "stage",
    "reason", "relays", "claimed_upokt", "settled_upokt", "minted_upokt", "fees_upokt", "paid_to",
)  # fmt: skip


def csv_lines(outcomes: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """A header and one line for each outcome. What the chain did not say stays empty."""
    for row in (dict(zip(COLUMNS, COLUMNS, strict=True)), *map(_row, outcomes)):
        text = io.StringIO()
        csv.DictWriter(text, COLUMNS, restval="", lineterminator="").writerow(row)
        yield text.getvalue()


def _row(outcome: Mapping[str, Any]) -> dict[str, Any]:
    details = outcome.get("details") or {}
    known = {**details, **{key: value for key, value in outcome.items() if key != "details"}}
    row = {name: _safe(known[name]) for name in COLUMNS if name in known}
    row["paid_to"] = " ".join(f"{address}={amount.removesuffix('upokt')}" for address, amount in
                              sorted(shares(details).items()))  # fmt: skip
    return row


def _safe(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is marked as text: reasons come from outside."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value
