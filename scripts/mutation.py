"""Generates mutants of the money path with cosmic-ray and runs the tests that cover each mutated line.

    mutation.py cover                 run the tests once, unmutated, and note which test runs which line
    mutation.py run                   judge mutants; survivors are printed and written to .mutation/survivors.txt

Environment of `run`: SAMPLE=<n> mutants drawn with SEED=<n> (all without it), ONLY=<text> in a file's path,
CHANGED=<git range> only lines that it changes, JOBS=<n>, MIN_SCORE=<percent> for exit code 0 (95).
A mutant that no test ends within its time is counted apart, neither killed nor survived.
"""

import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from coverage import CoverageData
from parso.python.tree import Keyword

from mutants import NOT_COLLECTED, ROOT, TESTS_FAILED, Verdict, judging, run_tests

FOLDER = ROOT / ".mutation"
DATA = FOLDER / "coverage"
MONEY_PATH = (
    "core/pocket/chain/*.py",
    "core/pocket/chain_cache/*.py",
    "core/pocket/coordination/*.py",
    "core/pocket/protocol/claims/*.py",
    "core/pocket/protocol/sessions/*.py",
    "core/pocket/protocol/transactions/*.py",
    "core/pocket/redis_store/*.py",
    "workloads/miner/pocket_miner/ingest/*.py",
    "workloads/miner/pocket_miner/sessions/*.py",
    "workloads/miner/pocket_miner/settlement/*.py",
    "workloads/miner/pocket_miner/storage/*.py",
    "workloads/miner/pocket_miner/submission/*.py",
    "workloads/miner/pocket_miner/suppliers/*.py",
    "workloads/relayer/pocket_relayer/pipeline/*.py",
)
OPERATORS = (
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_Lt_Gt",
    "ReplaceComparisonOperator_Gt_Lt",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_FloorDiv",
    "ReplaceBinaryOperator_FloorDiv_Mul",
    "ReplaceBinaryOperator_Mod_FloorDiv",
    "ReplaceUnaryOperator_Delete_Not",
    "AddNot",
    "NumberReplacer",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ZeroIterationForLoop",
)
TESTS_OF_A_MUTANT = 40
SECONDS = 90
VERDICTS = {
    0: Verdict.SURVIVED,
    TESTS_FAILED: Verdict.KILLED,
    NOT_COLLECTED: Verdict.KILLED,  # the module cannot be imported any more
    None: Verdict.TIMED_OUT,
}
_LOGGING = re.compile(r"^\s*(_LOG\.|logging\.)")


