"""Checks of options: addresses, and names that the API server accepts."""

import re
from typing import Final

import click

from pocket.errors import InvalidAddress
from pocket.protocol.crypto.addresses import parse_address

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST_LABEL: Final = 63
_LONGEST_NAME: Final = 253


def object_name(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Return the name of an object.

    Raises BadParameter with the rule for one that the API server refuses.
    """
    if value is None or (len(value) <= _LONGEST_NAME and all(map(_LABEL.fullmatch, value.split(".")))):
        return value
    raise click.BadParameter(
        f"{value!r}: write at most {_LONGEST_NAME} lower case letters, digits and - inside, and dots between them"
    )


def namespace_name(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """Return the name of a namespace, which has no dots.

    Raises BadParameter with the rule for another.
    """
    if len(value) <= _LONGEST_LABEL and _LABEL.fullmatch(value):
        return value
    raise click.BadParameter(f"{value!r}: write at most {_LONGEST_LABEL} lower case letters, digits and - inside")


def account_address(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Return an address that nodes accept.

    Raises BadParameter for any other, before a node is queried.
    """
    if value is None:
        return value
    try:
        parse_address(value)
    except InvalidAddress as error:
        raise click.BadParameter(str(error)) from None
    return value
