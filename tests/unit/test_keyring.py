import shutil

import pytest

from pocket.keys.keyring import Keyring
from pocket.keys.loading import load_keys_directory
from world import address, key


def put(path, name):
    path.write_text(f"{key(name).scalar:064x}")
    path.chmod(0o600)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "keys"
    path.mkdir()
    put(path / "a", "alice")
    return path


@pytest.fixture
def keyring(folder):
    made = Keyring(folder, {})
    assert made.reload()
    return made


def events(captured_logs):
    return [row["event"] for row in captured_logs]


def test_keys_are_found_by_address_and_named_by_the_digest_of_the_set(keyring, folder):
    put(folder / "b", "bob")
    assert keyring.reload()
    assert keyring.addresses == sorted([address("alice"), address("bob")])
    assert set(keyring.by_address()) == set(keyring.addresses)
    assert keyring.digest == load_keys_directory(folder).digest
    (folder / "a").unlink()
    assert keyring.reload()
    assert keyring.addresses == [address("bob")]


def test_without_any_key_there_is_no_digest(tmp_path):
    keyring = Keyring(tmp_path, {})
    assert not keyring.reload()
    assert (keyring.digest, keyring.addresses) == ("", [])


def test_what_did_not_change_is_neither_news_nor_logged(keyring, captured_logs):
    before = keyring.by_address()
    assert not keyring.reload()
    assert keyring.by_address() is before
    assert captured_logs == []


def test_a_folder_that_cannot_be_read_keeps_the_last_keys_and_is_logged_once(keyring, folder, captured_logs):
    shutil.rmtree(folder)
    assert not keyring.reload()
    assert not keyring.reload()
    assert keyring.addresses == [address("alice")]
    assert events(captured_logs) == ["key reload failed, keeping the previous keys"]
    folder.mkdir()
    put(folder / "a", "alice")
    assert not keyring.reload()
    shutil.rmtree(folder)
    assert not keyring.reload()
    assert len(captured_logs) == 2


def test_a_broken_entry_is_logged_once_without_its_content_and_the_others_are_used(keyring, folder, captured_logs):
    (folder / "b").write_text("hunter2" * 9)
    (folder / "b").chmod(0o600)
    assert not keyring.reload()
    assert not keyring.reload()
    assert keyring.addresses == [address("alice")]
    assert events(captured_logs) == ["supplier key ignored"]
    assert "hunter2" not in str(captured_logs)
