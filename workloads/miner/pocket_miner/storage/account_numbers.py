"""Remember the account numbers with which transactions were accepted.

They are on the volume and never change.
"""

import json
import os
import tempfile
import threading
from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

_LOG: FilteringBoundLogger = structlog.get_logger()


class AccountNumbers:
    """The file of account numbers by supplier.

    What cannot be read or written is only a number to query again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def get(self, supplier: str) -> int | None:
        """Return the number of a supplier's account, None if it is unknown."""
        with self._lock:
            return self._read().get(supplier)

    def put(self, supplier: str, number: int) -> None:
        """Save the number of a supplier's account."""
        with self._lock:
            known = self._read()
            if known.get(supplier) == number:
                return
            try:
                self._write({**known, supplier: number})
            except OSError as error:
                _LOG.warning("account number not saved to the volume: free up space on it", error=error)

    def _read(self) -> dict[str, int]:
        try:
            rows = json.loads(self._path.read_text("utf-8"))
            return {str(supplier): int(number) for supplier, number in rows.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write(self, numbers: dict[str, int]) -> None:
        with tempfile.NamedTemporaryFile(
            "w", dir=self._path.parent, prefix=".accounts-", delete=False, encoding="utf-8"
        ) as draft:
            json.dump(numbers, draft)
            draft.flush()
            os.fsync(draft.fileno())
        Path(draft.name).replace(self._path)