class RemoveStatement(Operator):  # type: ignore[misc]  # cosmic-ray publishes no types
    """Replaces a statement that is only a call, awaited or not, by `pass`."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield the position of each call that stands alone."""
        if node.type == "simple_stmt":
            first = node.children[0]
            if first.type == "atom_expr" and first.children[-1].type == "trailer":
                yield first.start_pos, first.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the statement without its call."""
        del index  # one position per statement
        first = node.children[0]
        node.children[0] = Keyword("pass", first.start_pos, prefix=first.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        """Return no examples: the tests have them."""
        return ()


@dataclass(frozen=True, slots=True)
class Generated:
    """The mutant that `operator` makes at its `occurrence` in `file`, on `line`."""

    file: str
    line: int
    operator: str
    occurrence: int


def operator_named(name: str) -> Operator:
    """Return an operator of cosmic-ray, or ours."""
    return RemoveStatement() if name == "RemoveStatement" else cosmic_ray.plugins.get_operator(f"core/{name}")()


def generate(file: str, source: str) -> list[Generated]:
    """Return all mutants of a module, without logging and documentation constants."""
    lines = source.splitlines()
    nodes = list(ast_nodes(get_ast(source)))
    found = []
    for name in (*OPERATORS, "RemoveStatement"):
        operator = operator_named(name)
        positions = [position for node in nodes for position in operator.mutation_positions(node)]
        found += [
            Generated(file, line, name, occurrence)
            for occurrence, ((line, _), _) in enumerate(positions)
            if not _LOGGING.match(lines[line - 1])
        ]
    return found


def changed_lines(revisions: str) -> set[tuple[str, int]]:
    """Return the lines that a git range adds or changes."""
    listed = subprocess.run(
        ["git", "diff", "--unified=0", revisions], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    found: set[tuple[str, int]] = set()
    file = ""
    for row in listed.splitlines():
        if row.startswith("+++ b/"):
            file = row[6:]
        elif match := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", row):
            first, count = int(match[1]), int(match[2] or 1)
            found |= {(file, line) for line in range(first, first + count)}
    return found


def cover() -> int:
    """Run all tests that need no cluster on the unmutated product.

    Returns the exit code of pytest.
    """
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("coverage*"):
        old.unlink()
    config = FOLDER / "coveragerc"
    config.write_text("[run]\nbranch = true\nsource_pkgs = pocket,pocket_miner,pocket_relayer\n")
    environment = {**os.environ, "COVERAGE_FILE": str(DATA)}
    parallel = ["-q", "-n", "auto", "--dist=worksteal"]
    coverage = ["--cov", f"--cov-config={config}", "--cov-context=test", "--cov-report="]
    command = [sys.executable, "-m", "pytest", *parallel, *coverage, "tests/unit", "tests/vectors", "tests/integration"]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def covering(data: CoverageData) -> dict[str, dict[int, list[str]]]:
    """Return the tests by file and line, those that touch the fewest lines first."""
    found: dict[str, dict[int, list[str]]] = {}
    weight: Counter[str] = Counter()
    for name in data.measured_files():
        try:
            file = str(Path(name).relative_to(ROOT))
        except ValueError:
            continue
        rows = data.contexts_by_lineno(name)
        found[file] = {
            line: sorted({context.split("|")[0] for context in contexts if "::" in context})
            for line, contexts in rows.items()
        }
        for tests in found[file].values():
            weight.update(tests)
    for lines in found.values():
        for tests in lines.values():
            tests.sort(key=lambda test: (not test.startswith("tests/unit"), weight[test]))
    return found


def judged(mutant: Generated, tests: list[str], copy: Path) -> tuple[Verdict, str]:
    """Return the verdict on a mutant and the line as it became."""
    target = copy / mutant.file
    original = target.read_text(encoding="utf-8")
    mutated = mutate_code(original, operator_named(mutant.operator), mutant.occurrence)
    if mutated is None:
        return Verdict.FAULTY, "the mutant cannot be made"
    shown = next((new for old, new in zip(original.splitlines(), mutated.splitlines(), strict=False) if old != new), "")
    if not tests:
        return Verdict.SURVIVED, f"{shown.strip()}    (no test runs this line)"
    target.write_text(mutated, encoding="utf-8")
    try:
        code, _ = run_tests(["--timeout=60", *tests[:TESTS_OF_A_MUTANT]], copy, SECONDS)
        return VERDICTS.get(code, Verdict.FAULTY), shown.strip()
    finally:
        target.write_text(original, encoding="utf-8")


def chosen(covered: dict[str, dict[int, list[str]]]) -> list[Generated]:
    """Return the mutants to judge, in a random order that SEED decides."""
    only, revisions = os.environ.get("ONLY", ""), os.environ.get("CHANGED", "")
    lines = changed_lines(revisions) if revisions else None
    files = [path for pattern in MONEY_PATH for path in sorted(ROOT.glob(pattern)) if path.name != "__init__.py"]
    mutants = [
        mutant
        for path in files
        if only in (name := str(path.relative_to(ROOT))) and name in covered
        for mutant in generate(name, path.read_text(encoding="utf-8"))
        if lines is None or (mutant.file, mutant.line) in lines
    ]
    random.Random(int(os.environ.get("SEED") or 1)).shuffle(mutants)  # noqa: S311 - a sample
    return mutants[: int(os.environ.get("SAMPLE") or len(mutants))]


def run() -> int:
    """Judge the mutants.

    Returns 1 if fewer than MIN_SCORE percent of the judged ones are killed.
    """
    data = CoverageData(str(DATA))
    data.read()
    covered = covering(data)
    mutants = chosen(covered)
    jobs = int(os.environ.get("JOBS") or os.cpu_count() or 1)

    def judge(mutant: Generated, copy: Path) -> tuple[Verdict, str]:
        return judged(mutant, covered[mutant.file].get(mutant.line, []), copy)

    counts: Counter[Verdict] = Counter()
    survivors = []
    with judging(judge, jobs) as results:
        for mutant, (verdict, shown) in zip(mutants, results(mutants), strict=True):
            counts[verdict] += 1
            if verdict is not Verdict.KILLED:
                survivors.append(f"{verdict}: {mutant.file}:{mutant.line} {mutant.operator}: {shown}")
                print(survivors[-1], flush=True)
    (FOLDER / "survivors.txt").write_text("\n".join([*survivors, ""]), encoding="utf-8")
    judged_ones = counts[Verdict.KILLED] + counts[Verdict.SURVIVED]
    score = 100 * counts[Verdict.KILLED] / judged_ones if judged_ones else 100.0
    summary = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    print(f"{len(mutants)} mutants: {summary}; {score:.1f} % of the judged ones killed")
    return 0 if score >= float(os.environ.get("MIN_SCORE") or 95) else 1


if __name__ == "__main__":
    sys.exit({"cover": cover, "run": run}[sys.argv[1]]())
