"""Run the inspection commands of `relayctl` inside a miner's pod."""

import click

from pocket_miner.console.inspect_commands import cache_group, inspect_group
from pocket_miner.console.ledger_commands import ledger


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Inspect a miner's volume and its Redis.

    In a pod, --config and --data have defaults.
    """


for group in (inspect_group, cache_group, ledger):
    main.add_command(group)

if __name__ == "__main__":
    main(prog_name="python -m pocket_miner.console")
