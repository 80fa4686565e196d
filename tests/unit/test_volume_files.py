"""The files of a miner's volume: how they are opened and set aside, what is reserved beside them, when they hang."""

import asyncio
import os
import sqlite3
from types import SimpleNamespace

import pytest

from pocket.errors import ConfigurationError
from pocket_miner.storage import corruption, disk_reserve, sealed_leaves, volume
from pocket_miner.storage.corruption import VolumeCorrupted, corruption_in, is_intact, quarantine
from pocket_miner.storage.database import open_to_read, open_to_write
from pocket_miner.storage.disk_reserve import Reserve, Space
from pocket_miner.storage.volume_probe import VolumeProbe

SCHEMA = "CREATE TABLE IF NOT EXISTS row (number INTEGER)"
MIB = 1 << 20


def pragma(database, name):
    return database.execute(f"PRAGMA {name}").fetchone()[0]


def test_what_is_committed_is_synced_and_a_log_that_a_long_read_made_large_shrinks(tmp_path):
    database = open_to_write(tmp_path / "a.sqlite", SCHEMA)
    settings = [pragma(database, name) for name in ("journal_mode", "synchronous", "journal_size_limit", "cache_size")]
    assert settings == ["wal", 2, 8 * MIB, -20_000]
    database.close()


def test_a_file_is_used_by_threads_and_commits_each_statement(tmp_path):
    database = open_to_write(tmp_path / "a.sqlite", SCHEMA)
    asyncio.run(asyncio.to_thread(database.execute, "INSERT INTO row VALUES (7)"))
    reader = open_to_read(tmp_path / "a.sqlite")
    assert asyncio.run(asyncio.to_thread(pragma, reader, "query_only")) == 0
    assert reader.execute("SELECT number FROM row").fetchall() == [(7,)]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("INSERT INTO row VALUES (8)")
    database.close()
    reader.close()


def test_a_missing_file_is_not_created_by_reading(tmp_path):
    with pytest.raises(sqlite3.OperationalError):
        open_to_read(tmp_path / "a.sqlite")
    assert list(tmp_path.iterdir()) == []


class Unopened(sqlite3.Connection):
    """A file that SQLite cannot open as long as it needs the index of a log: it says so at the first statement."""

    error = "SQLITE_CANTOPEN"
    opened = ()

    def __init__(self, address, **options):
        Unopened.opened = (*Unopened.opened, address.partition("?")[2])
        self.immutable = "immutable=1" in address
        super().__init__(address, **options)

    def execute(self, *statement):
        if not self.immutable:
            error = sqlite3.OperationalError("trouble")
            error.sqlite_errorname = self.error
            raise error
        return super().execute(*statement)


@pytest.mark.parametrize(
    ("error", "file", "log", "opens"),
    [
        ("SQLITE_CANTOPEN", True, None, True),
        ("SQLITE_CANTOPEN", True, b"", True),
        ("SQLITE_READONLY_DIRECTORY", True, None, True),
        ("SQLITE_CANTOPEN", True, b"pages", False),  # they may be the only ones
        ("SQLITE_CANTOPEN", False, None, False),
        ("SQLITE_IOERR", True, None, False),
        ("SQLITE_BUSY", True, b"", False),
    ],
)
def test_a_file_on_a_read_only_volume_is_read_as_it_is_only_where_no_log_can_change_it(
    tmp_path, monkeypatch, error, file, log, opens
):
    path = tmp_path / "a.sqlite"
    if file:
        open_to_write(path, SCHEMA).close()
    if log is not None:
        path.with_name("a.sqlite-wal").write_bytes(log)
    connect = sqlite3.connect

    def opening(address, **options):  # other files are opened meanwhile, by the measurement of coverage
        ours = {"factory": Unopened} if str(tmp_path) in str(address) else {}
        return connect(address, **ours, **options)

    monkeypatch.setattr(Unopened, "error", error)
    monkeypatch.setattr(Unopened, "opened", ())
    monkeypatch.setattr(sqlite3, "connect", opening)
    if not opens:
        with pytest.raises(sqlite3.OperationalError):
            open_to_read(path)
        assert Unopened.opened == ("mode=ro",)
        return
    database = open_to_read(path)
    assert database.execute("SELECT count(*) FROM row").fetchone() == (0,)
    assert Unopened.opened == ("mode=ro", "mode=ro&immutable=1")
    database.close()


