"""Account numbers on the volume: what cannot be read or written costs nothing else."""

import pytest

from pocket_miner.storage.account_numbers import AccountNumbers


def test_numbers_outlast_the_process_and_each_supplier_has_its_own(tmp_path):
    path = tmp_path / "accounts.json"
    numbers = AccountNumbers(path)
    assert numbers.get("a") is None
    for supplier, number in (("a", 0), ("b", 7), ("a", 0), ("b", 8)):
        numbers.put(supplier, number)
    assert [AccountNumbers(path).get(supplier) for supplier in ("a", "b", "c")] == [0, 8, None]
    assert [file.name for file in tmp_path.iterdir()] == ["accounts.json"]


@pytest.mark.parametrize("text", ["", "[1]", "null", '{"a": "x"}', "\xff"])
def test_a_damaged_file_is_an_empty_one_and_is_replaced(tmp_path, text):
    path = tmp_path / "accounts.json"
    path.write_bytes(text.encode("latin-1"))
    numbers = AccountNumbers(path)
    assert numbers.get("a") is None
    numbers.put("a", 5)
    assert numbers.get("a") == 5


def test_a_volume_that_takes_no_file_fails_nothing(tmp_path):
    numbers = AccountNumbers(tmp_path / "gone" / "accounts.json")
    numbers.put("a", 5)
    assert numbers.get("a") is None
