"""Expand the folders that the navigation of mkdocs.yml names into their pages."""

from pathlib import Path
from typing import Any

INDEX = ("index.md", "README.md")


def expanded(nav: list[Any], docs: Path) -> list[Any]:
    """Return the navigation with each entry `folder/` replaced by its pages.

    The index comes first.
    """
    rows: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            ((title, value),) = entry.items()
            rows.append({title: expanded(value, docs) if isinstance(value, list) else value})
        elif isinstance(entry, str) and entry.endswith("/"):
            pages = (docs / entry).glob("*.md")
            names = sorted((page.name for page in pages), key=lambda name: (name not in INDEX, name))
            rows += [f"{entry}{name}" for name in names]
        else:
            rows.append(entry)
    return [row for row in rows if not (isinstance(row, dict) and row[next(iter(row))] == [])]


def on_config(config: Any) -> Any:
    """Run by MkDocs once it has read mkdocs.yml."""
    config["nav"] = expanded(config["nav"], Path(config["docs_dir"]))
    return config
