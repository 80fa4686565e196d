"""Every key depends on everything that it is the key of."""

import inspect
import itertools

import pytest

from pocket.redis_store.redis_keys import RedisKeys

KEYS = RedisKeys("prefix")
METHODS = [name for name, _ in inspect.getmembers(RedisKeys, inspect.isfunction) if not name.startswith("_")]
PROPERTIES = [name for name, _ in inspect.getmembers(RedisKeys, lambda member: isinstance(member, property))]


def found(keys, name, arguments):
    made = getattr(keys, name)(*arguments)
    return tuple(made) if isinstance(made, list) else (made,)


def parameters(name):
    return list(inspect.signature(getattr(KEYS, name)).parameters.values())


@pytest.mark.parametrize("name", METHODS)
def test_no_two_choices_of_arguments_have_a_key_in_common(name):
    values = [(1, 2) if row.annotation in (int, "int") else ("a", "b") for row in parameters(name)]
    rows = [found(KEYS, name, arguments) for arguments in itertools.product(*values)]
    keys = [key for row in rows for key in row]
    assert len(set(keys)) == len(keys)


def test_no_two_kinds_have_a_key_in_common_and_all_begin_with_the_prefix():
    rows = [found(KEYS, name, [1 if row.annotation in (int, "int") else "a" for row in parameters(name)])
            for name in METHODS if name != "spent"]  # fmt: skip
    keys = [key for row in rows for key in row] + [getattr(KEYS, name) for name in PROPERTIES]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith("prefix:") for key in keys)


def test_what_a_session_was_charged_is_under_all_of_its_spent_keys():
    spent = KEYS.spent("a", "s")
    assert KEYS.consumed("a", "s") in spent
    assert {KEYS.replays("a", "s", bucket) for bucket in range(256)} < set(spent)
