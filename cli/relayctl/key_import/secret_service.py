"""Read keys of a Cosmos SDK keyring from a desktop's Secret Service.

The backend `os` stores them there. GNOME Keyring, KeePassXC and newer KWallets offer that service. Each key is an item
with the attribute `profile` and the value `<name>.info`. `secret-tool` of libsecret prints its secret: the JSON that
the other backends encrypt.
"""

import subprocess
from collections.abc import Sequence
from typing import Final

from pocket.protocol.crypto.addresses import Address, address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.key_import.cosmos_keyring import decoded_key
from relayctl.key_import.import_errors import KeyImportError

_SECONDS: Final = 120.0  # the desktop may prompt for the password of its keyring


def read_secret_service(names: Sequence[str], program: str = "secret-tool") -> dict[Address, PrivateKey]:
    """Return the named keys by address.

    Raises KeyImportError for one that is not there or has no private part.
    """
    keys = (decoded_key(f"key {name} of the desktop's keyring", _secret(name, program)) for name in names)
    return {address_of(key.public_key): key for key in keys}


def _secret(name: str, program: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - the name is one argument, which no shell reads
            [program, "lookup", "profile", f"{name}.info"], capture_output=True, check=False, timeout=_SECONDS
        )
    except FileNotFoundError:
        raise KeyImportError(
            f"{program} is not installed, which reads a desktop's keyring: install libsecret-tools (Debian, Ubuntu) or "
            "libsecret (Fedora, Arch)"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KeyImportError(f"{program}: {type(error).__name__}. Is the keyring's password prompt open?") from None
    if done.returncode or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise KeyImportError(
            f"no key {name} in the desktop's keyring, or it is locked{f': {reason[0]}' if reason else ''}"
        )
    return done.stdout
