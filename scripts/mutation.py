"""Generate mutants of the money path, and run the tests of each mutated line.

cosmic-ray makes the mutants.

    mutation.py cover                 run the tests once, unmutated, and note which test runs which line
    mutation.py run                   judge mutants; survivors are printed and written to .mutation/survivors.txt

`make test COVERAGE=1` notes the same: `run` uses the newer of both.

Environment of `run`: SAMPLE=<n> mutants drawn with SEED=<n> (all without it), ONLY=<text> in a file's path,
CHANGED=<git range> only lines that it changes, JOBS=<n>, MIN_SCORE=<percent> for exit code 0 (95).
A mutant that no test ends within its time is counted apart, neither killed nor survived.
"""

import ast
import contextlib
import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from coverage import CoverageData
from parso.python.tree import Keyword

from lua_mutants import callers, lua_changes
from mutants import NOT_COLLECTED, ROOT, TESTS_FAILED, Copy, Verdict, judging

FOLDER = ROOT / ".mutation"
DATA = FOLDER / "coverage"
DATA_OF_TESTS = ROOT / ".coverage"
MONEY_PATH = (
    "cli/relayctl/stake_commands.py",
    "core/pocket/chain/*.py",
    "core/pocket/chain_cache/*.py",
    "core/pocket/coordination/*.py",
    "core/pocket/protocol/claims/*.py",
    "core/pocket/protocol/crypto/*.py",
    "core/pocket/protocol/relays/*.py",
    "core/pocket/protocol/sessions/*.py",
    "core/pocket/protocol/smst/*.py",
    "core/pocket/protocol/transactions/*.py",
    "core/pocket/redis_store/*.py",
    "core/pocket/staking/*.py",
    "operator/pocket_operator/decide/*.py",
    "workloads/miner/pocket_miner/ingest/*.py",
    "workloads/miner/pocket_miner/sessions/*.py",
    "workloads/miner/pocket_miner/settlement/*.py",
    "workloads/miner/pocket_miner/storage/*.py",
    "workloads/miner/pocket_miner/submission/*.py",
    "workloads/miner/pocket_miner/suppliers/*.py",
    "workloads/relayer/pocket_relayer/backends/*.py",
    "workloads/relayer/pocket_relayer/limits/*.py",
    "workloads/relayer/pocket_relayer/pipeline/*.py",
    "workloads/relayer/pocket_relayer/transports/*.py",
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
TESTS_OF_A_MUTANT = (40, 120, 400)
"""How many tests are run: first the quick ones, then more if they do not fail."""
SECONDS = (90, 120, 120)
TEST_SECONDS = 40
COLUMNS = (Verdict.KILLED, Verdict.TIMED_OUT, Verdict.SURVIVED)
NOT_FOUND, NO_TESTS = 4, 5  # pytest's exit codes
VERDICTS = {
    0: Verdict.SURVIVED,
    TESTS_FAILED: Verdict.KILLED,
    NOT_COLLECTED: Verdict.KILLED,  # the module cannot be imported any more
    None: Verdict.TIMED_OUT,
}
_LOGGING = re.compile(r"_LOG\.|logging\.|miner_metrics\.ERRORS")
_GUARDS = re.compile(
    r"^@dataclass\(|ConfigDict\(|lru_cache\(|, strict=(True|False)\)|usedforsecurity=|hexdigest\(\)\[:|scrypt\("
)
_TUNED = 10
"""Constants of a module from here on are limits and durations, which no test should hold to the last digit."""
_CUT = re.compile(r"\[:\d{2,}\]|\btimedelta\(")
"""Lines that cut a text for people, or hold a duration."""


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
    """The mutant that `operator` makes at its `occurrence` in `file`, on `line`.

    One of a Lua `script` has the line as it becomes in `text`.
    """

    file: str
    line: int
    operator: str
    occurrence: int = 0
    script: str = ""
    text: str = ""

    def apply(self, source: str) -> str | None:
        """Return the changed module, None if that is no Python."""
        if self.script:
            lines = source.splitlines(keepends=True)
            lines[self.line - 1] = self.text + "\n"
            return "".join(lines)
        mutated: str | None = mutate_code(source, operator_named(self.operator), self.occurrence)
        with contextlib.suppress(SyntaxError):
            if mutated is not None and compile(mutated, self.file, "exec"):
                return mutated
        return None


def operator_named(name: str) -> Operator:
    """Return an operator of cosmic-ray, or ours."""
    return RemoveStatement() if name == "RemoveStatement" else cosmic_ray.plugins.get_operator(f"core/{name}")()


def generate(file: str, source: str) -> list[Generated]:
    """Return all mutants of a module.

    Logging, limits and what only guards against mistakes are left out.
    """
    tree = ast.parse(source)
    logging = set[int]().union(*(_lines(node) for node in ast.walk(tree) if _is_logging(node)))
    guards = {number for number, line in enumerate(source.splitlines(), start=1) if _GUARDS.search(line)}
    tuned = set[int]().union(*(_lines(node) for node in tree.body if _is_tuned(node)))
    tuned |= {number for number, line in enumerate(source.splitlines(), start=1) if _CUT.search(line)}
    nodes = list(ast_nodes(get_ast(source)))
    found = []
    for name in (*OPERATORS, "RemoveStatement"):
        operator = operator_named(name)
        positions = [position for node in nodes for position in operator.mutation_positions(node)]
        found += [
            Generated(file, line, name, occurrence)
            for occurrence, ((line, _), _) in enumerate(positions)
            if line not in logging and line not in guards and not (name == "NumberReplacer" and line in tuned)
        ]
    scripts = lua_changes(source)
    return found + [Generated(file, row.line, row.operator, 0, row.script, row.text) for row in scripts]


def _lines(node: ast.AST) -> range:
    """Return the lines of a statement."""
    return range(node.lineno, node.end_lineno + 1) if isinstance(node, ast.stmt) and node.end_lineno else range(0)


def _is_logging(node: ast.AST) -> bool:
    """Return True for a statement that only logs or counts errors."""
    return isinstance(node, ast.Expr) and _LOGGING.match(ast.unparse(node)) is not None


def _is_tuned(statement: ast.stmt) -> bool:
    """Return True for a constant of a module that is a limit or a duration."""
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    numbers = [node.value for node in ast.walk(value) if isinstance(node, ast.Constant)] if value is not None else []
    return any(isinstance(number, float) or (isinstance(number, int) and number >= _TUNED) for number in numbers)


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
    config.write_text(
        "[run]\nbranch = true\nsource_pkgs = pocket,pocket_miner,pocket_relayer,pocket_operator,relayctl\n"
    )
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
        for line, tests in lines.items():
            lines[line] = _each_function_first(sorted(tests, key=lambda test: weight[test]))
    return found


def _each_function_first(tests: list[str]) -> list[str]:
    """Return the tests with one of each function before the second of any.

    Those without processes come before others. A function may have hundreds of parameters, and its first ones notice
    most of what it notices.
    """
    seen: Counter[str] = Counter()
    ranked = []
    for test in tests:
        function = test.partition("[")[0]
        ranked.append((not test.startswith(("tests/unit", "tests/vectors")), seen[function], test))
        seen[function] += 1
    return [test for _, _, test in sorted(ranked, key=lambda row: row[:2])]


def judges_of(mutant: Generated, covered: dict[str, dict[int, list[str]]]) -> list[str]:
    """Return the tests that run a mutant's line, the quickest first.

    Of a statement over several lines, and of a constant, those of the lines that use it. Of a Lua script, those of the
    statements that run it.
    """
    lines = covered[mutant.file]
    sources = {
        file: (ROOT / file).read_text(encoding="utf-8") for file in ((mutant.file,) if not mutant.script else covered)
    }
    if mutant.script:
        rows = [covered[file].get(line, []) for file, line in callers(mutant.script, sources)]
        return _merged(rows)
    if tests := lines.get(mutant.line):
        return tests
    statement = _statement_at(ast.parse(sources[mutant.file]), mutant.line)
    if statement is None:
        return []
    if tests := _merged([lines.get(at, []) for at in range(statement.lineno, (statement.end_lineno or 0) + 1)]):
        return tests
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    users = re.compile("|".join(rf"\b{name}\b" for name in names) or "$^")
    texts = enumerate(sources[mutant.file].splitlines(), start=1)
    return _merged([lines.get(at, []) for at, text in texts if users.search(text)]) or _merged(list(lines.values()))


def _merged(rows: list[list[str]]) -> list[str]:
    """Return the tests of several lines, which are sorted alike, without repetitions."""
    return list(dict.fromkeys(test for pair in zip_longest(*rows) for test in pair if test is not None))


def _statement_at(tree: ast.AST, line: int) -> ast.stmt | None:
    """Return the smallest statement that holds a line."""
    holding = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return min(holding, key=lambda node: (node.end_lineno or node.lineno) - node.lineno, default=None)


def judged(mutant: Generated, tests: list[str], copy: Copy) -> tuple[Verdict, str]:
    """Return the verdict on a mutant and the line as it became."""
    target = copy.folder / mutant.file
    original = target.read_text(encoding="utf-8")
    mutated = mutant.apply(original)
    if mutated is None:
        return Verdict.FAULTY, "the mutant cannot be made"
    shown = next((new for old, new in zip(original.splitlines(), mutated.splitlines(), strict=False) if old != new), "")
    if not tests:
        return Verdict.SURVIVED, f"{shown.strip()}    (no test runs this line)"
    target.write_text(mutated, encoding="utf-8")
    try:
        return _verdict(tests, copy), shown.strip()
    finally:
        target.write_text(original, encoding="utf-8")


def _verdict(tests: list[str], copy: Copy) -> Verdict:
    """Run the tests of a mutant in parts, most mutants fail in the first one."""
    done = 0
    for count, seconds in zip(TESTS_OF_A_MUTANT, SECONDS, strict=True):
        part = tests[done:count]
        if not part:
            break
        code, output = _run(part, copy, seconds)
        if code is None and done:
            return Verdict.SURVIVED  # there were too many tests
        if code == NO_TESTS:  # all of them are long
            code = 0
        if code != 0:
            return Verdict.TIMED_OUT if f"Timeout (>{TEST_SECONDS}" in output else VERDICTS.get(code, Verdict.FAULTY)
        done = count
    return Verdict.SURVIVED


def _run(tests: list[str], copy: Copy, seconds: float) -> tuple[int | None, str]:
    """Run tests, by their functions if they have other parameters now.

    Returns pytest's exit code, NOT_COLLECTED for a module of tests that cannot be imported any more.
    """
    options = [f"--timeout={TEST_SECONDS}", "-m", "not long"]
    code, output = copy.tests.run([*options, *tests], seconds)
    if code == NOT_FOUND:
        functions = list(dict.fromkeys(test.partition("[")[0] for test in tests))
        code, output = copy.tests.run([*options, *functions], seconds)
    return NOT_COLLECTED if code == NOT_FOUND else code, output


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
    notes = [file for file in (DATA, DATA_OF_TESTS) if file.exists()]
    data = CoverageData(str(max(notes, key=lambda file: file.stat().st_mtime, default=DATA)))
    data.read()
    covered = covering(data)
    mutants = chosen(covered)
    jobs = int(os.environ.get("JOBS") or os.cpu_count() or 1)

    def judge(mutant: Generated, copy: Copy) -> tuple[Verdict, str]:
        return judged(mutant, judges_of(mutant, covered), copy)

    counts: Counter[Verdict] = Counter()
    by_file: dict[str, Counter[Verdict]] = defaultdict(Counter)
    survivors = []
    with judging(judge, jobs) as results:
        for mutant, (verdict, shown) in zip(mutants, results(mutants), strict=True):
            counts[verdict] += 1
            by_file[mutant.file][verdict] += 1
            if verdict is not Verdict.KILLED:
                survivors.append(f"{verdict}: {mutant.file}:{mutant.line} {mutant.operator}: {shown}")
                print(survivors[-1], flush=True)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "survivors.txt").write_text("\n".join([*survivors, ""]), encoding="utf-8")
    for file, rows in sorted(by_file.items()):
        print(f"| {file} | {rows.total()} | {' | '.join(str(rows[verdict]) for verdict in COLUMNS)} |")
    judged_ones = counts[Verdict.KILLED] + counts[Verdict.SURVIVED]
    score = 100 * counts[Verdict.KILLED] / judged_ones if judged_ones else 100.0
    summary = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    print(f"{len(mutants)} mutants: {summary}; {score:.1f} % of the judged ones killed")
    return 0 if score >= float(os.environ.get("MIN_SCORE") or 95) else 1


if __name__ == "__main__":
    sys.exit({"cover": cover, "run": run}[sys.argv[1]]())
