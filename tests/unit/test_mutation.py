"""Which mutants are made of a module, and which tests judge them."""

import pytest

from lua_mutants import callers, lua_changes
from mutants import ROOT, Copy, Verdict
from mutation import MONEY_PATH, Generated, _each_function_first, _verdict, generate, judges_of

SOURCE = '''
import structlog

_LOG = structlog.get_logger()
_SECONDS = 30.0
_ENOUGH = 2
_PAUSE = timedelta(seconds=4)


async def act(height, close):
    """Act in time."""
    if height < close:
        await send(
            height + 1,
        )
        _LOG.info(
            "sent", height=height + 1,
        )
    text = str(height)[:40]
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return height >= _ENOUGH
'''


def test_each_comparison_number_and_call_is_mutated_but_no_log_and_no_limit():
    made = generate("module.py", SOURCE)
    lines = SOURCE.splitlines()
    shown = {(mutant.operator, mutant.apply(SOURCE).splitlines()[mutant.line - 1].strip()) for mutant in made}
    assert ("ReplaceComparisonOperator_Lt_LtE", "if height <= close:") in shown
    assert ("AddNot", "if not height < close:") in shown
    assert ("RemoveStatement", "pass") in shown
    assert ("ReplaceBinaryOperator_Add_Sub", "height - 1,") in shown
    numbers = {lines[mutant.line - 1].strip() for mutant in made if mutant.operator == "NumberReplacer"}
    assert numbers == {"_ENOUGH = 2", "height + 1,"}, "no limit, pause, cut of a text or length of a digest"
    assert not any("sent" in lines[mutant.line - 1] for mutant in made)


LUA = '''
FIRST_SOURCE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] and not found then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
"""
FIRST: Final = Script(FIRST_SOURCE)


async def run(redis):
    await FIRST.run(redis, ["key"], [])
'''


def test_each_condition_number_and_call_of_a_script_is_changed():
    made = {(row.operator, row.text) for row in lua_changes(LUA)}
    line = "if redis.call('GET', KEYS[1]) == ARGV[1] and not found then return 0 end"
    assert {
        ("Lua_Eq_NotEq", line.replace("==", "~=")), ("Lua_And_Or", line.replace("and", "or")),
        ("Lua_Delete_Not", line.replace("not ", "")), ("Lua_Number", line.replace("return 0", "return 1")),
        ("Lua_Number", line.replace("KEYS[1]", "KEYS[2]")), ("Lua_Remove_Call", " "),
    } <= made  # fmt: skip
    assert callers("FIRST_SOURCE", {"module.py": LUA}) == [("module.py", 10)]


def test_every_script_of_the_money_path_has_callers_and_mutants():
    files = [path for pattern in MONEY_PATH for path in ROOT.glob(pattern)]
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in files}
    scripts = {row.script for source in sources.values() for row in lua_changes(source)}
    assert {"APPEND_SOURCE", "STATES_SOURCE", "_FENCE", "SEAL_SOURCE", "FINISH_SOURCE", "_CHARGE", "_REFUND"} <= scripts
    assert all(callers(script, sources) for script in scripts)


def test_a_mutant_is_judged_by_the_tests_of_its_line_its_statement_or_what_uses_its_constant():
    file = "core/pocket/chain/votes.py"
    lines = (ROOT / file).read_text().splitlines()
    used = next(n for n, text in enumerate(lines, 1) if "highest >= _ENOUGH" in text)
    defined = next(n for n, text in enumerate(lines, 1) if text.startswith("_ENOUGH"))
    covered = {file: {used: ["a", "b"], used - 1: ["c"]}}
    assert judges_of(Generated(file, used, "AddNot"), covered) == ["a", "b"]
    assert judges_of(Generated(file, defined, "NumberReplacer"), covered) == ["a", "b"]
    script = next(row for row in lua_changes((ROOT / "core/pocket/redis_store/redis_leases.py").read_text()))
    leases = "core/pocket/redis_store/redis_leases.py"
    run = next(n for n, text in enumerate((ROOT / leases).read_text().splitlines(), 1) if "_WRITE.run(" in text)
    covered = {leases: {run: ["w"]}}
    assert judges_of(Generated(leases, script.line, script.operator, 0, script.script, script.text), covered) == ["w"]


def test_each_test_function_judges_a_mutant_before_another_has_judged_it_twice():
    quick_first = ["tests/unit/a.py::a[1]", "tests/unit/a.py::a[2]", "tests/integration/c.py::c",
                   "tests/unit/a.py::a[3]",
                   "tests/unit/b.py::b[1]", "tests/vectors/d.py::d", "tests/unit/b.py::b[2]"]  # fmt: skip
    assert _each_function_first(quick_first) == [
        "tests/unit/a.py::a[1]", "tests/unit/b.py::b[1]", "tests/vectors/d.py::d", "tests/unit/a.py::a[2]",
        "tests/unit/b.py::b[2]", "tests/unit/a.py::a[3]", "tests/integration/c.py::c",
    ]  # fmt: skip


@pytest.mark.parametrize(("functions", "verdict"), [(0, Verdict.SURVIVED), (1, Verdict.KILLED), (4, Verdict.KILLED)])
def test_a_mutant_that_changes_parameters_or_the_import_of_tests_is_judged_by_their_functions(functions, verdict):
    asked = []

    class Tests:
        def run(self, arguments, seconds):
            asked.append([argument for argument in arguments if "::" in argument])
            return (4 if len(asked) == 1 else functions), "(no match in any of [<Module t.py>])"

    assert _verdict(["t.py::a[1]", "t.py::a[2]", "t.py::b"], Copy(ROOT, Tests())) is verdict
    assert asked == [["t.py::a[1]", "t.py::a[2]", "t.py::b"], ["t.py::a", "t.py::b"]]
