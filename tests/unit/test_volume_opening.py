"""A miner starts though files of its volume cannot be opened: they are set aside or skipped, the rest is mined."""

import sqlite3

import pytest

from pocket.redis_store.seals import SessionSeal
from pocket_miner.miner_metrics import ERRORS
from pocket_miner.status.readiness import Readiness
from pocket_miner.storage import volume as volume_module
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.disk_reserve import Reserve
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.storage.volume import opened

SUPPLIER = "pokt1supplier"


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(volume_module, "_RETRY_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path):
    """Return a volume with sessions that end at 10, 20 and 30, and a seal."""
    with RelayStore(tmp_path / "mirror") as relay_store:
        for end in (10, 20, 30):
            relay_store.file(end).add_session(SUPPLIER, f"session {end}", b"header")
    audit = Audit(tmp_path / "audit.sqlite")
    audit.save_seals(SUPPLIER, 10, [SessionSeal("session 10", bytes(48), bytes(32), 12, 1)], "")
    audit.close()
    return tmp_path


def broken_io(monkeypatch, names, times=10**6):
    """Let SQLite return I/O errors when it opens the named files, so many times."""
    connect, left = sqlite3.connect, dict.fromkeys(names, times)

    def opening(path, *args, **options):
        for name in names:
            if name in str(path) and left[name] > 0:
                left[name] -= 1
                raise sqlite3.OperationalError("disk I/O error")
        return connect(path, *args, **options)

    monkeypatch.setattr(sqlite3, "connect", opening)
    return left


def replaced_by_a_folder(path):
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def replaced_by_a_dangling_link(path):
    path.unlink()
    path.symlink_to("/nowhere/at/all.sqlite")


@pytest.mark.parametrize(
    "harm", [replaced_by_a_folder, replaced_by_a_dangling_link, lambda path: path.write_bytes(b"garbage" * 1000)]
)
@pytest.mark.parametrize("name", ["audit.sqlite", "mirror/end-20.sqlite", "refused.sqlite"])
async def test_what_is_no_usable_file_is_set_aside_and_the_rest_is_opened(folder, name, harm):
    path = folder / name
    path.touch()
    before = ERRORS.labels("volume")._value.get()
    harm(path)
    async with opened(folder) as volume:
        assert {row.session_id for _, row in volume.relay_store.sessions()} >= {"session 10", "session 30"}
        assert volume.relay_store.file(20).sessions() is not None
        assert volume.audit.seals(SUPPLIER) == {} or name != "audit.sqlite"
        volume.audit.save_epoch(1, 2)
    assert path.with_name(f"{path.name}.damaged-1").lstat()
    assert ERRORS.labels("volume")._value.get() == before + 1


async def test_a_folder_of_relays_that_is_a_file_is_set_aside(folder):
    (folder / "mirror").rename(folder / "elsewhere")
    (folder / "mirror").write_text("no folder")
    async with opened(folder) as volume:
        volume.relay_store.file(10).add_session(SUPPLIER, "session 10", b"header")
        assert list(volume.audit.seals(SUPPLIER)) == ["session 10"]
    assert (folder / "mirror.damaged-1").read_text() == "no folder"


async def test_names_that_are_no_session_ends_are_left_alone(folder):
    for name in ("end-.sqlite", "end-x.sqlite", "end--5.sqlite", f"end-{'9' * 300}.sqlite"[:200] + ".sqlite"):
        (folder / "mirror" / name).touch()
    async with opened(folder) as volume:
        assert volume.relay_store.ends() == [10, 20, 30]


async def test_a_file_with_an_io_error_is_skipped_and_found_again_once_the_error_has_passed(folder, monkeypatch):
    with monkeypatch.context() as during:
        broken_io(during, ["end-20.sqlite"])
        async with opened(folder) as volume:
            assert [end for end, _ in volume.relay_store.sessions()] == [10, 30]
            assert volume.relay_store.reopened() == []
            during.undo()
            assert volume.relay_store.reopened() == [20]
            assert volume.relay_store.reopened() == []
            assert [end for end, _ in volume.relay_store.sessions()] == [10, 20, 30]
    assert not list((folder / "mirror").glob("*.damaged-*")), "its relays may be the only ones"


async def test_an_audit_trail_with_a_passing_error_is_waited_for(folder, monkeypatch):
    broken_io(monkeypatch, ["/audit.sqlite"], times=4)  # twice at each attempt
    problems = []
    async with opened(folder, on_problem=problems.append) as volume:
        assert list(volume.audit.seals(SUPPLIER)) == ["session 10"]
    assert "disk I/O error" in problems[0]
    assert problems[-1] == ""


async def test_an_audit_trail_that_alone_stays_unreadable_is_set_aside(folder, monkeypatch):
    damaged = folder / "audit.sqlite"
    inode, connect = damaged.stat().st_ino, sqlite3.connect

    def opening(path, *args, **options):
        if str(damaged) in str(path) and damaged.exists() and damaged.stat().st_ino == inode:
            raise sqlite3.OperationalError("disk I/O error")
        return connect(path, *args, **options)

    monkeypatch.setattr(sqlite3, "connect", opening)
    async with opened(folder) as volume:
        assert volume.audit.seals(SUPPLIER) == {}
        assert len(volume.relay_store.sessions()) == 3
    assert (folder / "audit.sqlite.damaged-1").stat().st_ino == inode


async def test_while_no_file_of_a_volume_can_be_opened_nothing_is_set_aside(folder, monkeypatch):
    left = broken_io(monkeypatch, [".sqlite"], times=40)
    async with opened(folder) as volume:
        assert left == {".sqlite": 0}
        assert list(volume.audit.seals(SUPPLIER)) == ["session 10"]
    assert not list(folder.glob("*.damaged-*"))


def test_a_reserve_that_is_no_file_stops_nothing(tmp_path):
    (tmp_path / "reserve").mkdir()
    (tmp_path / "reserve" / "file").touch()
    reserve = Reserve(tmp_path, size=10**18)
    assert reserve.maintain() is not None
    assert reserve.hold() in (True, False)


def test_a_miner_that_cannot_open_its_volume_says_why_until_it_can():
    ready = Readiness(10.0)
    ready.volume_away("/data cannot be opened")
    assert [row.message for row in ready.problems(keys_missing=False)] == ["starting: opening, /data cannot be opened"]
    ready.volume_away("")
    assert [row.message for row in ready.problems(keys_missing=False)] == ["starting: opening"]
