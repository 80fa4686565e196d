"""Every code that users read is given somewhere, by its enum alone, and is in the documents."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from pocket.api.problems import ChainFinding, ProblemCode
from pocket.staking.stake_model import ApprovalCause, StakeRefusal
from pocket_miner.miner_metrics import RefusedEntry
from pocket_miner.status.readiness import Phase
from pocket_miner.storage.outcomes import SessionOutcome
from pocket_operator.decide.reasons import ConditionReason, StakeReason
from pocket_relayer.limits.rejection import RejectionReason
from pocket_relayer.relayer_metrics import Unrecorded

ROOT = Path(__file__).parents[2]
FOLDERS = ("core/pocket", "workloads/relayer", "workloads/miner", "operator")
PAGES = {
    ProblemCode: "reference/codes.md",
    ChainFinding: "reference/codes.md",
    SessionOutcome: "reference/codes.md",
    Unrecorded: "reference/codes.md",
    RefusedEntry: "reference/codes.md",
    RejectionReason: "reference/refusals.md",
    ConditionReason: "troubleshoot.md",
    StakeReason: "staking.md",
    StakeRefusal: "staking.md",
    ApprovalCause: "staking.md",
    Phase: "run.md",
}
ELSEWHERE = {
    "operator/pocket_operator/resources/objectives.py": "the operator imports no workload; test_objectives compares",
    "workloads/relayer/pocket_relayer/pipeline/metering.py": "a label of another metric",
    "workloads/relayer/pocket_relayer/process/reports.py": "a field",
}
"""Modules that may hold the text of a code."""
CODES = pytest.mark.parametrize("codes", PAGES, ids=lambda codes: codes.__name__)


def text_of(member):
    return member.value[0] if isinstance(member.value, tuple) else member.value


LONG = {codes: {text for member in codes if re.search("_| |[a-z][A-Z]", text := text_of(member))} for codes in PAGES}
"""Texts of codes of more than one word. A single word occurs in sentences and as a field, too."""
WANTED = re.compile("|".join(map(re.escape, [codes.__name__ for codes in PAGES] + sorted(set().union(*LONG.values())))))


@cache
def modules():
    """Return the trees of the modules that name an enum or the text of a code."""
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "/pb/" not in str(path))
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in paths}
    return {name: ast.parse(source) for name, source in sources.items() if WANTED.search(source)}


def giving(tree):
    """Yield what gives a code: classes, functions, and values of a module's tables. Keys and sets only ask for one."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from ast.walk(statement)
        else:
            tables = [node for node in ast.walk(statement) if isinstance(node, ast.Dict)]
            yield from (inner for table in tables for value in table.values for inner in ast.walk(value))


@cache
def given():
    """Return enum and member of every code that is given."""
    return frozenset(
        (node.value.id if isinstance(node.value, ast.Name) else node.value.attr, node.attr)
        for tree in modules().values()
        for node in giving(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute)
    )


@CODES
def test_every_code_is_given(codes):
    assert [member.name for member in codes if (codes.__name__, member.name) not in given()] == []


@cache
def texts():
    """Return module, line and value of every text that is no value of an enum."""
    found = []
    for name, tree in modules().items():
        enums = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and "Enum" in ast.dump(ast.Tuple(n.bases))]
        values = {id(inner) for node in enums for inner in ast.walk(node)}
        found += [
            (name, node.lineno, node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in values
        ]
    return found


@CODES
def test_no_text_takes_the_place_of_a_code(codes):
    assert [row for row in texts() if row[2] in LONG[codes] and row[0] not in ELSEWHERE] == []


@CODES
def test_every_code_is_in_the_documents(codes):
    page = (ROOT / "docs" / PAGES[codes]).read_text()
    assert [text for member in codes if not re.search(rf"\b{re.escape(text := text_of(member))}\b", page)] == []
