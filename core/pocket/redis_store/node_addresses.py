"""Addresses of Redis servers in URLs that name several."""

import re
from urllib.parse import unquote

Address = tuple[str, int]
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s,:@/\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


def parse_addresses(text: str, default_port: int) -> tuple[Address, ...]:
    """Parse `host[:port],host[:port]`.

    Raises ValueError.
    """
    return tuple(_parse(part, default_port) for part in text.split(","))


def _parse(text: str, default_port: int) -> Address:
    match = _HOST.fullmatch(text)
    port = int(match["port"] or default_port) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError("the address of a server is host or host:port")
    return unquote(match["host"]).strip("[]"), port


def format_address(address: Address) -> str:
    """Return host:port as in a URL."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def format_addresses(addresses: tuple[Address, ...]) -> str:
    """Return host:port,host:port as in a URL."""
    return ",".join(map(format_address, addresses))
