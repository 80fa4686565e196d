"""The messages that docs/troubleshoot.md explains are messages of the product."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Put together from a code, a name or a phase, so that no source line has them as one text.
COMPOSED = {
    "starting: opening",
    "block_results: no chain node answered (…)",
}


def source_text():
    """Return the product's source with joined string literals and … for the values of f-strings."""
    folders = ("core", "cli", "operator", "workloads")
    text = "\n".join(path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return re.sub(r"\{[^{}\n]*\}|%[sd]", "…", re.sub(r'"\s*\n\s*f?"', "", text))


def quoted_messages():
    """Messages of the second table, without its outcomes and transaction codes."""
    table = (ROOT / "docs/troubleshoot.md").read_text().partition("## By message")[2]
    for row in table.splitlines():
        cell = row.partition("|")[2].partition(" | ")[0]
        if not cell.strip().startswith("outcome"):
            yield from (text for text in re.findall(r"`([^`]+)`", cell) if not text.startswith(("/", "code ")))


def fragments(message):
    """Return the fixed parts of a message, between its placeholders."""
    parts = re.split(r"….damaged-N|…|\b[NMP]\b|HOST|'x'|'y'|\b\d+\b|\(…\)|[()]", message)
    return [part.strip(" :") for part in parts if len(part.strip(" :")) > 5]


def test_every_message_that_the_troubleshooting_page_quotes_exists():
    source, messages = source_text(), [text for text in quoted_messages() if text not in COMPOSED]
    assert len(messages) > 30
    assert [text for text in messages if any(part not in source for part in fragments(text))] == []
