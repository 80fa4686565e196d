"""Run the console or its terminal view in a container.

Usage: `python -m pocket_console console --direct`.
"""

import click

from pocket_console.commands import console, top


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Show relayers and miners."""


main.add_command(console)
main.add_command(top)

if __name__ == "__main__":
    main()
