"""Export outcomes as rows of a table, amounts in upokt and heights in blocks."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocket_miner.status.explanations import flat, paid_to
from pocket_miner.storage.outcomes import SessionOutcome

COLUMNS = (
    "height", "time", "session_end_height", "supplier", "service_id", "application_address", "session_id",
    "outcome", "stage", "reason", "relays", "compute_units", "claimed_upokt", "settled_upokt", "minted_upokt",
    "earned_upokt", "fees_upokt", "earned_by", "paid_to", "root", "claim_transactions", "proof_transactions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """Selects outcomes by all fields that are set.

    `lost` is True for outcomes that were not paid, False for settled ones, None for both.
    """

    supplier: str = ""
    service: str = ""
    application: str = ""
    session: str = ""
    lost: bool | None = None
    limit: int = 0
    """The number of newest outcomes, 0 for all."""

    def select(self, outcomes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the selected outcomes in their order."""
        selected = [row for row in outcomes if self._matches(row)]
        return selected[-self.limit :] if self.limit else selected

    def _matches(self, outcome: Mapping[str, Any]) -> bool:
        details = outcome.get("details") or {}
        return (
            self.supplier in ("", outcome.get("supplier"))
            and self.service in ("", details.get("service_id"))
            and self.application in ("", details.get("application_address"))
            and str(outcome.get("session_id", "")).startswith(self.session)
            and self.lost in (None, outcome.get("outcome") != SessionOutcome.SETTLED)
        )


def csv_lines(outcomes: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield a header and one line per outcome. Unknown values are empty."""
    return table_lines(COLUMNS, map(_row, outcomes))


def table_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a header and one line of CSV per row. Missing values are empty."""
    for row in (dict(zip(columns, columns, strict=True)), *rows):
        text = io.StringIO()
        csv.DictWriter(text, columns, restval="", lineterminator="").writerow(row)
        yield text.getvalue()


def _row(outcome: Mapping[str, Any]) -> dict[str, Any]:
    details = outcome.get("details") or {}
    known = {**details, **{key: value for key, value in outcome.items() if key != "details"}}
    row = {name: _safe(flat(known[name])) for name in COLUMNS if name in known}
    row["paid_to"] = _amounts(paid_to(details))
    row["earned_by"] = _amounts(details.get("earned_by") or {})
    return row


def _amounts(amounts: Mapping[str, int]) -> str:
    return " ".join(f"{address}={upokt}" for address, upokt in sorted(amounts.items()))


def _safe(value: Any) -> Any:
    """Mark texts that a spreadsheet would run as formulas.

    Reasons come from outside.
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value
