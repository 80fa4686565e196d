"""Remove secrets from resources, reports and logs.

Three rules work together: fields whose names suggest a secret lose their value, texts lose credentials in a known form,
and a hexadecimal number that is the private key of a known address is recognised as that.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pocket.errors import DecodingError
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey

REDACTED: Final = "REDACTED"
_SECRET_FIELD: Final = re.compile(
    r"(?i)(pass(word|phrase|wd)?|pwd|token|secret|credential|authorization|api[-_]?key|private|mnemonic|"
    r"seed[-_]?phrase|sealed|cookie|bearer|^key$|^hex$|^raw$)"
)
_REFERENCE_FIELD: Final = re.compile(r"(?i)(ref|refs|name|names|secrets|type|keys_digest)$")
_MAPS_OF_SECRETS: Final = frozenset({"headers", "stringData", "binaryData"})
_COMMANDS: Final = frozenset({"args", "command"})
_DROPPED: Final = frozenset({"managedFields", "kubectl.kubernetes.io/last-applied-configuration"})
_URL: Final = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)((?:[^\s\"<>]*@)?[^\s\"'<>,;)\]}]*)")
"""A password may hold characters that end a URL elsewhere, so all up to the last `@` belongs to the user."""
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/_.=-]{6,}")
_ASSIGNED: Final = re.compile(
    r"(?i)([\"']?(?:pass(?:w(?:or)?d|phrase)?|pwd|token|secret|api[-_]?key|authorization|mnemonic|private[-_ ]?key)"
    r"[\"']?\s*[=:]\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s,;}]+)"
)
_HEX_KEY: Final = re.compile(r"(?i)(?<![0-9a-f])(?:0x)?([0-9a-f]{64})(?![0-9a-f])")
_LONG_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]{12,}")
_DEEPEST: Final = 64


@dataclass(slots=True)
class Redactor:
    """Redacts values. `addresses` are those whose private keys must not appear."""

    addresses: Collection[str] = ()
    _known: dict[str, bool] = field(default_factory=dict, repr=False)

    def value(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """Return a copy of JSON without secrets. `name` is the field that holds it."""
        if depth > _DEEPEST:
            return REDACTED
        if isinstance(value, Mapping):
            if name in _MAPS_OF_SECRETS:
                return dict.fromkeys(map(str, value), REDACTED)
            return {
                str(key): self._field(str(key), item, depth + 1) for key, item in value.items() if key not in _DROPPED
            }
        if isinstance(value, list | tuple):
            items = _without_secret_arguments(value) if name in _COMMANDS else value
            return [self._element(item, name, depth + 1) for item in items]
        return self.text(value) if isinstance(value, str) else value

    def _element(self, item: Any, name: str, depth: int) -> Any:
        """Redact one element of a list. A container's variables keep their names only."""
        if name == "env" and isinstance(item, Mapping) and "value" in item:
            return {**self.value(item, name, depth), "value": REDACTED}
        return self.value(item, name, depth)

    def _field(self, name: str, item: Any, depth: int) -> Any:
        secret = _SECRET_FIELD.search(name) and not _REFERENCE_FIELD.search(name)
        if secret and isinstance(item, str | int | float) and not isinstance(item, bool) and item != "":
            return REDACTED
        if isinstance(item, str) and item[:1] in "{[":
            try:
                return json.dumps(self.value(json.loads(item), name, depth))
            except ValueError:
                pass
        return self.value(item, name, depth)

    def text(self, text: str) -> str:
        """Return a text without credentials.

        Those are in URLs, headers and assignments, or are known private keys.
        """
        text = _URL.sub(lambda match: match[1] + _address(match[2]), text)
        text = _BEARER.sub(lambda match: f"{match[1]} {REDACTED}", text)
        text = _ASSIGNED.sub(lambda match: match[1] + REDACTED, text)
        return _HEX_KEY.sub(lambda match: REDACTED if self._is_key(match[1].lower()) else match[0], text)

    def _is_key(self, digits: str) -> bool:
        """Return True if the digits are the private key of a known address."""
        if digits not in self._known:
            try:
                address = address_of(PrivateKey.from_hex(digits).public_key)
                self._known[digits] = str(address) in self.addresses
            except DecodingError:
                self._known[digits] = False
        return self._known[digits]


def _without_secret_arguments(arguments: Sequence[Any]) -> list[Any]:
    """Return the words of a command without secret arguments.

    Those follow a flag that names a secret, as in `--token abc`.
    """
    return [
        REDACTED if _is_secret_flag(before) else word
        for before, word in zip(("", *arguments), arguments, strict=False)
    ]  # fmt: skip


def _is_secret_flag(word: Any) -> bool:
    return isinstance(word, str) and word.startswith("-") and "=" not in word and bool(_SECRET_FIELD.search(word))


def _address(rest: str) -> str:
    """Return the harmless part of a URL after its scheme.

    User, query and path segments as long as a key are left out.
    """
    rest, mark, _ = rest.partition("?")
    rest = rest.rpartition("@")[2]  # also of a password with a slash
    host, slash, path = rest.partition("/")
    path = "/".join(_LONG_SEGMENT.sub(REDACTED, part) for part in path.split("/"))
    return f"{host}{slash}{path}{mark}{REDACTED if mark else ''}"
