"""A faster constructor makes the same values as the one that dataclasses generate."""

import inspect
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from pocket.fast_init import fast_init


def _values():
    @dataclass(frozen=True, slots=True)
    class Value:
        name: str
        number: int = 7
        _cache: bytes = field(default=b"", init=False, compare=False)
        rows: list = field(default_factory=list, compare=False)
        made: dict = field(default_factory=dict, init=False, compare=False)
        length: int = field(init=False)

        def __post_init__(self):
            object.__setattr__(self, "length", len(self.name))

    return Value


def test_fields_defaults_and_what_is_set_afterwards_are_the_same():
    plain, fast = _values(), fast_init(_values())
    for arguments, keywords in ((("a",), {}), (("ab", 8), {}), ((), {"name": "abc", "number": 9})):
        assert repr(fast(*arguments, **keywords)) == repr(plain(*arguments, **keywords))
    assert inspect.signature(fast) == inspect.signature(plain)
    assert fast("a") == fast("a")
    assert hash(fast("a")) == hash(fast("a"))
    assert fast("a", rows=[1]).rows == [1]
    assert fast("a").rows is not fast("a").rows, "each has its own"
    assert replace(fast("a"), name="abcd") == fast("abcd")


def test_wrong_arguments_and_assignments_are_refused():
    fast = fast_init(_values())
    for arguments, keywords in (((), {}), (("a", 1, [], 2), {}), (("a",), {"other": 1})):
        with pytest.raises(TypeError):
            fast(*arguments, **keywords)
    with pytest.raises(FrozenInstanceError):
        fast("a").name = "b"


def test_what_may_be_given_by_keyword_only_is_refused():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Value:
        name: str

    with pytest.raises(TypeError, match="name"):
        fast_init(Value)
