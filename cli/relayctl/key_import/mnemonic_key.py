"""Derive keys from a mnemonic: the words by BIP-39, the path by BIP-32 and BIP-44."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from typing import Final

from pocket.protocol.crypto.addresses import Address, address_of
from pocket.protocol.crypto.curve import N
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.key_import.import_errors import KeyImportError, library

COSMOS_PATH: Final = "m/44'/118'/0'/0/0"
_HARDENED: Final = 1 << 31
_PATH: Final = re.compile(r"m(/\d{1,10}'?)+", re.ASCII)
_LENGTHS: Final = (12, 15, 18, 21, 24)


def parse_path(text: str) -> tuple[int, ...]:
    """Return the indexes of a path such as m/44'/118'/0'/0/0, hardened ones from 2^31.

    Raises KeyImportError.
    """
    if not _PATH.fullmatch(text):
        raise KeyImportError(f"{text[:60]!r} is not a derivation path: expected for example {COSMOS_PATH}")
    indexes = []
    for part in text.split("/")[1:]:
        number = int(part.removesuffix("'"))
        if number >= _HARDENED:
            raise KeyImportError(f"{text[:60]}: {number} is too large for a derivation path")
        indexes.append(number + _HARDENED * part.endswith("'"))
    return tuple(indexes)


def following(path: str, count: int) -> Iterator[str]:
    """Yield a path and those whose last index follows."""
    parse_path(path)
    head, _, last = path.rpartition("/")
    mark = "'" if last.endswith("'") else ""
    for number in range(count):
        yield f"{head}/{int(last.removesuffix(mark) if mark else last) + number}{mark}"


def seed_of(words: str, passphrase: str = "") -> bytes:
    """Return the seed of English words after checking them.

    Raises KeyImportError, which never names a word.
    """
    mnemonic = library("mnemonic").Mnemonic("english")
    text = " ".join(words.split()).lower()
    number = len(text.split())
    if number not in _LENGTHS:
        raise KeyImportError(f"a mnemonic has 12, 15, 18, 21 or 24 words, this one has {number}")
    if unknown := [n for n, word in enumerate(text.split(), start=1) if word not in mnemonic.wordlist]:
        raise KeyImportError(f"word {unknown[0]} of the mnemonic is not in the English list of BIP-39")
    if not mnemonic.check(text):
        raise KeyImportError("the mnemonic's checksum is wrong: a word is another one or in another place")
    seed: bytes = mnemonic.to_seed(text, passphrase)
    return seed


def derive(seed: bytes, path: str) -> PrivateKey:
    """Return the key of a seed at a path. Raises KeyImportError."""
    key, chain = _split(hmac.digest(b"Bitcoin seed", seed, hashlib.sha512))
    for index in parse_path(path):
        parent = PrivateKey(key.to_bytes(32, "big"))
        start = b"\x00" + key.to_bytes(32, "big") if index >= _HARDENED else parent.public_key
        number, chain = _split(hmac.digest(chain, start + index.to_bytes(4, "big"), hashlib.sha512))
        key = (number + key) % N
        if not key or number >= N:
            raise KeyImportError(f"no key exists at {path}: take the next index")
    return PrivateKey(key.to_bytes(32, "big"))


def _split(digest: bytes) -> tuple[int, bytes]:
    return int.from_bytes(digest[:32], "big"), digest[32:]


def read_mnemonic(words: str, paths: Iterator[str], passphrase: str = "") -> dict[Address, PrivateKey]:
    """Return the keys of a mnemonic at the paths by address. Raises KeyImportError."""
    seed = seed_of(words, passphrase)
    keys = [derive(seed, path) for path in paths]
    return {address_of(key.public_key): key for key in keys}
