"""Print rows as a table, JSON or YAML, as kubectl does."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import yaml

Row = Mapping[str, Any]


class OutputFormat(StrEnum):
    """The values of the option -o."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def rendered(rows: Sequence[Row], form: OutputFormat, columns: Sequence[str], wide: Sequence[str] = ()) -> str:
    """Return rows as text.

    A table has the `columns`, and with `wide` those in addition. JSON and YAML have every field.
    """
    match form:
        case OutputFormat.JSON:
            return json.dumps([dict(row) for row in rows], indent=2)
        case OutputFormat.YAML:
            return yaml.safe_dump([dict(row) for row in rows], sort_keys=False, width=120).rstrip()
        case OutputFormat.TABLE | OutputFormat.WIDE:
            return table(rows, [*columns, *(wide if form is OutputFormat.WIDE else ())])


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return rows as a table with a line of headings."""
    if not rows:
        return "No resources found."
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(name), *(len(line[n]) for line in cells)) for n, name in enumerate(columns)]
    heads = [name.upper().replace("_", " ") for name in columns]
    return "\n".join(
        "   ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)).rstrip() for line in (heads, *cells)
    )


def cell(value: Any) -> str:
    """Return the text of a cell, `-` for an unknown or empty value."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
