"""What a remote signer is asked and what it answers (docs/signer.md)."""

import base64
import binascii
import hashlib
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints

from pocket.api.base import Model

HEALTH_PATH: Final = "/upcheck"
KEYS_PATH: Final = "/api/v1/pocket/publicKeys"
SIGN_PATH: Final = "/api/v1/pocket/sign"
LARGEST_BATCH: Final = 256


def _decoded(value: Any) -> Any:
    """Return the bytes of base64 text, and other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64") from None


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


Base64 = Annotated[bytes, BeforeValidator(_decoded), PlainSerializer(_encoded, when_used="json")]
PublicKeyHex = Annotated[str, StringConstraints(pattern=r"^0[23][0-9a-f]{64}$")]


class DocumentType(StrEnum):
    """The kinds of content that are signed. A signer refuses unknown kinds."""

    RELAY_RESPONSE = "RELAY_RESPONSE"
    """The canonical bytes of a RelayResponse without signature and payload, which contain the payload's hash."""
    TRANSACTION = "TRANSACTION"
    """The SignDoc of a transaction that claims or proves sessions."""


class Refusal(StrEnum):
    """Why a signer does not sign. It never signs the same document later."""

    UNKNOWN_KEY = "UNKNOWN_KEY"
    MALFORMED = "MALFORMED"
    NOT_ALLOWED = "NOT_ALLOWED"
    SECOND_ROOT = "SECOND_ROOT"


class SignRequest(Model):
    """One document to sign with one key."""

    public_key: PublicKeyHex
    type: DocumentType
    document: Base64


class SignBatch(Model):
    """Documents of one request."""

    requests: tuple[SignRequest, ...] = Field(min_length=1, max_length=LARGEST_BATCH)


class SignResult(Model):
    """A signature of 64 bytes, or the reason without one.

    `error` may be of a later version.
    """

    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")] | None = None
    error: str | None = None
    message: str = ""
    message_index: int | None = Field(default=None, ge=0, description="The message of a transaction at fault.")


class SignResults(Model):
    """The results in the order of the requests."""

    results: tuple[SignResult, ...]


class PublicKeys(Model):
    """The keys of a signer."""

    public_keys: tuple[PublicKeyHex, ...]


def message_of(kind: DocumentType, document: bytes) -> bytes:
    """Return the bytes that a key signs for a document: ECDSA signs their SHA-256."""
    return hashlib.sha256(document).digest() if kind is DocumentType.RELAY_RESPONSE else document
