"""Relays on the volume: several sessions in one step, and files of earlier versions."""

import sqlite3
from dataclasses import replace

import pytest

from pocket_miner.relay_rows import Leaf, LeafBatch
from pocket_miner.storage.relay_store import RelayStore

EARLIER = """
CREATE TABLE session (
  id INTEGER PRIMARY KEY, supplier TEXT NOT NULL, session_id TEXT NOT NULL, header BLOB NOT NULL,
  position TEXT NOT NULL DEFAULT '0-0', incarnation TEXT NOT NULL DEFAULT '', refused INTEGER NOT NULL DEFAULT 0,
  UNIQUE (supplier, session_id));
CREATE TABLE leaf (
  session INTEGER NOT NULL, path BLOB NOT NULL, digest BLOB NOT NULL, weight INTEGER NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (session, path)) WITHOUT ROWID;
"""


def leaf(number):
    path = bytes((number * 37 % 251,)) + bytes(30) + bytes((number,))
    return Leaf(path, b"digest %d" % number, 100, b"relay %d" % number)


def batch(session_id, *numbers, position="1-1"):
    return LeafBatch("alice", session_id, [leaf(number) for number in numbers], 0, position, "i")


@pytest.fixture(params=["of this version", "of an earlier version"])
def file(request, tmp_path):
    """Open the file of a session end with two sessions."""
    if request.param == "of an earlier version":
        database = sqlite3.connect(tmp_path / "end-10.sqlite")
        database.executescript(EARLIER)
        database.close()
    with RelayStore(tmp_path) as store:
        found = store.file(10)
        found.add_sessions("alice", [("one", b"h"), ("two", b"h")])
        yield found


def test_leaves_are_in_the_order_of_their_paths_and_each_is_there_once(file):
    assert file.store_all([batch("one", 5, 1, 9), batch("two", 1)]) == [3, 1]
    assert file.store_all([batch("one", 2, 1, 5), batch("gone", 1)]) == [1, None]
    expected = sorted((leaf(n).path, leaf(n).digest) for n in (5, 1, 9, 2))
    assert file.leaves("alice", "one") == expected
    assert [path for path, _ in expected] != [leaf(n).path for n in (5, 1, 9, 2)]
    assert file.leaves("alice", "two") == [(leaf(1).path, leaf(1).digest)]
    assert file.count("alice", "one") == 4
    assert file.content("alice", "one", leaf(9).path).value == b"relay 9"
    pages, mark = [], b""
    while True:
        values, mark = file.page("alice", "one", mark, 1)
        if not values:
            break
        assert len(values) == 1
        pages += values
    stored = {leaf(n).path: b"relay %d" % n for n in (5, 1, 9, 2)}
    assert pages == [stored[path] for path in file.arrivals("alice", "one")]


def test_several_sessions_are_stored_together_or_not_at_all(file):
    bad = LeafBatch("alice", "two", [Leaf(b"p", b"d", 2**63, b"v")], 0, "2-2", "i")
    with pytest.raises(OverflowError):
        file.store_all([batch("one", 1, position="2-2"), bad])
    assert file.count("alice", "one") == 0
    assert {row.position for row in file.sessions()} == {"0-0"}
    assert file.store_all([batch("one", 1, position="3-3")]) == [1]
    assert {row.session_id: row.position for row in file.sessions()} == {"one": "3-3", "two": "0-0"}


def test_the_terms_of_stored_relays_are_known_as_long_as_all_have_the_same(file):
    def stored(terms, *numbers, position="1-1"):
        file.store_all([replace(batch("one", *numbers, position=position), terms=terms)])
        return file.terms_of("alice", "one")

    assert file.terms_of("alice", "one") is None
    assert file.terms_of("alice", "gone") is None
    assert stored("a") == stored("a", 1) == "a", "also if no entry was valid"
    assert stored("b", 2) not in ("", "a", "b")
    file.check_again("alice", "one", lambda value: leaf(int(value[6:])), "c")
    assert file.terms_of("alice", "one") == "c"
    file.add("alice", "one", [leaf(3)], "d")
    assert file.terms_of("alice", "one") not in ("c", "d")
    file.store_all([batch("two", 1)])
    assert file.terms_of("alice", "two") == ""
    file.remove("alice", "one")
    file.remove("alice", "two")
    file.add_session("alice", "two", b"h")
    assert file.terms_of("alice", "two") is None


def test_a_session_whose_relays_were_checked_again_is_read_from_its_start(file):
    file.store_all([batch("one", 1, 2, 3, position="9-0"), batch("two", 1, position="8-0")])
    rejected = leaf(2).value
    assert file.check_again("alice", "one", lambda value: None if value == rejected else leaf(int(value[6:]))) == 1
    assert file.count("alice", "one") == 2
    assert {row.session_id: row.position for row in file.sessions()} == {"one": "0-0", "two": "8-0"}


def test_a_new_session_has_none_of_the_relays_of_one_that_ended(file):
    file.store_all([batch("one", 1), batch("two", 2, 3)])
    assert not file.remove("alice", "two")
    file.add_sessions("alice", [("three", b"h")])
    assert file.count("alice", "three") == 0
    assert file.leaves("alice", "three") == []
    assert file.remove("alice", "one") is False
    assert file.remove("alice", "three") is True


def test_relays_that_were_rolled_back_do_not_count(file):
    assert file.count("alice", "one") == 0
    damaged = replace(batch("two"), leaves=[(bytes(32), b"digest", object(), b"relay")])
    with pytest.raises(sqlite3.Error):
        file.store_all([batch("one", 1, 2), damaged])
    assert file.count("alice", "one") == 0
    assert file.store_all([batch("one", 1, 2)]) == [2]
    assert file.count("alice", "one") == 2
