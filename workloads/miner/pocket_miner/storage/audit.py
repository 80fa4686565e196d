"""Store epochs, seals, fees and one hash-chained outcome per session durably."""

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import DecodingError, PocketError
from pocket.redis_store.seals import SessionSeal
from pocket_miner.storage.audit_schema import FIRST_LINK, link_of
from pocket_miner.storage.outcomes import OutcomeRecord
from pocket_miner.storage.transaction_tables import TransactionTables

_LOG: FilteringBoundLogger = structlog.get_logger()
_END = "json_extract(body, '$.details.session_end_height')"
_PRUNED_AT_ONCE = 1000


class AuditError(PocketError):
    """The audit trail was altered."""


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The number and the hash of an outcome, which covers all outcomes before it."""

    number: int
    hash: str


class Audit(TransactionTables):
    """The file `audit.sqlite` on a miner's volume."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        super().__init__(path, read_only=read_only)
        self._head: AuditHead | None = None
        self._trail = ""

    def epoch(self, shard: int) -> int:
        """Return the highest epoch under which this volume's miner owned a shard.

        The result is 0 if never.
        """
        with self._lock:
            row = self._database.execute("SELECT value FROM meta WHERE name=?", (f"epoch/{shard}",)).fetchone()
            return int(row[0]) if row else 0

    def save_epoch(self, shard: int, epoch: int) -> None:
        """Save the epoch of a shard, before its suppliers are mined."""
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"epoch/{shard}", str(epoch)))

    def save_seals(self, supplier: str, session_end: int, seals: Iterable[SessionSeal], signed: str) -> None:
        """Save seals in one step before their claims are broadcast.

        Existing ones are never replaced.
        """
        with self._transaction():
            for seal in seals:
                # One row of a group holds the transaction: it is as long as the group, and groups have hundreds.
                row = (supplier, seal.session_id, session_end, seal.encode(), signed)
                inserted = self._database.execute("INSERT OR IGNORE INTO seal VALUES (?,?,?,?,?)", row).rowcount
                signed = "" if inserted > 0 else signed

    def seals(self, supplier: str) -> dict[str, tuple[int, SessionSeal]]:
        """Return session id → (session end, seal) of open sessions.

        Damaged seals are skipped.
        """
        with self._lock:
            rows = self._database.execute(
                "SELECT session_id, session_end, seal FROM seal WHERE supplier=? AND NOT EXISTS "
                "(SELECT 1 FROM outcome o WHERE o.supplier=seal.supplier AND o.session_id=seal.session_id)",
                (supplier,),
            ).fetchall()
        seals = {}
        for session_id, end, text in rows:
            try:
                seals[session_id] = (int(end), SessionSeal.decode(text))
            except (DecodingError, ValueError) as error:
                _LOG.error(
                    "seal skipped, it is damaged on the volume", supplier=supplier, session=session_id, error=error
                )
        return seals

    def suppliers_with_open_seals(self) -> list[str]:
        """Return the suppliers that have sealed sessions without an outcome.

        The one with the earliest session comes first.
        """
        with self._lock:
            rows = self._database.execute(
                "SELECT supplier FROM seal WHERE NOT EXISTS "
                "(SELECT 1 FROM outcome o WHERE o.supplier=seal.supplier AND o.session_id=seal.session_id) "
                "GROUP BY supplier ORDER BY min(session_end), supplier"
            ).fetchall()
        return [str(supplier) for (supplier,) in rows]

    def all_seals(self) -> list[tuple[str, int, SessionSeal, str]]:
        """Return every open sealed session.

        Supplier, session end, seal and signed transaction of each.
        """
        with self._lock:
            rows = self._database.execute(
                "SELECT supplier, session_end, seal, signed FROM seal WHERE NOT EXISTS "
                "(SELECT 1 FROM outcome o WHERE o.supplier=seal.supplier AND o.session_id=seal.session_id) "
                "ORDER BY session_end, supplier, session_id"
            )
            return [(supplier, int(end), SessionSeal.decode(text), signed) for supplier, end, text, signed in rows]

    def unfinished(self) -> list[tuple[str, str, int | None]]:
        """Return the seals and costs without an outcome.

        Each is supplier, session id and session end. Costs alone have no end.
        """
        with self._lock:
            return self._database.execute(
                "SELECT supplier, session_id, max(session_end) FROM "
                "(SELECT supplier, session_id, session_end FROM seal UNION ALL "
                "SELECT supplier, session_id, NULL FROM cost) known WHERE NOT EXISTS "
                "(SELECT 1 FROM outcome o WHERE o.supplier=known.supplier AND o.session_id=known.session_id) "
                "GROUP BY supplier, session_id"
            ).fetchall()

    def forget(self, supplier: str, session_ids: Sequence[str]) -> None:
        """Delete seals and costs of sessions that ended elsewhere.

        Those with an outcome here stay.
        """
        with self._transaction():
            for table in ("seal", "cost", "rejected"):
                self._database.execute(
                    f"DELETE FROM {table} WHERE supplier=? AND session_id IN (SELECT value FROM json_each(?)) "  # noqa: S608 - a constant
                    f"AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.supplier=? AND o.session_id={table}.session_id)",
                    (supplier, json.dumps(list(session_ids)), supplier),
                )
            self._delete_signed(supplier)

    def with_outcome(self, supplier: str, session_ids: Sequence[str]) -> list[str]:
        """Return those of the given sessions that have an outcome."""
        with self._lock:
            rows = self._database.execute(
                "SELECT session_id FROM outcome WHERE supplier=? AND session_id IN (SELECT value FROM json_each(?))",
                (supplier, json.dumps(list(session_ids))),
            )
            return [str(session_id) for (session_id,) in rows]

    def record(self, outcome: OutcomeRecord) -> bool:
        """Append an outcome.

        Returns False if the session already has one.
        """
        return bool(self.record_all([outcome]))

    def record_all(self, outcomes: Iterable[OutcomeRecord]) -> list[OutcomeRecord]:
        """Append outcomes and delete their costs and signed transactions in one step.

        Returns those that are new.
        """
        added: list[OutcomeRecord] = []
        head = None
        with self._transaction():
            for outcome in outcomes:
                if self.outcome(outcome.supplier, outcome.session_id) is None:
                    head = self._append(outcome)
                    added.append(outcome)
                    self._database.execute(
                        "UPDATE seal SET signed='' WHERE supplier=? AND session_id=? AND signed<>''",
                        (outcome.supplier, outcome.session_id),
                    )
            for supplier in {outcome.supplier for outcome in added}:
                self._delete_signed(supplier)
        self._head = head or self._head
        return added

    def _append(self, outcome: OutcomeRecord) -> AuditHead:
        row = self._database.execute(
            "SELECT hash FROM (SELECT hash, number FROM outcome ORDER BY number DESC LIMIT 1) "
            "UNION ALL SELECT value FROM meta WHERE name='pruned' LIMIT 1"
        ).fetchone()
        previous = row[0] if row else FIRST_LINK
        body = outcome.body()
        link = link_of(previous, body)
        cursor = self._database.execute(
            "INSERT INTO outcome (supplier, session_id, body, previous, hash) VALUES (?,?,?,?,?)",
            (outcome.supplier, outcome.session_id, body, previous, link),
        )
        self._delete_costs(outcome.supplier, outcome.session_id)
        return AuditHead(int(cursor.lastrowid or 0), link)

    @property
    def head(self) -> AuditHead | None:
        """Return the last outcome's number and hash as known in memory.

        The result is None before `load_head`.
        """
        return self._head

    @property
    def head_row(self) -> dict[str, Any] | None:
        """Return the head with the trail's identifier as JSON, None before `load_head`."""
        return None if self._head is None else {**asdict(self._head), "trail": self._trail}

    def load_head(self) -> None:
        """Read the last outcome's number and hash from the volume.

        Outcomes that retention deleted count, too. The number is 0 without any. The trail's identifier is created at
        the first call. Raises sqlite3.Error.
        """
        with self._lock:
            if not self._read_only:
                fresh = ("trail", secrets.token_hex(16))
                self._database.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", fresh)
            known = self._database.execute("SELECT value FROM meta WHERE name='trail'").fetchone()
            self._trail = str(known[0]) if known else ""
            row = self._database.execute("SELECT number, hash FROM outcome ORDER BY number DESC LIMIT 1").fetchone()
            if row is None:
                row = self._database.execute(
                    "SELECT s.seq, m.value FROM sqlite_sequence s, meta m WHERE s.name='outcome' AND m.name='pruned'"
                ).fetchone()
        self._head = AuditHead(0, "") if row is None else AuditHead(int(row[0]), str(row[1]))

    def missing_heads(self, published: Iterable[AuditHead]) -> list[str]:
        """Return why published heads do not belong to this trail, empty if all of them do.

        Heads of outcomes that retention deleted cannot be checked, except for the last of these.
        """
        self.load_head()
        with self._lock:
            pruned = self._database.execute("SELECT value FROM meta WHERE name='pruned'").fetchone()
            rows = {
                int(number): str(link) for number, link in self._database.execute("SELECT number, hash FROM outcome")
            }
        last = 0 if self._head is None else self._head.number
        first = min(rows, default=last + 1)
        if pruned:
            rows[first - 1] = str(pruned[0])
        problems = []
        for head in sorted(published, key=lambda head: head.number):
            if head.number > last:
                problems.append(
                    f"outcome {head.number} was published, but the trail ends at {last}: outcomes were cut off"
                )
            elif rows.get(head.number, head.hash) != head.hash:
                problems.append(f"outcome {head.number} was published with hash {head.hash}, the trail has another one")
            elif head.number >= first and head.number not in rows:
                problems.append(f"outcome {head.number} was published and is missing")
        return problems

    def outcome(self, supplier: str, session_id: str) -> dict[str, Any] | None:
        """Return the recorded outcome of a session, None without one."""
        with self._lock:
            row = self._database.execute(
                "SELECT body FROM outcome WHERE supplier=? AND session_id=?", (supplier, session_id)
            ).fetchone()
            return None if row is None else json.loads(row[0])

    def ended(self, supplier: str, blocks: int) -> dict[str, int]:
        """Return session id → end height of recently ended sessions.

        They ended at most `blocks` before the latest one.
        """
        with self._lock:
            rows = self._database.execute(
                f"SELECT session_id, {_END} FROM outcome WHERE supplier=? AND {_END} >= "  # noqa: S608 - a constant
                f"(SELECT max({_END}) FROM outcome WHERE supplier=?) - ?",
                (supplier, supplier, blocks),
            )
            return {session_id: int(end) for session_id, end in rows}

    def recent(self, number: int) -> list[dict[str, Any]]:
        """Return the last outcomes in order, without verifying hashes."""
        with self._lock:
            rows = self._database.execute("SELECT body FROM outcome ORDER BY number DESC LIMIT ?", (number,)).fetchall()
            return [json.loads(body) for (body,) in reversed(rows)]

    def page(self, after: int, limit: int) -> tuple[list[tuple[int, dict[str, Any]]], int]:
        """Return outcomes after a number, and the first retained number.

        At most `limit`, each as number and outcome. Hashes are not verified.
        """
        with self._lock:
            rows = self._database.execute(
                "SELECT number, body FROM outcome WHERE number>? ORDER BY number LIMIT ?", (after, limit)
            ).fetchall()
            first = self._database.execute("SELECT min(number) FROM outcome").fetchone()[0]
        return [(int(number), json.loads(body)) for number, body in rows], int(first or 0)

    def entries(self, after: int, limit: int) -> list[tuple[int, str, str, str]]:
        """Return outcomes after a number with their hashes, not verified.

        At most `limit`, each as number, text, previous hash and hash.
        """
        with self._lock:
            return self._database.execute(
                "SELECT number, body, previous, hash FROM outcome WHERE number>? ORDER BY number LIMIT ?",
                (after, limit),
            ).fetchall()

    def last_number(self) -> int:
        """Return the number of the newest outcome, 0 without any."""
        with self._lock:
            return int(self._database.execute("SELECT max(number) FROM outcome").fetchone()[0] or 0)

    def prune(self, below: int) -> int:
        """Delete outcomes recorded below a height, oldest first.

        Seals of ended sessions below it are deleted too. The hash of the last deleted outcome is saved, so that the
        rest can still be verified. Returns the number of deleted outcomes, at most a thousand per call.
        """
        database = self._database
        deleted = 0
        with self._transaction():
            database.execute(
                "DELETE FROM seal WHERE session_end<? AND EXISTS "
                "(SELECT 1 FROM outcome o WHERE o.supplier=seal.supplier AND o.session_id=seal.session_id)",
                (below,),
            )
            rows = database.execute(
                "SELECT number, hash, json_extract(body, '$.height') FROM outcome ORDER BY number LIMIT ?",
                (_PRUNED_AT_ONCE,),
            ).fetchall()
            for number, link, height in rows:
                if height >= below:
                    break
                database.execute("DELETE FROM outcome WHERE number=?", (number,))
                database.execute("INSERT OR REPLACE INTO meta VALUES ('pruned', ?)", (link,))
                deleted += 1
        return deleted

    def outcomes(self) -> list[dict[str, Any]]:
        """Return all outcomes in order.

        Raises AuditError if the chain of hashes is broken.
        """
        outcomes = []
        for outcome, problem, _ in self._rows(0):
            if problem:
                raise AuditError(problem)
            outcomes.append(outcome)
        return outcomes

    def after(self, number: int) -> tuple[list[dict[str, Any]], str, int]:
        """Return the outcomes after a number.

        Also returns the first break of their hash chain, empty without one, and the last number.
        """
        rows = list(self._rows(number))
        last = rows[-1][2] if rows else number
        return [outcome for outcome, _, _ in rows], next((problem for _, problem, _ in rows if problem), ""), last

    def _rows(self, after: int) -> Iterator[tuple[dict[str, Any], str, int]]:
        """Yield outcomes after a number, with any break of the hash chain.

        Each has its number.
        """
        with self._lock:
            known = self._database.execute(
                "SELECT hash FROM outcome WHERE number=? UNION ALL SELECT value FROM meta WHERE name='pruned' LIMIT 1",
                (after,),
            ).fetchone()
            rows = self._database.execute(
                "SELECT number, body, previous, hash FROM outcome WHERE number>? ORDER BY number", (after,)
            ).fetchall()
        previous = known[0] if known else FIRST_LINK
        for number, body, before, link in rows:
            broken = before != previous or link != link_of(previous, body)
            previous = link
            text = f"audit entry {number} was altered, or one before it is missing" if broken else ""
            yield json.loads(body), text, int(number)

    def summary(self) -> tuple[int, Mapping[str, Any]]:
        """Return the number and the totals that `save_summary` saved.

        Returns (0, {}) at first.
        """
        with self._lock:
            row = self._database.execute("SELECT value FROM meta WHERE name='summary'").fetchone()
            try:
                summary = json.loads(row[0]) if row else {}
                return int(summary.get("number", 0)), dict(summary.get("suppliers", {}))
            except (ValueError, TypeError, AttributeError):
                return 0, {}

    def save_summary(self, number: int, suppliers: Mapping[str, Any]) -> None:
        """Save the totals of outcomes up to a number.

        They outlive the outcomes, and a start reads only later ones.
        """
        with self._lock:
            text = json.dumps({"number": number, "suppliers": dict(suppliers)})
            self._database.execute("INSERT OR REPLACE INTO meta VALUES ('summary', ?)", (text,))