@pytest.mark.parametrize(
    ("free", "reserved", "low", "says"),
    [
        (100, 1, False, ""),
        (99, 1, True, "99 of 1000 MiB free: enlarge"),
        (500, 0, True, "500 of 1000 MiB free, the reserve for seals is in use: enlarge"),
        (99, 0, True, "99 of 1000 MiB free, the reserve for seals is in use: enlarge"),
    ],
)
def test_a_volume_is_filling_up_below_a_tenth_or_while_its_reserve_is_in_use(free, reserved, low, says):
    space = Space(1000 * MIB, free * MIB, reserved)
    assert space.low is low
    assert says in space.problem
    assert bool(space.problem) is low


@pytest.fixture
def disk(monkeypatch):
    """Return a volume with as much free space as a test says."""
    made = SimpleNamespace(total=1 << 40, free=1 << 40)
    monkeypatch.setattr(disk_reserve.shutil, "disk_usage", lambda folder: made)
    return made


@pytest.mark.parametrize(("free", "held"), [(0, False), (1999, False), (2000, True)])
def test_a_reserve_is_made_where_twice_its_size_is_free(tmp_path, disk, free, held):
    disk.free = free
    reserve = Reserve(tmp_path, size=1000, full=True)
    assert (reserve.hold(), reserve.full) == (held, not held)
    assert reserve.space().reserved == (1000 if held else 0)
    disk.free = 0
    assert reserve.hold() is held, "one that is there needs no space"


@pytest.mark.parametrize(
    ("reserved", "free", "kept"),
    [
        (True, 8 * MIB, True),
        (True, 8 * MIB - 1, False),
        (False, 8 * MIB, True),
        (False, 1999, False),
    ],
)
def test_a_reserve_is_given_up_below_eight_mebibytes_and_made_again_where_there_is_space(
    tmp_path, disk, reserved, free, kept
):
    reserve = Reserve(tmp_path, size=1000)
    assert reserve.hold() if reserved else reserve.release() is False
    disk.free = free
    assert reserve.maintain() == Space(disk.total, free, 1000 if kept else 0)
    assert (reserve.path.exists(), reserve.full) == (kept, not kept)


def test_a_reserve_that_cannot_be_made_leaves_nothing_and_a_volume_that_cannot_be_measured_is_left_alone(
    tmp_path, disk, monkeypatch
):
    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(disk_reserve.os, "posix_fallocate", full)
    reserve = Reserve(tmp_path, size=1000, full=True)
    assert (reserve.hold(), reserve.full, list(tmp_path.iterdir())) == (False, True, [])
    monkeypatch.setattr(disk_reserve.shutil, "disk_usage", full)
    assert reserve.maintain() is None
    assert (Reserve(tmp_path).size, Reserve(tmp_path).full) == (64 * MIB, False)


@pytest.mark.parametrize(
    ("leaves", "surplus", "attempts"), [(10, 2, 10), (99, 1, 1), (100, 1, 1), (1000, 1, 1), (20, 1, 5), (3, 3, 1)]
)
def test_sealed_leaves_are_looked_for_as_often_as_is_quick_and_at_least_once(monkeypatch, leaves, surplus, attempts):
    monkeypatch.setattr(sealed_leaves, "_MAX_HASHED_LEAVES", 100)
    arrivals = [b"%d" % number for number in range(leaves)]
    selections = list(sealed_leaves._selections(arrivals, surplus))
    assert len(selections) == attempts
    assert selections[0] == frozenset(arrivals[-surplus:]), "what came last is left out first"


