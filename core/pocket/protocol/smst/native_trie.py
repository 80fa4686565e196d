"""Optional native implementation of joining leaves (native/trie.c).

It computes the same digests many times faster. It is loaded at import unless RELAY_ACCELERATOR is `off`, and only if it
agrees with the Python implementation on a few sets of leaves (`pocket.protocol.smst.bulk`).
tests/unit/test_native_trie.py compares both on generated inputs.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pocket.protocol.smst.digest import DIGEST_BYTES, HASH_BYTES

_NO_BRANCH: Final = -1


@dataclass(frozen=True, slots=True)
class Subtree:
    """A subtree's digest at `depth`.

    `depth` is None for a single leaf, which has no branch.
    """

    digest: bytes
    depth: int | None
    children: tuple[bytes, bytes] | None = None


class TrieLibrary:
    """The compiled library, whose functions hold no state."""

    def __init__(self, library: Path, *, processor: bool = True) -> None:
        """Load the library. Raises OSError or AttributeError.

        With `processor`, hashing uses the processor's SHA instructions if it has them.
        """
        self._library = ctypes.CDLL(str(library))
        self._library.rt_use.argtypes = [ctypes.c_int]
        self._library.rt_use.restype = ctypes.c_int
        self._library.rt_build.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p
        ]  # fmt: skip
        self._library.rt_build.restype = ctypes.c_int
        self.uses_processor: Final = bool(self._library.rt_use(int(processor)))

    def leaves(self, paths: list[bytes], digests: list[bytes]) -> "NativeLeaves":
        """Return leaves for `build` from sorted paths and digests.

        Paths have 32 bytes and grow strictly, digests have 48.
        """
        return NativeLeaves(self._library, b"".join(paths), b"".join(digests))


class NativeLeaves:
    """Leaves as the library reads them."""

    __slots__ = ("_digests", "_library", "_paths")

    def __init__(self, library: ctypes.CDLL, paths: bytes, digests: bytes) -> None:
        self._library = library
        self._paths = paths
        self._digests = digests

    def build(self, low: int, high: int) -> Subtree:
        """Build the trie of leaves low … high−1.

        Raises ValueError if there are no such leaves or they are not sorted.
        """
        if not 0 <= low < high or high * HASH_BYTES > len(self._paths) or high * DIGEST_BYTES > len(self._digests):
            raise ValueError("there are no such leaves")
        digest = ctypes.create_string_buffer(DIGEST_BYTES)
        children = ctypes.create_string_buffer(2 * DIGEST_BYTES)
        depth = self._library.rt_build(
            _address(self._paths) + low * HASH_BYTES, _address(self._digests) + low * DIGEST_BYTES, high - low,
            digest, children,
        )  # fmt: skip
        if depth < _NO_BRANCH:
            raise ValueError("leaves must be sorted by path, each path once")
        if depth == _NO_BRANCH:
            return Subtree(digest.raw, None)
        return Subtree(digest.raw, depth, (children.raw[:DIGEST_BYTES], children.raw[DIGEST_BYTES:]))


def _address(data: bytes) -> int:
    """Return the address of the bytes. The caller keeps them alive."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
