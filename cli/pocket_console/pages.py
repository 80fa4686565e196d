"""Render view models as HTML. Every text is escaped."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pocket_console import formatting
from pocket_console.assets import asset_url
from pocket_console.snapshot import Links

_FOLDER: Final = Path(__file__).parent / "templates"
_SAFE_LINKS: Final = ("http://", "https://")


def _link(template: str, **values: object) -> str:
    """Return an address outside of the console.

    The result is empty if there is none that a browser may follow.
    """
    if not template.startswith(_SAFE_LINKS):
        return ""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(str(value), safe=""))
    return template


def _with_query(query: Mapping[str, str], **changes: object) -> str:
    """Return a query string with some values changed.

    Empty values and page 1 are left out.
    """
    merged = {**query, **{name: str(value) for name, value in changes.items()}}
    kept = {name: value for name, value in merged.items() if value and (name, value) != ("page", "1")}
    return f"?{urlencode(kept)}" if kept else "?"


@cache
def environment() -> Environment:
    """Return the templates with their filters."""
    made = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "number": formatting.number, "amount": formatting.amount, "duration": formatting.duration,
        "ms": formatting.milliseconds, "size": formatting.size, "percent": formatting.percent,
        "short": formatting.short, "rate": formatting.rate, "part": lambda text: quote(str(text), safe=""),
    }  # fmt: skip
    made.globals |= {"asset": asset_url, "outside": _link, "with_query": _with_query}
    return made


def render(name: str, *, path: str, query: Mapping[str, str], links: Links, version: int, **values: Any) -> str:
    """Return a page. `path` and `query` are those of the request."""
    return environment().get_template(name).render(
        path=path, query=query, links=links, version=version, page=name.partition(".")[0], **values
    )  # fmt: skip
