"""The optional compiled way to join leaves (native/trie.c): the same digests, many times faster.

It is loaded at import unless RELAY_ACCELERATOR is `off`, and only if it agrees with the plain way on a few sets of
leaves (`pocket.protocol.smst.bulk`). tests/unit/test_native_trie.py compares both for all inputs.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pocket.protocol.smst.digest import DIGEST_BYTES, HASH_BYTES

LIBRARY: Final = Path(__file__).with_name("_trie.so")
_NO_BRANCH: Final = -1


@dataclass(frozen=True, slots=True)
class Subtree:
    """Digest at `depth`; depth is None for a single leaf, which sits wherever its path is unique."""

    digest: bytes
    depth: int | None
    children: tuple[bytes, bytes] | None = None


class TrieLibrary:
    """The compiled library; its functions hold no state."""

    def __init__(self, library: Path = LIBRARY, *, processor: bool = True) -> None:
        """`processor`: hash by the processor's instructions where it has them. Raises OSError or AttributeError."""
        self._library = ctypes.CDLL(str(library))
        self._library.rt_use.argtypes = [ctypes.c_int]
        self._library.rt_use.restype = ctypes.c_int
        self._library.rt_build.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p
        ]  # fmt: skip
        self._library.rt_build.restype = ctypes.c_int
        self.uses_processor: Final = bool(self._library.rt_use(int(processor)))

    def leaves(self, paths: list[bytes], digests: list[bytes]) -> "NativeLeaves":
        """Leaves for `build`: strictly sorted, of 32 and 48 bytes."""
        return NativeLeaves(self._library, b"".join(paths), b"".join(digests))


class NativeLeaves:
    """Leaves as the library reads them."""

    __slots__ = ("_digests", "_library", "_paths")

    def __init__(self, library: ctypes.CDLL, paths: bytes, digests: bytes) -> None:
        self._library = library
        self._paths = paths
        self._digests = digests

    def build(self, low: int, high: int) -> Subtree:
        """The trie of leaves low … high−1; raises ValueError where they are none or not sorted."""
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
    """Where the bytes lie; the caller keeps them alive."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
