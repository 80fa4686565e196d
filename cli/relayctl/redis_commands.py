"""Define `relayctl redis`: what an administrator of Redis enters."""

import click

from pocket.errors import ConfigurationError
from pocket.redis_store.acl import CLUSTER, INSPECTION, RELAYS, SENTINEL, set_user
from pocket.redis_store.redis_keys import RedisKeys


@click.group(name="redis")
def redis_group() -> None:
    """Prepare a Redis."""


@redis_group.command()
@click.option("--prefix", required=True, help="Prefix of the keys: spec.prefix, <namespace>-<name> by default.")
@click.option("--user", default="relays", show_default=True, help="Name of the user.")
@click.option("--cluster", is_flag=True, help="For a Redis Cluster.")
@click.option("--inspect", is_flag=True, help="For `relayctl inspect` and `relayctl cache` instead of the processes.")
def acl(prefix: str, user: str, *, cluster: bool, inspect: bool) -> None:
    """Print the commands that create a user with the least rights.

    Enter them in redis-cli on every server, add a password (`ACL SETUSER NAME >PASSWORD`), and save them with ACL SAVE
    or CONFIG REWRITE.
    """
    commands = [*(INSPECTION if inspect else RELAYS), *(("publish", "incr", "evalsha", "eval") if inspect else ())]
    commands += CLUSTER if cluster else ()
    try:
        click.echo(set_user(user, RedisKeys(prefix).prefix, commands))
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"# on Sentinels that have users: {sentinel_user(user)}", err=True)


def sentinel_user(user: str) -> str:
    """Return the command for Sentinels, which know no keys."""
    return " ".join(["ACL SETUSER", user, "on", "-@all", *(f"+{name}" for name in SENTINEL)])
