"""Run a command line so that errors of the operating system end it in words."""

import sys
from collections.abc import Callable

from pocket.errors import system_reason


def run_in_words(command: Callable[[], None]) -> None:
    """Run a command, and report file errors as messages.

    An error of a file that the command does not handle, such as a full output, ends it with code 1.
    """
    try:
        command()
    except OSError as error:
        sys.exit(f"Error: {error.filename or 'output'}: {system_reason(error)}")
