"""Generate mutants of the Lua scripts that are constants in Python modules."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_CHANGES: tuple[tuple[str, str, str | Callable[[re.Match[str]], str]], ...] = (
    ("Lua_Eq_NotEq", r"==", "~="),
    ("Lua_NotEq_Eq", r"~=", "=="),
    ("Lua_LtE_Lt", r"<=", "<"),
    ("Lua_Lt_LtE", r"(?<=\s)<(?=\s)", "<="),
    ("Lua_GtE_Gt", r">=", ">"),
    ("Lua_Gt_GtE", r"(?<=\s)>(?=\s)", ">="),
    ("Lua_And_Or", r"\band\b", "or"),
    ("Lua_Or_And", r"\bor\b", "and"),
    ("Lua_Delete_Not", r"\bnot\s", ""),
    ("Lua_Add_Sub", r"(?<=\w\s)\+(?=\s\w)", "-"),
    ("Lua_True_False", r"\btrue\b", "false"),
    ("Lua_Number", r"(?<![\w'%.])\d+(?![\w'])", lambda match: str(int(match[0]) + 1)),
    ("Lua_Remove_Call", r"(?:(?<=^)|(?<=then)|(?<=;)|(?<=do))\s*redis\.call\([^;\n]*?\)(?=\s*$|\s+end|\s*;)", " "),
)


@dataclass(frozen=True, slots=True)
class LuaChange:
    """A change of one line of a script. `script` is the name of the constant."""

    script: str
    line: int
    operator: str
    text: str
    """The line as it becomes."""


def lua_changes(source: str) -> Iterator[LuaChange]:
    """Yield all changes of the scripts in a module."""
    lines = source.splitlines()
    for name, first, last in _scripts(source):
        for number in range(first, last + 1):
            line = lines[number - 1]
            for operator, pattern, becomes in _CHANGES:
                for match in re.finditer(pattern, line):
                    new = becomes if isinstance(becomes, str) else becomes(match)
                    yield LuaChange(name, number, operator, line[: match.start()] + new + line[match.end() :])


def _scripts(source: str) -> Iterator[tuple[str, int, int]]:
    """Yield (name, first line, last line) of the Lua texts of a module."""
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "redis." in node.value:
                # A text in three quotes begins and ends with a line of its own.
                several = node.lineno != (node.end_lineno or node.lineno)
                yield statement.target.id, node.lineno + several, (node.end_lineno or node.lineno) - several


def callers(script: str, sources: dict[str, str]) -> list[tuple[str, int]]:
    """Return (file, line) of the statements that run a script.

    Of a part that several begin with, any of these scripts counts.
    """
    name = script.removesuffix("_SOURCE")
    for pattern in (rf"\b{name}\.(?:run|queue)\(", r"\b[A-Z_]+\.(?:run|queue)\("):
        found = [
            (file, number)
            for file, source in sources.items()
            for number, line in enumerate(source.splitlines(), start=1)
            if re.search(pattern, line)
        ]
        if found:
            return found
    return []
