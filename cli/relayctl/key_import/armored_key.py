"""Decrypt an armored key, as `pocketd keys export` prints it.

The key derivation is argon2 with ChaCha20-Poly1305 in current versions, bcrypt with XSalsa20-Poly1305 in older ones.
"""

import base64
import binascii
import hashlib
import re
from typing import Final

from pocket.errors import DecodingError
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.key_import.import_errors import KeyImportError, library

_ARMOR: Final = re.compile(
    r"-----BEGIN TENDERMINT PRIVATE KEY-----\s*\n(?P<head>(?:[A-Za-z]+: [^\n]*\n)*)\s*\n(?P<body>[A-Za-z0-9+/=\s]+?)"
    r"(?:\n=[A-Za-z0-9+/]{4})?\s*\n-----END TENDERMINT PRIVATE KEY-----"
)
_AMINO_SECP256K1: Final = bytes.fromhex("e1b0f79b20")
_SALT_BYTES: Final = 16
_BCRYPT_COST: Final = 12
_BCRYPT_LONGEST: Final = 72
_NONCE_BYTES: Final = 24
_TAG_BYTES: Final = 16
_STANDARD: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_OF_BCRYPT: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def read_armored(text: str, passphrase: str) -> PrivateKey:
    """Return the key of an armored text. Raises KeyImportError."""
    match = _ARMOR.search(text.replace("\r\n", "\n"))
    if match is None:
        raise KeyImportError("no armored key: expected the lines from BEGIN to END TENDERMINT PRIVATE KEY")
    headers = dict(line.split(": ", 1) for line in match["head"].splitlines())
    if headers.get("type", "secp256k1") != "secp256k1":
        raise KeyImportError(f"the armored key is of type {headers['type'][:20]}, not secp256k1")
    try:
        salt = bytes.fromhex(headers["salt"])
        data = base64.b64decode("".join(match["body"].split()), validate=True)
    except (KeyError, ValueError, binascii.Error):
        raise KeyImportError("the armored text is damaged: export the key again") from None
    if len(salt) != _SALT_BYTES:
        raise KeyImportError("the armored text has no salt of 16 bytes: export the key again")
    match headers.get("kdf"):
        case "argon2":
            plain = _argon2(salt, data, passphrase)
        case "bcrypt":
            plain = _bcrypt(salt, data, passphrase)
        case other:
            raise KeyImportError(f"the key derivation {str(other)[:20]} is unknown: argon2 and bcrypt are supported")
    if not plain.startswith(_AMINO_SECP256K1):
        raise KeyImportError("the armored text has another content than a secp256k1 key")
    try:
        return PrivateKey.from_hex(plain[len(_AMINO_SECP256K1) :].hex())
    except DecodingError as error:
        raise KeyImportError(f"the armored key is invalid: {error}") from None


def _argon2(salt: bytes, data: bytes, passphrase: str) -> bytes:
    kdf = library("cryptography.hazmat.primitives.kdf.argon2")
    aead = library("cryptography.hazmat.primitives.ciphers.aead")
    derivation = kdf.Argon2id(salt=salt, length=32, iterations=1, lanes=4, memory_cost=64 * 1024)
    cipher = aead.ChaCha20Poly1305(derivation.derive(passphrase.encode()))
    try:
        plain: bytes = cipher.decrypt(bytes(12), data, None)
    except library("cryptography.exceptions").InvalidTag:
        raise KeyImportError("the passphrase of the armored key is wrong, or its text is damaged") from None
    return plain


def _bcrypt(salt: bytes, data: bytes, passphrase: str) -> bytes:
    bcrypt = library("bcrypt")
    secret, exceptions = library("nacl.secret"), library("nacl.exceptions")
    encoded = base64.b64encode(salt).decode().rstrip("=").translate(str.maketrans(_STANDARD, _OF_BCRYPT))
    password = passphrase.encode()[:_BCRYPT_LONGEST]  # bcrypt uses no more
    key = hashlib.sha256(bcrypt.hashpw(password, f"$2a${_BCRYPT_COST}${encoded}".encode())).digest()
    if len(data) <= _NONCE_BYTES + _TAG_BYTES:
        raise KeyImportError("the armored text is too short: export the key again")
    try:
        plain: bytes = secret.SecretBox(key).decrypt(data)
    except exceptions.CryptoError:
        raise KeyImportError("the passphrase of the armored key is wrong, or its text is damaged") from None
    return plain
