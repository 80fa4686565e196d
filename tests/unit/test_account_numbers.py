"""Account numbers on the volume: what cannot be read or written costs nothing else."""

import pytest

from pocket.chain.model import Account
from pocket.errors import ChainUnavailable
from pocket_miner.storage.account_numbers import AccountNumbers
from pocket_miner.submission.account import SupplierAccount


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


class Chain:
    """A chain that states one account, or none while it is away."""

    def __init__(self, number):
        self.number, self.dropped = number, []

    async def account(self, address):
        if self.number is None:
            raise ChainUnavailable("away")
        return Account(address, self.number, 0, None)

    async def adopt(self, method, request, raw):
        self.dropped.append((request.address, raw))


async def test_a_number_with_which_a_transaction_was_accepted_is_there_after_a_restart_without_a_node(tmp_path):
    numbers = AccountNumbers(tmp_path / "accounts.json")
    chain = Chain(7)
    account = SupplierAccount(chain, "alice", numbers)
    assert (await account.get()).number == 7
    assert numbers.get("alice") is None, "no transaction was accepted yet"
    await account.accepted()
    assert numbers.get("alice") == 7
    chain.number = None
    assert (await account.get()).number == 7
    restarted = SupplierAccount(chain, "alice", AccountNumbers(tmp_path / "accounts.json"))
    assert (await restarted.get()).number == 7
    with pytest.raises(ChainUnavailable):
        await SupplierAccount(chain, "bob", numbers).get()
    chain.number = 8
    assert (await restarted.get()).number == 8, "a node's answer comes first"
    await restarted.refute()
    assert chain.dropped == [("alice", None)], "not from the caches either"
