"""Refused ledger entries are kept, within bounds, and trouble no one."""

import pytest

from pocket_miner.storage.dead_letters import CONTENT_BYTES, DeadLetter, DeadLetters


@pytest.fixture
def letters(tmp_path):
    return DeadLetters(tmp_path / "refused.sqlite", kept=3)


def test_no_file_is_made_while_nothing_is_refused(letters, tmp_path):
    letters.add("s", "one", [])
    assert letters.read() == []
    assert list(tmp_path.iterdir()) == []


def test_an_entry_is_kept_once_with_its_reason_size_and_beginning(letters):
    entry = ("1-0", "not a relay", b"x" * (CONTENT_BYTES + 5))
    letters.add("s", "one", [entry])
    letters.add("s", "one", [entry])
    assert letters.read() == [
        DeadLetter("s", "one", "1-0", "not a relay", CONTENT_BYTES + 5, b"x" * CONTENT_BYTES)
    ]  # fmt: skip


@pytest.mark.parametrize("at_once", [1, 2, 5, 10])
def test_only_the_newest_are_kept_however_they_come(letters, at_once):
    entries = [(f"{number}-0", "not a relay", b"") for number in range(10)]
    for start in range(0, 10, at_once):
        letters.add("s", "one", entries[start : start + at_once])
    assert [letter.entry for letter in letters.read()] == ["7-0", "8-0", "9-0"]


def test_a_volume_that_takes_none_stops_nobody(tmp_path):
    path = tmp_path / "refused.sqlite"
    path.write_bytes(b"this is no database" * 100)
    DeadLetters(path).add("s", "one", [("1-0", "not a relay", b"")])
    assert path.read_bytes().startswith(b"this is no database")
