"""Store the signed transactions of open sessions and what they cost."""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pocket.errors import DecodingError
from pocket.protocol.transactions.build import transaction_hash
from pocket.redis_store.seals import SignedGroup
from pocket_miner.storage.audit_schema import SCHEMA
from pocket_miner.storage.database import open_to_read, open_to_write


class TransactionTables:
    """The tables of transactions in the file `audit.sqlite`, and the connection to it."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = open_to_read(path) if read_only else open_to_write(path, SCHEMA)
        # One connection, used by the event loop and by threads: a transaction must not be interleaved.
        self._lock = threading.RLock()
        self._read_only = read_only

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run the body as one transaction, exclusive among threads."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def save_signed(self, supplier: str, session_end: int, message: str, signed: SignedGroup) -> None:
        """Save proofs, or claims that were signed again, before they are broadcast."""
        row = (supplier, session_end, message, transaction_hash(signed.tx_raw), signed.encode())
        with self._lock:
            self._database.execute("INSERT OR IGNORE INTO signed VALUES (?,?,?,?,?)", row)

    def signed(self, supplier: str, session_end: int, message: str = "claim") -> list[SignedGroup]:
        """Return the signed transactions of one session end, the latest first.

        They are of claims or of proofs. Those of claims that were signed with their seals come last. Adopted seals have
        none.
        """
        with self._lock:
            rows = self._database.execute(
                "SELECT signed FROM signed WHERE supplier=? AND session_end=? AND what=? ORDER BY rowid DESC",
                (supplier, session_end, message),
            ).fetchall()
            if message == "claim":
                rows += self._database.execute(
                    "SELECT DISTINCT signed FROM seal WHERE supplier=? AND session_end=? AND signed<>''",
                    (supplier, session_end),
                ).fetchall()
        groups = []
        for (text,) in rows:
            with contextlib.suppress(DecodingError):  # the same roots are signed again
                groups.append(SignedGroup.decode(text))
        return groups

    def _delete_signed(self, supplier: str) -> None:
        """Delete the signed transactions of session ends without an open seal."""
        self._database.execute(
            "DELETE FROM signed WHERE supplier=? AND NOT EXISTS (SELECT 1 FROM seal s WHERE s.supplier=signed.supplier "
            "AND s.session_end=signed.session_end AND NOT EXISTS (SELECT 1 FROM outcome o "
            "WHERE o.supplier=s.supplier AND o.session_id=s.session_id))",
            (supplier,),
        )

    def spend(
        self, supplier: str, tx_hash: str, message: str, upokt: Mapping[str, int], *, correct: bool = False
    ) -> None:
        """Save the cost of a transaction to each session, or `correct` it."""
        verb = "REPLACE" if correct else "IGNORE"
        with self._transaction():
            self._database.executemany(
                f"INSERT OR {verb} INTO cost VALUES (?,?,?,?,?)",  # noqa: S608 - constants
                [(supplier, session_id, tx_hash, message, amount) for session_id, amount in upokt.items()],
            )

    def spent(self, supplier: str, session_id: str) -> int:
        """Return what an open session has cost, in upokt."""
        return sum(self.spent_by_kind(supplier, session_id).values())

    def spent_by_kind(self, supplier: str, session_id: str) -> dict[str, int]:
        """Return what the claims and the proofs of an open session have cost, in upokt."""
        with self._lock:
            rows = self._database.execute(
                "SELECT what, sum(upokt) FROM cost WHERE supplier=? AND session_id=? GROUP BY what",
                (supplier, session_id),
            )
            return {str(message): int(upokt) for message, upokt in rows}

    def payments(self, supplier: str, session_id: str) -> list[tuple[str, str]]:
        """Return (kind, hash) of the transactions that a session paid for."""
        with self._lock:
            rows = self._database.execute(
                "SELECT what, tx_hash FROM cost WHERE supplier=? AND session_id=? ORDER BY what, tx_hash",
                (supplier, session_id),
            )
            return [(str(message), str(tx_hash)) for message, tx_hash in rows]

    def unspend(self, supplier: str, session_id: str, tx_hash: str) -> None:
        """Delete the cost of a transaction that was never included."""
        with self._lock:
            self._database.execute(
                "DELETE FROM cost WHERE supplier=? AND session_id=? AND tx_hash=?", (supplier, session_id, tx_hash)
            )

    def reject(self, supplier: str, session_ids: Sequence[str], tx_hash: str) -> None:
        """Set the cost of a rejected transaction aside.

        A block may hold it all the same.
        """
        with self._transaction():
            for session_id in session_ids:
                key = (supplier, session_id, tx_hash)
                where = "supplier=? AND session_id=? AND tx_hash=?"
                self._database.execute(f"INSERT OR IGNORE INTO rejected SELECT * FROM cost WHERE {where}", key)  # noqa: S608
                self._database.execute(f"DELETE FROM cost WHERE {where}", key)  # noqa: S608 - a constant

    def rejected(self, supplier: str, session_id: str) -> list[tuple[str, str, int]]:
        """Return (hash, kind, upokt) of the transactions of a session that nodes rejected."""
        with self._lock:
            rows = self._database.execute(
                "SELECT tx_hash, what, upokt FROM rejected WHERE supplier=? AND session_id=?", (supplier, session_id)
            )
            return [(str(tx_hash), str(message), int(upokt)) for tx_hash, message, upokt in rows]

    def _delete_costs(self, supplier: str, session_id: str) -> None:
        for table in ("cost", "rejected"):
            query = f"DELETE FROM {table} WHERE supplier=? AND session_id=?"  # noqa: S608 - constants
            self._database.execute(query, (supplier, session_id))
