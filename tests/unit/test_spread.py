"""The order of the tests: what takes long comes first in each process's span."""

from spread import spread


def module(row):
    return row[0]


def seconds(row):
    return row[2]


def rows(name, number, each):
    return [(name, at, each) for at in range(number)]


ITEMS = [*rows("short", 60, 0), *rows("a", 4, 5.0), *rows("other", 31, 0), *rows("b", 1, 12.0), *rows("c", 3, 3.0)]


def spans(found, workers):
    sizes = [(len(found) + at) // workers for at in range(workers)]
    return [found[sum(sizes[:at]) : sum(sizes[: at + 1])] for at in range(workers)]


def test_nothing_is_left_out_and_long_modules_stay_together():
    for workers in (1, 2, 3, 8):
        found = spread(ITEMS, workers, module, seconds)
        assert sorted(found) == sorted(ITEMS)
        for name, number in (("a", 4), ("c", 3)):
            first = found.index((name, 0, {"a": 5.0, "c": 3.0}[name]))
            assert [row[:2] for row in found[first : first + number]] == [(name, at) for at in range(number)]


def test_each_span_begins_with_long_tests_and_takes_about_as_long():
    one, two = spans(spread(ITEMS, 2, module, seconds), 2)
    assert [row[0] for row in one[:4]] == ["a"] * 4
    assert [row[0] for row in two[:4]] == ["b", "c", "c", "c"]
    assert {row[2] for row in (*one[4:], *two[4:])} == {0}


def test_a_run_of_long_tests_alone_is_in_spans_too():
    found = spread(rows("a", 3, 5.0) + rows("b", 3, 5.0), 2, module, seconds)
    assert [row[0] for row in found] == ["a"] * 3 + ["b"] * 3
