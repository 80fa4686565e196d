"""Check the English of docstrings, comments, messages and documents.

Code other than tests and documents use none of the words below. The first line of a docstring has no semicolon, and
outside of tests at most 80 characters.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ("core/", "operator/", "workloads/", "cli/", "native/", "benchmarks/", "scripts/", "hack/", "examples/")
BETTER = {
    "afresh": "again",
    "anew": "again",
    "beside": "in addition to, next to",
    "by itself": "automatically",
    "figures": "metrics, numbers",
    "hears": "receives",
    "is none": "is invalid",
    "lately": "recently",
    "look at": "check, poll, probe",
    "looks at": "checks, polls, probes",
    "nobody": "the noun",
    "says": "reports, names, describes",
    "somebody": "the noun",
    "taken up": "applied",
    "tells": "reports, returns",
    "told": "reported, published",
    "whoever": "the noun",
}
MAX_FIRST_LINE = 80
"""Characters of a docstring's first line, without quotes and indentation."""
_ALLOWED = r"there\s+is\s+none|is\s+None"
_UNWANTED = "|".join(BETTER).replace(" ", r"\s+")
_WORD = re.compile(rf"\b(?:(?-i:{_ALLOWED})|({_UNWANTED}))\b", re.IGNORECASE)
_GENERATED = re.compile(r"<!-- begin planted faults -->.*<!-- end planted faults -->", re.DOTALL)


def _words(text: str, line: int) -> Iterator[tuple[int, str]]:
    for match in _WORD.finditer(text):
        if match[1] is not None:
            word = " ".join(match[1].lower().split())
            yield line + text.count("\n", 0, match.start()), f"{word!r}: write {BETTER[word]}"


def _docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield docstrings, also those below attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def semicolons(source: str) -> list[tuple[int, str]]:
    """Return the docstrings of a module whose first line has a semicolon, by line."""
    return [
        (node.lineno, "semicolon in the first line of a docstring: write two sentences")
        for node in _docstrings(ast.parse(source))
        if ";" in str(node.value).strip().partition("\n")[0]
    ]


def long_first_lines(source: str) -> list[tuple[int, str]]:
    """Return the modules, classes and functions whose docstring begins too long."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            length = len((ast.get_docstring(node) or "").partition("\n")[0])
            if length > MAX_FIRST_LINE:
                found.append((node.body[0].lineno, f"docstring begins with {length} characters: write a short one"))
    return found


def words_of_source(source: str) -> list[tuple[int, str]]:
    """Return the unwanted words of a module, by line.

    They are those of docstrings, comments and texts.
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += _words(node.value, node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found += _words(token.string, token.start[0])
    return sorted(found)


def words_of_document(text: str) -> list[tuple[int, str]]:
    """Return the unwanted words of a document, by line.

    The generated table of planted faults is left out: it holds the names of faults.
    """
    return list(_words(_GENERATED.sub(lambda table: "\n" * table[0].count("\n"), text), 1))


def problems_of(name: str, text: str) -> list[str]:
    """Return what is wrong with the English of a file, one line each."""
    found: list[tuple[int, str]] = []
    if name.endswith(".md"):
        found += words_of_document(text)
    else:
        found += semicolons(text)
        if name.startswith(CHECKED) and name != "scripts/check_prose.py":
            found += long_first_lines(text) + words_of_source(text)
    return [f"{name}:{line}: {problem}" for line, problem in sorted(found)]


def main() -> int:
    """Print the problems of all files that are tracked or not ignored.

    Returns 1 if there are any.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.md"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    names = [name for name in listed if "_pb2" not in name and (ROOT / name).exists()]
    found = [row for name in names for row in problems_of(name, (ROOT / name).read_text(encoding="utf-8"))]
    print("\n".join(found) or f"{len(names)} files in plain English")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
