"""Define `relayctl ledger`.

It inspects a miner's volume, whether the miner runs or not.
"""

import base64
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click

from pocket.errors import DecodingError
from pocket.input_files import InputFileError, decoded, json_value
from pocket.protocol.relays.messages import relay_hash
from pocket.protocol.smst.bulk import LeafSet
from pocket.protocol.smst.digest import Root, leaf_digest, path_of
from pocket.redis_store.seals import SessionSeal
from pocket_miner.console.backup import BackupError, back_up, size_of
from pocket_miner.console.earnings import GROUPINGS, earnings_csv, earnings_rows
from pocket_miner.console.exports import ExportFilter, csv_lines
from pocket_miner.console.places import data_folder
from pocket_miner.console.progress import Advance, progress
from pocket_miner.console.published_heads import parse_published_heads
from pocket_miner.status.explanations import explained, explained_open
from pocket_miner.storage.audit import Audit, AuditError, AuditHead
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.outcome_archive import (
    ArchiveError,
    TrailEntry,
    append_to_archive,
    is_cut_off,
    missing_heads,
    read_archive,
    trail_page,
)
from pocket_miner.storage.relay_store import RelayStore, SessionEndFile

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    callback=lambda _context, _option, given: data_folder(given),
    help="The miner's data folder; in its pod it has a default.",
)


