"""Seal supplier keys to the operator or to a key of their namespace.

A sealed key is bound to one Supplier (docs/suppliers.md). A sealed key is base64 of `PKS1`, eight bytes that identify
the sealing key, and a NaCl sealed box. The box holds version, namespace, name, address and key. All of them are
compared after opening, so a sealed text cannot be moved to another Supplier.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

_MAGIC = b"PKS1"
_ID_BYTES = 8
_BOX_OVERHEAD = 48
SECRET_OF_NAMESPACE: Final = "pocket-sealing"  # noqa: S105 - a name
"""The Secret with a namespace's own sealing keys: each entry base64 of 32 bytes, newest last by name.

It grants no additional access: a reader of the Secret can read the merged keys in the same namespace as well.
"""


class SealError(Exception):
    """A sealed key cannot be used. The message never quotes its content."""


class UnknownController(SealError):
    """The key is sealed to a key that neither this operator nor the namespace has."""


class SealedForAnother(SealError):
    """The key is sealed for another namespace, name or address."""


def key_id(public: bytes) -> str:
    """Return the sixteen hex digits that identify a sealing key."""
    return hashlib.sha256(public).hexdigest()[: 2 * _ID_BYTES]


@dataclass(frozen=True, slots=True)
class Subject:
    """The Supplier that a key is sealed for."""

    namespace: str
    name: str
    address: str


def seal(public: bytes, subject: Subject, key_hex: str) -> str:
    """Return the text for spec.key.sealed. Raises SealError."""
    plain = {
        "version": 1, "namespace": subject.namespace, "name": subject.name, "address": subject.address, "key": key_hex,
    }  # fmt: skip
    try:
        box = SealedBox(PublicKey(public)).encrypt(json.dumps(plain, sort_keys=True).encode())
    except (CryptoError, ValueError, TypeError) as error:
        raise SealError("the controller's public key must be 32 bytes") from error
    return base64.b64encode(_MAGIC + bytes.fromhex(key_id(public)) + box).decode()


@dataclass(frozen=True, slots=True)
class Controller:
    """Sealing keys of the operator, or of a namespace, newest last."""

    keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def of(cls, keys: Iterable[bytes]) -> "Controller":
        """Create from raw private keys of 32 bytes. Raises SealError."""
        rows = tuple(keys)
        if any(len(row) != PrivateKey.SIZE for row in rows):
            raise SealError("a sealing key must be 32 bytes")
        return cls(rows)

    @classmethod
    def of_texts(cls, entries: Mapping[str, str]) -> "Controller":
        """Create from base64 texts by name, as in `SECRET_OF_NAMESPACE`.

        Invalid entries are left out.
        """
        rows = (_decoded(text) for _, text in sorted(entries.items()))
        return cls(tuple(row for row in rows if len(row) == PrivateKey.SIZE))

    @staticmethod
    def generate() -> bytes:
        """Generate a private key."""
        return bytes(PrivateKey.generate())

    @property
    def publics(self) -> tuple[bytes, ...]:
        """Return the public keys in the same order."""
        return tuple(bytes(PrivateKey(key).public_key) for key in self.keys)

    @property
    def newest(self) -> bytes:
        """Return the public key to seal with. Raises SealError without any key."""
        if not self.keys:
            raise SealError("there is no sealing key yet: wait until the operator has created one")
        return self.publics[-1]

    def knows(self, text: str) -> bool:
        """Return True if a text is sealed to one of these keys."""
        try:
            identity, _ = _split_sealed(text)
        except SealError:
            return False
        return any(key_id(public) == identity for public in self.publics)

    def open(self, text: str, subject: Subject) -> str:
        """Open a sealed key and return it as hex.

        Raises SealError without any of the content.
        """
        identity, box = _split_sealed(text)
        for private, public in zip(self.keys, self.publics, strict=True):
            if key_id(public) != identity:
                continue
            try:
                plain = json.loads(SealedBox(PrivateKey(private)).decrypt(box))
            except (CryptoError, ValueError, TypeError):
                raise SealError("the sealed text was altered or truncated: seal the key again") from None
            return _checked(plain, subject)
        raise UnknownController(
            f"sealed to key {identity}, which neither this operator nor Secret {SECRET_OF_NAMESPACE} of the namespace "
            "has: seal the key again"
        )

    def reseal(self, text: str, subject: Subject, offered: str = "") -> str | None:
        """Seal a key again to the newest of these keys, or return None if it already is.

        Sealing is random, so an earlier result that is still good is `offered` to get the same one again.

        Raises SealError.
        """
        identity, _ = _split_sealed(text)
        if identity == key_id(self.newest):
            return None
        key_hex = self.open(text, subject)
        return offered if self._holds(offered, subject, key_hex) else seal(self.newest, subject, key_hex)

    def _holds(self, text: str, subject: Subject, key_hex: str) -> bool:
        """Return True if a text is this key, sealed to the newest of these keys."""
        try:
            identity, _ = _split_sealed(text)
            return identity == key_id(self.newest) and self.open(text, subject) == key_hex
        except SealError:
            return False


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _split_sealed(text: str) -> tuple[str, bytes]:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SealError("the sealed text is not base64: seal the key again") from None
    if not raw.startswith(_MAGIC) or len(raw) <= len(_MAGIC) + _ID_BYTES + _BOX_OVERHEAD:
        raise SealError("the text is not a sealed key: `relayctl keys seal` makes one")
    start = len(_MAGIC) + _ID_BYTES
    return raw[len(_MAGIC) : start].hex(), raw[start:]


def _checked(plain: object, subject: Subject) -> str:
    if not isinstance(plain, dict) or plain.get("version") != 1 or not isinstance(plain.get("key"), str):
        raise SealError("the sealed text does not hold a supplier key: seal the key again")
    for name in ("namespace", "name", "address"):
        if plain.get(name) != getattr(subject, name):
            raise SealedForAnother(
                f"sealed for another {name} than {getattr(subject, name)}: seal the key for this Supplier"
            )
    return str(plain["key"])
