"""Check that the tests, metrics and alerts named by documents exist.

The documents are docs/fragile and docs/hardening.md.
"""

import re
import sys
from pathlib import Path

from pocket_operator.resources.monitoring import ALERTS

ROOT = Path(__file__).resolve().parent.parent
_HARDENING = ROOT / "docs/hardening.md"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def problems() -> list[str]:
    """Return what is wrong with the pages of docs/fragile, one sentence each."""
    found = []
    for page in sorted((ROOT / "docs/fragile").glob("*.md")):
        if page.name == "index.md":
            continue
        named = _NAMED.findall(page.read_text(encoding="utf-8"))
        if not named:
            found.append(f"{page.name}: names no test")
        for path, test in named:
            file = ROOT / path
            if not file.exists() or f"def {test}(" not in file.read_text(encoding="utf-8"):
                found.append(f"{page.name}: {path}::{test} does not exist")
    return found


_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_LOSS = re.compile(r"^\| ([a-z_ ]+) \| [^|]+ \| `(\w+)` \|[^|]+\| (\w+) \|$", re.MULTILINE)


def _defects(text: str) -> list[tuple[str, str]]:
    """Return each defect of the page and what shows its absence."""
    tables = text.partition("## Defects\n")[2].partition("## Faults")[0]
    return [(defect, shown) for defect, _, shown in _ROW.findall(tables) if defect not in ("defect", "--")]


def _alert_problem(loss: str, metric: str, alert: str) -> str | None:
    """Return why an alert cannot fire for a loss.

    Returns None if it can, or if the page names no alert.
    """
    if alert == "none":
        return None
    expression = next((row.expression for row in ALERTS if row.name == alert), None)
    if expression is None:
        return f"{alert} does not exist"
    if metric not in expression:
        return f"{alert} does not use {metric}"
    outcomes = re.search(r'outcome=~"([^"]+)"', expression)
    if outcomes is not None and loss not in outcomes[1].split("|"):
        return f"{alert} does not fire for this outcome"
    return None


def hardening_problems(text: str | None = None) -> list[str]:
    """Return what is wrong with docs/hardening.md.

    A test, metric or alert does not exist, or cannot fire.
    """
    text = _HARDENING.read_text(encoding="utf-8") if text is None else text
    found = [f"hardening.md: {defect!r} names neither a test nor a design" for defect, shown in _defects(text)
             if "`tests/" not in shown and "design:" not in shown]  # fmt: skip
    for path, test in _NAMED.findall(text):
        file = ROOT / path
        if not file.exists() or f"def {test}(" not in file.read_text(encoding="utf-8"):
            found.append(f"hardening.md: {path}::{test} does not exist")
    metrics = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    runbook = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    for loss, metric, alert in _LOSS.findall(text):
        if f"`{metric}`" not in metrics:
            found.append(f"hardening.md: {loss}: metric {metric} does not exist")
        problem = _alert_problem(loss, metric, alert)
        if problem is not None:
            found.append(f"hardening.md: {loss}: {problem}")
        if alert != "none" and f"## {alert}\n" not in runbook:
            found.append(f"hardening.md: {loss}: {alert} has no entry in runbook.md")
    return found


def losses() -> set[str]:
    """Return the names of everything that can cost money.

    docs/hardening.md lists them.
    """
    return {row[0] for row in loss_rows()}


def loss_rows() -> list[tuple[str, str, str]]:
    """Return loss, metric and alert ("none" without one) of each row."""
    return _LOSS.findall(_HARDENING.read_text(encoding="utf-8"))


if __name__ == "__main__":
    rows = problems() + hardening_problems()
    print("\n".join(rows) or "every fragile area and every known defect names tests that exist")
    sys.exit(1 if rows else 0)
