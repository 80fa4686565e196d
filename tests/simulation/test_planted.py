"""The planted faults themselves: `make simulate-faults` shows that lives find them."""

from pathlib import Path

import pytest
from simulated.planted import BEGIN, END, plant, planted, row_of, rows_of, with_rows
from simulated.plants import PLANTS, Plant

import pocket_miner.sessions.stages  # noqa: F401 - so that it is imported

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("fault", PLANTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_a_change_of_one_place_that_can_be_compiled(fault):
    broken = planted(fault)
    assert {place.relative_to(ROOT) for place in broken} == {Path(file) for file, _, _ in fault.edits}
    for place, source in broken.items():
        assert source != place.read_text(encoding="utf-8")
        compile(source, str(place), "exec")


def test_at_least_sixty_faults_are_planted_each_under_a_name_of_its_own():
    assert len({fault.name for fault in PLANTS}) == len(PLANTS) >= 60


def test_a_fault_whose_line_is_gone_is_told():
    with pytest.raises(ValueError, match=r"does not hold .* once"):
        plant(Plant("gone", "scripts/find-python", "no such line", ""))


def test_a_fault_is_not_planted_into_a_module_that_is_imported_already():
    with pytest.raises(RuntimeError, match="imported already"):
        plant(Plant("late", "workloads/miner/pocket_miner/sessions/stages.py", "class Action(", ""))


def test_the_table_is_brought_up_to_date_row_by_row():
    first, second = PLANTS[:2]
    seen, unseen = {"lives": 3, "seed": 8, "problem": "a|b"}, {"lives": 0, "seed": 0, "problem": "", "tried": 5}
    text = f"before\n{BEGIN}\n| gone | 1 | 1 | x |\n{END}\nafter\n"
    once = with_rows(text, {second.name: row_of(second, seen)})
    both = with_rows(once, {first.name: row_of(first, unseen)})
    assert list(rows_of(both)) == ["planted fault", first.name, second.name]
    assert f"| {first.name} | **not found** in 5 |  |  |\n| {second.name} | 3 | 8 | a/b |\n{END}\nafter" in both
    assert with_rows(both, {}) == both


def test_the_document_has_a_row_for_each_planted_fault():
    rows = rows_of((ROOT / "docs/simulation.md").read_text(encoding="utf-8"))
    assert list(rows)[1:] == [fault.name for fault in PLANTS]
