"""A volume that lost bytes: its files are set aside, and the miner goes on from what Redis has.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

import asyncio
import contextlib
import sqlite3

import pytest

from mine import HereTriePool, slow_root
from pocket_miner.storage.corruption import VolumeCorrupted, corruption_in, is_intact, quarantine, quarantine_corrupted
from pocket_miner.storage.trie_pool import TriePool

pytestmark = pytest.mark.redis


def overwritten(path, at=None):
    """Overwrite part of a file with foreign bytes."""
    data = bytearray(path.read_bytes())
    at = len(data) // 2 if at is None else at
    data[at : at + 3000] = b"\x5a" * 3000
    path.write_bytes(data)


def filled(path, rows=2000):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y BLOB)")
    database.executemany("INSERT INTO t (y) VALUES (?)", [(b"x" * 100,)] * rows)
    database.commit()
    database.close()
    return path


@pytest.mark.parametrize("harm", [overwritten, lambda p: overwritten(p, 0), lambda p: p.write_text("no")])
def test_a_damaged_file_is_found_and_set_aside_with_its_log(tmp_path, harm):
    path = filled(tmp_path / "audit.sqlite")
    assert is_intact(path)
    (tmp_path / "audit.sqlite-wal").write_bytes(b"")
    harm(path)
    assert not is_intact(path)
    assert quarantine_corrupted(tmp_path) == [tmp_path / "audit.sqlite.damaged-1"]
    assert not path.exists()
    assert not (tmp_path / "audit.sqlite-wal").exists()
    assert quarantine_corrupted(tmp_path) == []


def test_what_is_set_aside_is_bounded(tmp_path):
    for number in range(1, 9):
        (tmp_path / "end-10.sqlite").write_text(str(number))
        assert quarantine(tmp_path / "end-10.sqlite").name == f"end-10.sqlite.damaged-{number}"
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["4", "5", "6", "7", "8"]


def test_a_locked_an_empty_and_a_very_large_file_are_not_damaged(tmp_path, monkeypatch):
    path = filled(tmp_path / "a.sqlite")
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("sqlite3.connect", lambda *a, connect=sqlite3.connect, **k: connect(*a, **k | {"timeout": 0}))
    assert is_intact(path)
    holder.close()
    (tmp_path / "empty.sqlite").touch()
    assert is_intact(tmp_path / "empty.sqlite")
    overwritten(path)
    monkeypatch.setattr("pocket_miner.storage.corruption._CHECKED_BYTES", 1000)
    assert is_intact(path), "only its beginning is read"
    overwritten(path, 0)
    assert not is_intact(path)


def test_only_damage_is_damage():
    assert corruption_in(sqlite3.OperationalError("database or disk is full")) is None
    assert corruption_in(ValueError()) is None
    found = corruption_in(ExceptionGroup("", [ValueError(), ExceptionGroup("", [VolumeCorrupted("/x")])]))
    assert found is not None
    assert "/x is corrupt" in str(found)


@pytest.mark.parametrize("height", [12, 14, 17])
@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("mirror/end-10.sqlite", lambda path: overwritten(path, 4096)),
        ("audit.sqlite", lambda path: path.write_bytes(b"no database at all" * 100)),
    ],
)
async def test_with_a_damaged_file_all_relays_are_read_again_and_the_same_root_is_paid(alice, name, harm, height):
    header = alice.header()
    rows = alice.relays(header, 40)
    await alice.record(rows)
    await alice.to(height)
    alice.close()
    harm(alice.folder / name)
    assert quarantine_corrupted(alice.folder) == [alice.folder / f"{name}.damaged-1"]
    alice.start()
    await alice.to(21)
    outcome = alice.outcomes()[header.session_id]
    assert (outcome["outcome"], outcome["details"]["root"]) == ("settled", slow_root(rows).hex())


async def test_a_relay_that_changed_on_the_disk_is_not_proven_with_but_read_again(alice):
    header = alice.header()
    rows = alice.relays(header, 5)
    await alice.record(rows)
    await alice.to(15)
    path = alice.relay_store.path(10)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for path_of_leaf, value in database.execute("SELECT path, value FROM leaf").fetchall():
            database.execute("UPDATE leaf SET value=? WHERE path=?", (value[:-1] + b"\0", path_of_leaf))
    assert is_intact(path), "to SQLite nothing is wrong with it"
    with pytest.raises(VolumeCorrupted) as caught:
        await alice.block()
    alice.close()
    quarantine(path.parent / caught.value.path.rpartition("/")[2])
    alice.start()
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"


async def test_damage_that_is_met_in_the_process_that_computes_tries_is_told_with_the_file(alice):
    header = alice.header()
    await alice.record(alice.relays(header, 200))
    await alice.to(12)
    alice.close()
    path = alice.folder / "mirror/end-10.sqlite"
    overwritten(path, 8192)
    pool = TriePool()
    try:
        for asked in (
            pool.root(path, alice.supplier, header.session_id),
            HereTriePool().root(path, alice.supplier, ""),
        ):
            with pytest.raises(VolumeCorrupted) as caught:
                await asked
            assert caught.value.path == str(path)
    finally:
        await asyncio.to_thread(pool.close)
    alice.start()
