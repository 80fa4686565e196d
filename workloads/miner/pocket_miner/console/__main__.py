"""`python -m pocket_miner.console`: inspect the ledger from inside a miner's pod, as `relayctl` does."""

import click

from pocket_miner.console.inspect_commands import cache_group, inspect_group
from pocket_miner.console.ledger_commands import ledger


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Look at a miner's volume and at its Redis; in a pod, --config and --data are known."""


for group in (inspect_group, cache_group, ledger):
    main.add_command(group)

if __name__ == "__main__":
    main(prog_name="python -m pocket_miner.console")