@pytest.mark.parametrize(("seconds", "hangs"), [(0, False), (30, False), (31, True)])
def test_a_volume_hangs_while_a_probe_lasts_longer_than_a_lease(tmp_path, seconds, hangs):
    now = [100.0]
    probe = VolumeProbe(tmp_path, None, 30.0, lambda: now[0])
    assert not probe.hangs
    probe._begun = now[0]
    now[0] += seconds
    assert probe.hangs is hangs
    assert ("has not answered for 30 s" in probe.problem) is hangs


@pytest.mark.parametrize("has_data", [False, True])
@pytest.mark.parametrize("writable", [False, True])
def test_a_read_only_folder_is_locked_for_what_is_sealed_on_it_alone(tmp_path, monkeypatch, has_data, writable):
    def require_writable(program, folder):
        if not writable:
            raise ConfigurationError("read-only")

    monkeypatch.setattr(volume, "require_writable", require_writable)
    (tmp_path / "miner.lock").write_text("a former process")
    if has_data:
        (tmp_path / "audit.sqlite").touch()
    if not has_data and not writable:
        with pytest.raises(ConfigurationError, match="read-only"):
            volume.lock(tmp_path)
        return
    held = volume.lock(tmp_path)
    assert (tmp_path / "miner.lock").read_text() == (str(os.getpid()) if writable else "a former process")
    with pytest.raises(ConfigurationError, match="held by"):
        volume.lock(tmp_path)
    held.release()


def error_of(name):
    error = sqlite3.DatabaseError("trouble")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "corrupt"),
    [
        (error_of("SQLITE_CORRUPT"), True),
        (error_of("SQLITE_CORRUPT_INDEX"), True),
        (error_of("SQLITE_NOTADB"), True),
        (error_of("SQLITE_FULL"), False),
        (error_of("SQLITE_IOERR"), False),
        (error_of("SQLITE_READONLY"), False),
        (sqlite3.DatabaseError("without a name"), False),
        (VolumeCorrupted("/a"), True),
        (OSError("away"), False),
        (ExceptionGroup("both", [OSError("away"), error_of("SQLITE_NOTADB")]), True),
        (ExceptionGroup("both", [OSError("away"), error_of("SQLITE_FULL")]), False),
    ],
)
def test_only_errors_of_damaged_files_are_corruption(tmp_path, error, corrupt):
    assert (corruption_in(error) is not None) is corrupt
    if isinstance(error, sqlite3.DatabaseError):
        kind = VolumeCorrupted if corrupt else sqlite3.DatabaseError
        with pytest.raises(kind) as raised, corruption.attach_path(tmp_path):
            raise error
        assert (raised.value.__cause__ is error) is corrupt


def damaged_in_the_middle(path):
    """Make a file whose last page is damaged."""
    database = open_to_write(path, SCHEMA)
    database.execute("BEGIN")
    database.executemany("INSERT INTO row VALUES (?)", [(number,) for number in range(5000)])
    database.execute("COMMIT")
    database.close()
    content = bytearray(path.read_bytes())
    content[-4096:] = b"\xff" * 4096
    path.write_bytes(content)


def test_a_file_is_checked_as_a_whole_unless_that_takes_seconds(tmp_path, monkeypatch):
    path = tmp_path / "a.sqlite"
    damaged_in_the_middle(path)
    assert not is_intact(path)
    monkeypatch.setattr(corruption, "_CHECKED_BYTES", path.stat().st_size)
    assert not is_intact(path)
    monkeypatch.setattr(corruption, "_CHECKED_BYTES", path.stat().st_size - 1)
    assert is_intact(path), "its beginning is"
    path.write_bytes(b"no database" * 1000)
    assert not is_intact(path)


def test_the_newest_five_of_a_files_damaged_copies_are_kept_with_their_logs(tmp_path):
    path = tmp_path / "a.sqlite"
    for number in range(1, 9):
        path.write_text(f"damaged {number}")
        path.with_name("a.sqlite-wal").write_text("log")
        assert quarantine(path).name == f"a.sqlite.damaged-{number}"
        kept = range(max(1, number - 4), number + 1)
        assert {row.name for row in tmp_path.iterdir()} == {
            f"a.sqlite.damaged-{copy}{end}" for copy in kept for end in ("", "-wal")
        }
