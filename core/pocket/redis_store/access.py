"""Read credentials and certificate authorities in files.

The files may change while a process runs.
"""

import asyncio
from pathlib import Path

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from pocket.api.redis import Durability, RedisAccess

Stamp = tuple[tuple[int, int, int] | None, ...]


class AccessFiles(CredentialProvider):
    """The files of a RedisAccess.

    A Secret's files are replaced as a whole, so that at most one attempt is made with parts of two logins.
    """

    def __init__(self, access: RedisAccess) -> None:
        self._access = access
        self._stamp: Stamp | None = None

    @property
    def holds_login(self) -> bool:
        """Return True if the files hold a login."""
        return self._access.password_file is not None

    @property
    def ca_file(self) -> str | None:
        """Return the file of certificate authorities."""
        return self._access.ca_file

    @property
    def durability(self) -> Durability | None:
        """Return what the owner states about the data."""
        return self._access.durability

    def _paths(self) -> tuple[Path, ...]:
        access = self._access
        return tuple(Path(name) for name in (access.username_file, access.password_file, access.ca_file) if name)

    def _read_stamp(self) -> Stamp:
        stamps: list[tuple[int, int, int] | None] = []
        for path in self._paths():
            try:
                state = path.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((state.st_ino, state.st_mtime_ns, state.st_size))
        return tuple(stamps)

    async def changed(self) -> bool:
        """Return True if a file is another one than at the previous call."""
        if not self._paths():
            return False
        stamp = await asyncio.to_thread(self._read_stamp)
        before, self._stamp = self._stamp, stamp
        return before is not None and before != stamp

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the login in the files.

        Raises redis-py's AuthenticationError, which names the file and not its content.
        """
        password = _content(Path(self._access.password_file or ""))
        if password is None:
            raise AuthenticationError(f"{self._access.password_file} cannot be read: check the Secret of its login")
        username = _content(Path(self._access.username_file)) if self._access.username_file else None
        return (password,) if not username else (username, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the login in the files, read in a thread."""
        return await asyncio.to_thread(self.get_credentials)


def _content(path: Path) -> str | None:
    """Return the text of a file without its last line break.

    The result is None if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        return None
