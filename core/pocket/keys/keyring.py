"""The supplier keys of a process, reloaded while it runs."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import ConfigurationError
from pocket.keys.key_folder import KeyFolder
from pocket.keys.loading import KeyProblem, KeySet, PublicKey
from pocket.keys.remote_signer import RemoteKey, RemoteSigner, SigningKey
from pocket.protocol.crypto.ecdsa import PrivateKey

_LOG: FilteringBoundLogger = structlog.get_logger()


class Keyring:
    """The keys of a folder and of variables, by operator address.

    A failed reload keeps the last good set.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        wall_nanoseconds: Callable[[], int] = time.time_ns,
        signer: RemoteSigner | None = None,
    ) -> None:
        self._folder = KeyFolder(folder, environment, wall_nanoseconds)
        self._read = self._loaded = KeySet({})
        self._signer = signer
        self._keys: Mapping[str, SigningKey] = {}
        self._failure = ""
        self._unlisted: list[str] = []

    def reload(self) -> bool:
        """Reload the keys and return True if the set of keys changed.

        Problems are logged once, without key material. It reads files, so it belongs in a thread.
        """
        try:
            read = self._folder.load()
        except ConfigurationError as error:
            if str(error) != self._failure:
                _LOG.warning("key reload failed, keeping the previous keys", error=error)
            self._failure = str(error)
            return False
        self._failure = ""
        if read is self._read:
            return False
        self._read, loaded = read, self._usable(read)
        changed = loaded.digest != self._loaded.digest
        if changed or loaded.problems != self._loaded.problems:
            for problem in loaded.problems:
                _LOG.warning("supplier key ignored", problem=problem)
        self._loaded = loaded
        keys = dict(self._signing_keys(loaded))
        if changed or any(type(keys[address]) is not type(key) for address, key in self._keys.items()):
            self._keys = keys  # also if a key only moved to the signer or back
        if changed:
            _LOG.info("supplier keys loaded", keys=len(self._keys), digest=loaded.digest[:16])
        return changed

    def _usable(self, read: KeySet) -> KeySet:
        """Return the keys without remote ones if no signer is configured."""
        if self._signer is not None:
            return read
        remote = [address for address, key in read.keys.items() if isinstance(key, PublicKey)]
        problems = [KeyProblem(address, "the key is remote, and no signer is configured") for address in remote]
        local = {address: key for address, key in read.keys.items() if address not in set(remote)}
        return KeySet(local, (*read.problems, *problems))

    def _signing_keys(self, loaded: KeySet) -> Iterator[tuple[str, SigningKey]]:
        for address, key in loaded.keys.items():
            if isinstance(key, PrivateKey):
                yield str(address), key
            elif self._signer is not None:
                yield str(address), RemoteKey(key.public_key, self._signer)

    def unlisted(self) -> list[str]:
        """Return the addresses of remote keys that the signer does not list, sorted.

        A change is logged.
        """
        if self._signer is None:
            return []
        remote = {key.public_key: address for address, key in self._keys.items() if isinstance(key, RemoteKey)}
        unlisted = sorted(remote[public_key] for public_key in self._signer.missing(remote))
        if unlisted != self._unlisted:
            self._unlisted = unlisted
            _LOG.warning("the signer does not hold all remote keys", missing=len(unlisted), first=unlisted[:3])
        return unlisted

    @property
    def signer_answers(self) -> bool | None:
        """Return True if the signer can be used now, None without one."""
        return None if self._signer is None else not self._signer.problem

    @property
    def signer_problem(self) -> str:
        """Return why no key can sign now, empty if one can.

        A key of this process can, and a remote one if the signer answers.
        """
        if self._signer is None or not self._keys or not all(isinstance(k, RemoteKey) for k in self._keys.values()):
            return ""
        return self._signer.problem

    def by_address(self) -> Mapping[str, SigningKey]:
        """Return the keys by operator address. It is called at every relay."""
        return self._keys

    @property
    def addresses(self) -> list[str]:
        """Return the operator addresses, sorted."""
        return sorted(self._keys)

    @property
    def digest(self) -> str:
        """Return the digest of the public keys, or an empty text without any."""
        return self._loaded.digest if self._keys else ""
