"""Read the heads of audit trails that an operator published."""

import click

from pocket_miner.storage.audit import AuditHead


def parse_published_heads(text: str) -> list[AuditHead]:
    """Return the heads in lines of date, number and hash. Raises ClickException."""
    heads = []
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), start=1):
        match line.split():
            case [_, entry, link] if entry.isdecimal() and len(link) == 64:
                heads.append(AuditHead(int(entry), link))
            case _:
                raise click.ClickException(f"line {number} of the published heads: expected date, number and hash")
    return heads
