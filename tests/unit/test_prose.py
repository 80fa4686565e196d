"""The check of the English finds unwanted words and semicolons, and nothing else."""

import pytest

from check_prose import BETTER, MAX_FIRST_LINE, problems_of

SOURCE = '''"""Reads claims."""

LIMIT = 3
"""Claims at a time; more wait."""


def read(log):
    """Return a claim; None at the end.

    Whoever
    calls it is told the height.
    """
    # begun anew
    log.info(f"nobody reads {LIMIT}")
'''


def test_each_unwanted_word_and_semicolon_of_product_code_is_found_with_its_line():
    found = [
        row.removeprefix("core/pocket/a.py:").partition(":")[::2] for row in problems_of("core/pocket/a.py", SOURCE)
    ]
    lines = [(int(line), problem.split(":")[0].strip(" '")) for line, problem in found]
    semicolon = "semicolon in the first line of a docstring"
    assert lines == [(4, semicolon), (8, semicolon), (10, "whoever"), (11, "told"), (13, "anew"), (14, "nobody")]


@pytest.mark.parametrize(("length", "found"), [(MAX_FIRST_LINE, 0), (MAX_FIRST_LINE + 1, 3)])
def test_a_first_line_of_a_docstring_has_at_most_eighty_characters_outside_of_tests(length, found):
    line = f'"""{"a" * length}\n\n{"b" * 100}"""\n'
    source = f"{line}class A:\n    {line}    def f(self):\n        {line}"
    assert len(problems_of("core/a.py", source)) == found
    assert problems_of("tests/unit/test_a.py", source) == []


def test_tests_and_scripts_are_checked_for_semicolons_only():
    assert [row.split(":")[1] for row in problems_of("tests/unit/test_a.py", SOURCE)] == ["4", "8"]


@pytest.mark.parametrize("word", BETTER)
def test_each_unwanted_word_of_a_document_is_found(word):
    problem = f"docs/a.md:2: {word!r}: write {BETTER[word]}"
    assert problems_of("docs/a.md", f"One.\nIt {word} it.") == [problem]
    wrapped = word.replace(" ", "\n  ")
    assert problems_of("docs/a.md", f"One.\nIt {wrapped} it.") == [problem]


def test_an_unwanted_word_may_be_part_of_another_or_stand_in_the_table_of_planted_faults():
    assert problems_of("docs/a.md", "Untold besides: empty if there\n  is none, and what is None stays.") == []
    table = "<!-- begin planted faults -->\n| nobody |\n<!-- end planted faults -->\n"
    assert problems_of("docs/a.md", table) == []
    assert problems_of("docs/a.md", f"{table}nobody") == ["docs/a.md:4: 'nobody': write the noun"]
