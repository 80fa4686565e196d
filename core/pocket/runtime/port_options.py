"""Types of options that name a port.

Only programs with a command line import this: it needs click.
"""

from typing import Final

import click

PORT: Final = click.IntRange(1, 65535)
PORT_OR_FREE: Final = click.IntRange(0, 65535)