def _source(command: click.decorators.FC) -> click.decorators.FC:
    """Add the options --data and --archive."""
    for option in (
        click.option(
            "--archive", type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="A file of `ledger archive` or `kubectl pocket archive` instead of a volume.",
        ),
        click.option(
            "--data", type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="The miner's data folder; in its pod it has a default.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def ledger() -> None:
    """Inspect a miner's volume: outcomes, seals and tries."""


def _audit(data: Path) -> Audit:
    path = data / "audit.sqlite"
    if not path.exists():
        raise click.ClickException(f"{path} does not exist: is {data} the data folder of a miner?")
    return Audit(path)


@ledger.command()
@_source
@click.option(
    "--published",
    type=click.File("rb"),
    help="Published heads, a line each: date, number, hash (the entry of this miner in ConfigMap <name>-audit).",
)
def verify(data: Path | None, archive: Path | None, published: BinaryIO | None) -> None:
    """Verify the hash chain of all outcomes. No published one may be missing."""
    heads = parse_published_heads(_text(published)) if published is not None else []
    number, problems = _checked_heads(data, archive, heads)
    if problems:
        raise click.ClickException("; ".join(problems))
    checked = f", {len(heads)} published heads belong to the trail" if heads else ""
    click.echo(f"{number} outcomes, none altered{checked}")


def _text(file: BinaryIO) -> str:
    try:
        return decoded(file.read(), file.name)
    except InputFileError as error:
        raise click.ClickException(str(error)) from None


def _checked_heads(data: Path | None, archive: Path | None, heads: list[AuditHead]) -> tuple[int, list[str]]:
    """Return the outcomes' number and wrong heads. Raises ClickException."""
    if archive is not None:
        entries = _archived(archive)
        return len(entries), missing_heads(entries, heads)
    audit = _audit(data_folder(data))
    try:
        return len(audit.outcomes()), audit.missing_heads(heads)
    except AuditError as error:
        raise click.ClickException(str(error)) from error
    finally:
        audit.close()


def _archived(archive: Path) -> list[TrailEntry]:
    """Return an archive's entries, and a warning if it is cut off."""
    try:
        entries, cut_off = read_archive(archive), is_cut_off(archive)
    except ArchiveError as error:
        raise click.ClickException(str(error)) from error
    if not entries:
        raise click.ClickException(f"{archive} has no outcome: is it a file of `relayctl ledger archive`?")
    if cut_off:
        click.echo(
            f"{archive}: the last line is cut off and was left out: later outcomes may be missing. Copy the file "
            "again, or compare it with the published heads (--published)",
            err=True,
        )
    return entries


def _outcomes(data: Path | None, archive: Path | None) -> list[dict[str, Any]]:
    """Return the verified outcomes of a volume or archive. Raises ClickException."""
    if archive is not None:
        return [entry.outcome() for entry in _archived(archive)]
    audit = _audit(data_folder(data))
    try:
        return audit.outcomes()
    except AuditError as error:
        raise click.ClickException(str(error)) from error
    finally:
        audit.close()


@ledger.command()
@_DATA
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def archive(data: Path, folder: Path) -> None:
    """Append new outcomes to the volume's file in FOLDER. The miner may run.

    The file needs no volume to be verified and exported: --archive of these commands. Run it again for later outcomes.
    """
    audit = _audit(data)
    try:
        audit.load_head()
        done = append_to_archive(folder, lambda after: trail_page(audit, after))
    except (AuditError, ArchiveError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        audit.close()
    click.echo(f"{done.added} outcomes added, {done.file} ends at {done.number}")


@ledger.command()
@_DATA
@click.option("--after", type=click.IntRange(0), default=0, show_default=True, help="Number of the last known outcome.")
def entries(data: Path, after: int) -> None:
    """Print the next outcomes with hashes. They are one JSON object."""
    audit = _audit(data)
    try:
        audit.load_head()
        click.echo(trail_page(audit, after).model_dump_json())
    except AuditError as error:
        raise click.ClickException(str(error)) from error
    finally:
        audit.close()


@ledger.command()
@_source
@click.option("--by", type=click.Choice(GROUPINGS), default="day", show_default=True, help="What a row sums up.")
@click.option("--supplier", default="", help="Only of this operator address.")
@click.option("--since", default="", help="Only outcomes since this UTC date, as in 2026-11-29.")
@click.option("--format", "form", type=click.Choice(["json", "csv"]), default="json", show_default=True)
def earnings(data: Path | None, archive: Path | None, by: str, supplier: str, since: str, form: str) -> None:
    """Print the upokt of each recipient by session, day or service."""
    rows = earnings_rows(_outcomes(data, archive), by, supplier=supplier, since=since)
    for line in earnings_csv(rows) if form == "csv" else (json.dumps(row, sort_keys=True) for row in rows):
        click.echo(line)


@ledger.command()
@_source
@click.option("--format", "form", type=click.Choice(["json", "csv"]), default="json", show_default=True)
@click.option("--supplier", default="", help="Only of this operator address.")
@click.option("--service", default="", help="Only of this service.")
@click.option("--application", default="", help="Only of this application.")
@click.option("--session", default="", help="Only of sessions whose id begins with this.")
@click.option("--lost/--settled", default=None, help="Only what was not paid, or what was.")
@click.option("--limit", type=click.IntRange(0), default=0, help="Only the newest ones; 0: all.")
def export(data: Path | None, archive: Path | None, form: str, **wanted: Any) -> None:
    """Print outcomes. Each is a JSON object, or a line of CSV for spreadsheets."""
    rows = ExportFilter(**wanted).select(_outcomes(data, archive))
    for line in csv_lines(rows) if form == "csv" else (json.dumps(row, sort_keys=True) for row in rows):
        click.echo(line)


@ledger.command()
@_DATA
@click.argument("session_id")
def explain(data: Path, session_id: str) -> None:
    """Explain the state or outcome of a session. Its id may be cut short."""
    audit = _audit(data)
    try:
        ended = [row for row in audit.outcomes() if str(row["session_id"]).startswith(session_id)]
        with RelayStore(data / "mirror") as relay_store:
            opened = [(end, row) for end, row in relay_store.sessions() if row.session_id.startswith(session_id)]
            for end, row in opened:
                count = relay_store.file(end).count(row.supplier, row.session_id)
                seal = audit.seals(row.supplier).get(row.session_id)
                click.echo("\n".join(explained_open(row.supplier, row.session_id, end, count, seal)))
    except (AuditError, sqlite3.Error) as error:
        raise click.ClickException(str(error)) from error
    finally:
        audit.close()
    for outcome in ended:
        click.echo("\n".join(explained(outcome)))
    if not ended and not opened:
        raise click.ClickException(f"no session on this volume begins with {session_id}")


@ledger.command()
@_DATA
@click.argument("session_id")
def relays(data: Path, session_id: str) -> None:
    """Print the relays of an open session as one JSON object each.

    The session is given by its id or the beginning of it. From the relays and their weights, the claimed root can be
    computed independently. Of ended sessions only the outcome is left, which names the root.
    """
    _audit(data).close()
    count = 0
    try:
        with RelayStore(data / "mirror") as relay_store:
            for end, row in relay_store.sessions():
                if row.session_id.startswith(session_id):
                    count += 1
                    for line in _relays(relay_store.file(end), row.supplier, row.session_id):
                        click.echo(line)
    except sqlite3.Error as error:
        raise click.ClickException(f"the volume cannot be read: {error}") from error
    if not count:
        raise click.ClickException(f"no open session on this volume begins with {session_id}")


def _relays(file: SessionEndFile, supplier: str, session_id: str) -> Iterator[str]:
    for path, _ in file.leaves(supplier, session_id):
        content = file.content(supplier, session_id, path)
        yield json.dumps(
            {
                "supplier": supplier, "session_id": session_id, "relay_hash": relay_hash(content.value).hex(),
                "compute_units": content.weight, "relay": base64.b64encode(content.value).decode(),
            }
        )  # fmt: skip


@ledger.command()
@_DATA
@click.argument("folder", type=click.Path(path_type=Path))
def backup(data: Path, folder: Path) -> None:
    """Copy seals, outcomes and open sessions to a new FOLDER. The miner may run.

    A miner that starts on the copy, with any Redis, claims and proves the open sessions.
    """
    _audit(data).close()
    try:
        with progress("Copying", size_of(data)) as advance:
            copied = back_up(data, folder, advance)
    except BackupError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(copied)} files in {folder}")


@ledger.command()
@_DATA
@click.option("--content/--no-content", default=False, help="With the first 16 KiB of each entry, as base64.")
def refused(data: Path, content: bool) -> None:
    """Print rejected stream entries. Each is a JSON object, oldest first."""
    _audit(data).close()
    try:
        letters = DeadLetters(data / "refused.sqlite").read()
    except sqlite3.Error as error:
        raise click.ClickException(f"the volume cannot be read: {error}") from error
    for letter in letters:
        row = asdict(letter)
        encoded = base64.b64encode(row.pop("content")).decode()
        click.echo(json.dumps({**row, "content": encoded} if content else row, sort_keys=True))


@ledger.group()
def seals() -> None:
    """Move seals to another volume. So no session is claimed twice."""


@seals.command("export")
@_DATA
def export_seals(data: Path) -> None:
    """Print the seals of unfinished sessions as JSON."""
    audit = _audit(data)
    try:
        rows = audit.all_seals()
    finally:
        audit.close()
    document = {
        "version": 1,
        "seals": [
            {"supplier": supplier, "session_end_height": end, "seal": json.loads(seal.encode()), "signed": signed}
            for supplier, end, seal, signed in rows
        ],
    }
    click.echo(json.dumps(document, indent=2, sort_keys=True))


def _exported_seals(text: str, name: str) -> list[tuple[str, int, SessionSeal, str]]:
    """Return the seals of an export.

    Each is supplier, session end, seal and whether it is signed. Raises ClickException.
    """
    try:
        document = json_value(text, name)
    except InputFileError as error:
        raise click.ClickException(str(error)) from None
    if not isinstance(document, dict) or not {"version", "seals"} <= document.keys():
        raise click.ClickException(f"{name}: not an export of seals: make one with `relayctl ledger seals export`")
    if document["version"] != 1:
        raise click.ClickException(f"{name}: version {document['version']}: this relayctl reads version 1 of seals")
    try:
        return [
            (str(row["supplier"]), int(row["session_end_height"]), SessionSeal.decode(json.dumps(row["seal"])),
             str(row.get("signed") or ""))
            for row in document["seals"]
        ]  # fmt: skip
    except (ValueError, LookupError, TypeError, AttributeError, DecodingError) as error:
        raise click.ClickException(f"{name}: an entry is not a seal ({error}): export it again") from None


@seals.command("import")
@_DATA
@click.argument("file", type=click.File("rb"))
def import_seals(data: Path, file: BinaryIO) -> None:
    """Import seals from a FILE, - for standard input. Stop the miner first.

    A seal whose root differs from a known one is rejected.
    """
    rows = _exported_seals(_text(file), file.name)
    data.mkdir(parents=True, exist_ok=True)
    audit = Audit(data / "audit.sqlite")
    try:
        added = 0
        for supplier, end, seal, signed in rows:
            known = audit.seals(supplier).get(seal.session_id)
            if known is not None and known[1].root != seal.root:
                raise click.ClickException(
                    f"session {seal.session_id} of {supplier} is sealed here with another root: two volumes claimed "
                    "it. Nothing more was imported."
                )
            if known is None and audit.outcome(supplier, seal.session_id) is None:
                audit.save_seals(supplier, end, [seal], signed)
                added += 1
    finally:
        audit.close()
    click.echo(f"{added} of {len(rows)} seals were new")


@ledger.command()
@_DATA
@click.option("--session", "session_id", help="Only this session id (or its beginning).")
def rebuild(data: Path, session_id: str | None) -> None:
    """Rebuild the tries of stored sessions. Compare them with the seals.

    They are built in C and in Python.
    """
    audit = _audit(data)
    wrong = seen = 0
    try:
        with RelayStore(data / "mirror") as relay_store:
            chosen = [
                (end, row)
                for end, row in relay_store.sessions()
                if not session_id or row.session_id.startswith(session_id)
            ]
            total = sum(relay_store.file(end).count(row.supplier, row.session_id) for end, row in chosen)
            with progress("Rebuilding tries", total) as advance:
                for end, row in chosen:
                    seen += 1
                    seal = audit.seals(row.supplier).get(row.session_id)
                    root = seal[1].root if seal else None
                    wrong += _compare(relay_store, end, row.supplier, row.session_id, root, advance)
    except sqlite3.Error as error:
        raise click.ClickException(f"the volume cannot be read: {error}") from error
    finally:
        audit.close()
    if session_id and not seen:
        raise click.ClickException(f"no stored session begins with {session_id}: ended ones are deleted")
    if wrong:
        raise click.ClickException(f"{wrong} of {seen} sessions have another root than they should")


def _compare(
    relay_store: RelayStore, end: int, supplier: str, session_id: str, sealed: bytes | None, advance: Advance
) -> int:
    file = relay_store.file(end)
    leaves = []
    for path, stored in file.leaves(supplier, session_id):
        content = file.content(supplier, session_id, path)
        key = relay_hash(content.value)
        digest = leaf_digest(path_of(key), content.value, content.weight)
        if path_of(key) != path or digest != stored:
            click.echo(f"{session_id} {supplier}: leaf {path.hex()[:16]} does not match its relay")
            return 1
        leaves.append((path, digest))
        advance(1)
    root = LeafSet(leaves).root()
    verdict = "open" if sealed is None else "equals the seal" if sealed == root else "DIFFERS FROM THE SEAL"
    if root != LeafSet(leaves, None).root():
        verdict = "THE ROOTS IN C AND IN PYTHON DIFFER"
    click.echo(f"{session_id} {supplier}: {Root(root).count} relays, root {root[:32].hex()[:16]}…, {verdict}")
    return int(verdict.isupper() or "DIFFERS" in verdict)
