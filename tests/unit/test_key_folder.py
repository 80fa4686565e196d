"""The folder of keys is read again when something changed, and only then."""

import os

import pytest

from pocket.errors import ConfigurationError
from pocket.keys.key_folder import KeyFolder
from world import address, key

THEN = 1_800_000_000_000_000_000
SECOND = 1_000_000_000


def put(path, name, at=THEN):
    """Write a key's file with the time of the given clock."""
    path.write_text(f"{key(name).scalar:064x}")
    path.chmod(0o600)
    os.utime(path, ns=(at, at))


@pytest.fixture
def now():
    return [THEN + 3 * SECOND]


def folder(path, now, environment=()):
    return KeyFolder(path, dict(environment), lambda: now[0])


def test_what_did_not_change_is_not_read_again(tmp_path, now):
    put(tmp_path / "a", "alice")
    keys = folder(tmp_path, now, [("POCKET_SUPPLIER_KEY", f"{key('carol').scalar:064x}")])
    loaded = keys.load()
    assert set(loaded.keys) == {address("alice"), address("carol")}
    assert keys.load() is loaded


@pytest.mark.parametrize("change", ["another", "gone", "renamed", "replaced", "later", "mode"])
def test_every_change_is_seen(tmp_path, now, change):
    put(tmp_path / "a", "alice")
    put(tmp_path / "b", "bob")
    keys = folder(tmp_path, now)
    before = keys.load()
    assert keys.load() is before
    match change:
        case "another":
            put(tmp_path / "c", "carol")
        case "gone":
            (tmp_path / "b").unlink()
        case "renamed":
            (tmp_path / "b").rename(tmp_path / "z")
        case "replaced":
            put(tmp_path / ".new", "carol")
            (tmp_path / ".new").replace(tmp_path / "b")
        case "later":
            put(tmp_path / "b", "carol", THEN + 1)
        case "mode":
            (tmp_path / "b").chmod(0o644)
    after = keys.load()
    assert after is not before
    names = {"another": "alice bob carol", "gone": "alice", "replaced": "alice carol", "later": "alice carol"}
    assert set(after.keys) == {address(name) for name in names.get(change, "alice bob").split()}
    assert bool(after.problems) == (change == "mode")


def test_a_file_that_changes_twice_within_the_grain_of_its_clock_is_read_again(tmp_path, now):
    put(tmp_path / "a", "alice")
    now[0] = THEN + SECOND
    keys = folder(tmp_path, now)
    assert set(keys.load().keys) == {address("alice")}
    put(tmp_path / "a", "bob")  # same name, inode, size and time
    assert set(keys.load().keys) == {address("bob")}


def test_a_mounted_secret_that_is_swapped_is_seen(tmp_path, now):
    for version, name in (("..1", "alice"), ("..2", "bob")):
        (tmp_path / version).mkdir()
        put(tmp_path / version / "key", name)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key").symlink_to("..data/key")
    keys = folder(tmp_path, now)
    first = keys.load()
    assert (set(first.keys), keys.load() is first) == ({address("alice")}, True)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert set(keys.load().keys) == {address("bob")}


def test_a_folder_that_is_away_is_an_error_and_read_again_when_it_is_back(tmp_path, now):
    there = tmp_path / "keys"
    there.mkdir()
    put(there / "a", "alice")
    keys = folder(there, now)
    keys.load()
    there.rename(tmp_path / "aside")
    with pytest.raises(ConfigurationError):
        keys.load()
    (tmp_path / "aside").rename(there)
    assert set(keys.load().keys) == {address("alice")}
