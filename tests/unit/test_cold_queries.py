"""Fruitless queries are limited by address, and what the chain denied is denied until the next block."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.cold_queries import ColdQueryBudget, NegativeCache


class Gate:
    """A budget on a clock that the test sets."""

    def __init__(self, burst=3.0, per_second=0.5):
        self.now = 1000.0
        self.budget = ColdQueryBudget(lambda: self.now, "too many", burst=burst, per_second=per_second)

    def refusal(self, address):
        try:
            self.budget.check(address)
        except Rejected as rejected:
            return rejected.reason, rejected.message
        return None

    def open(self, address):
        return self.refusal(address) is None


def test_an_address_may_ask_in_vain_as_often_as_its_burst_and_then_as_its_rate_allows():
    gate = Gate()
    for _ in range(3):
        assert gate.open("a")
        gate.budget.strike("a")
    assert gate.refusal("a") == (RejectionReason.OVERLOADED, "too many")
    assert gate.open("b"), "another address"
    gate.now += 1.9
    assert not gate.open("a")
    gate.now += 0.1
    assert gate.open("a")
    gate.budget.strike("a")
    assert not gate.open("a")
    gate.now += 1000.0
    for _ in range(3):
        assert gate.open("a")
        gate.budget.strike("a")
    assert not gate.open("a"), "a quiet address saves up no more than its burst"


def test_queries_that_bear_fruit_and_unknown_addresses_are_never_limited():
    gate = Gate(burst=1.0)
    for _ in range(9):
        assert gate.open("a")
        gate.budget.strike("")
        assert gate.open("")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=40))
def test_no_address_is_ever_closed_before_its_burst_or_open_beyond_burst_and_rate(steps):
    gate, struck, begun = Gate(), {"a": 0, "b": 0}, 1000.0
    for address, seconds in steps:
        gate.now += seconds
        if gate.open(address):
            gate.budget.strike(address)
            struck[address] += 1
        else:
            assert struck[address] >= 3
        assert struck[address] <= 3 + 0.5 * (gate.now - begun) + 1e-6


def denied(cache, key):
    try:
        cache.check(key)
    except Rejected as rejected:
        return rejected
    return None


def test_what_the_chain_denied_is_denied_with_the_same_words_until_the_next_block():
    height = [7]
    cache = NegativeCache(lambda: height[0])
    refusal = Rejected(RejectionReason.SESSION_MISMATCH, "no such session")
    assert denied(cache, "key") is None
    assert cache.remember("key", refusal) is refusal
    again = denied(cache, "key")
    assert (again.reason, again.message) == (refusal.reason, refusal.message)
    assert again is not refusal, "each relay has a rejection of its own"
    assert denied(cache, "other") is None
    for height[0] in (8, 6):
        assert denied(cache, "key") is None


@pytest.mark.parametrize(
    ("nodes", "known_at", "confirmed"),
    [((), None, False), (("a",), None, False), (("a", "b"), None, True), (("a",), 7, False), (("a",), 6, True)],
)
def test_a_denial_is_confirmed_by_two_nodes_or_by_one_at_two_blocks(nodes, known_at, confirmed):
    height = [known_at or 7]
    cache = NegativeCache(lambda: height[0])
    if known_at is not None:
        cache.remember("key", Rejected(RejectionReason.SESSION_MISMATCH, "no"))
    height[0] = 7
    assert cache.is_confirmed("key", nodes) is confirmed
