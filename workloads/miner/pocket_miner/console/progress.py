"""Show how far a long command is, on terminals only."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

Advance = Callable[[int], None]


def silent(_: int) -> None:
    """Show nothing."""


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Yield a function that reports how much more of the total is done.

    The bar with the remaining time is drawn on standard error, if that is a terminal.
    """
    if not sys.stderr.isatty():
        yield silent
        return
    with click.progressbar(length=max(1, total), label=label, file=sys.stderr, show_eta=True) as bar:
        yield bar.update
