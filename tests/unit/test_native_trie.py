"""The compiled way to join leaves gives the digests of the plain way, or is not used."""

import ctypes
import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slow_curve as slow
from example_counts import examples
from pocket.protocol.smst import bulk
from pocket.protocol.smst.bulk import LeafContent, LeafSet, build_plain
from pocket.protocol.smst.digest import leaf_digest
from pocket.protocol.smst.native_trie import Subtree, TrieLibrary

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "native"
# Long common prefixes at every depth: extensions, deep branches, the first and the last bit.
BITS = st.integers(0, 255)
CLUSTERED = st.builds(
    lambda base, flips: (int.from_bytes(base, "big") ^ sum(1 << (255 - f) for f in flips)).to_bytes(32, "big"),
    st.sampled_from([bytes(32), b"\xff" * 32, hashlib.sha256(b"base").digest()]),
    st.sets(st.one_of(BITS, st.sampled_from([0, 1, 7, 8, 63, 64, 127, 128, 254, 255])), max_size=3),
)
PATHS = st.one_of(st.binary(min_size=32, max_size=32), CLUSTERED)
WEIGHTS = st.one_of(st.integers(0, 1000), st.integers(2**64 - 5, 2**64 - 1))
LEAVES = st.dictionaries(PATHS, st.tuples(st.binary(min_size=1, max_size=8), WEIGHTS), min_size=1, max_size=30)

pytestmark = pytest.mark.processes
if shutil.which("cc") is None and not os.environ.get("CI"):
    pytest.skip("no C compiler", allow_module_level=True)


def build(folder, change=None):
    """Build a library from the source, or quickly from a changed copy."""
    copy = folder / "accelerator"
    shutil.copytree(SOURCE, copy)
    for name in ("trie.c", "sha256.h") if change is not None else ():
        file = copy / name
        file.write_text(change(file.read_text()))
    out = folder / "trie.so"
    command = [
        "cc",
        "-O2" if change is None else "-O0",
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fPIC",
        "-shared",
        "-o",
        out,
        "trie.c",
    ]
    subprocess.run(command, cwd=copy, check=True, timeout=120)
    return out


@pytest.fixture(scope="module", params=["portable", "processor"])
def library(request, tmp_path_factory):
    made = TrieLibrary(build(tmp_path_factory.mktemp(request.param)), processor=request.param == "processor")
    if request.param == "processor" and not made.uses_processor:
        pytest.skip("this processor has no instructions for SHA-256")
    return made


def rows(leaves):
    return [(path, leaf_digest(path, *leaf)) for path, leaf in sorted(leaves.items())]


@given(LEAVES, st.data())
@settings(max_examples=examples(80))
def test_every_span_of_leaves_is_joined_as_the_plain_way_joins_it(library, leaves, data):
    paths, digests = zip(*rows(leaves), strict=True)
    low = data.draw(st.integers(0, len(paths) - 1))
    high = data.draw(st.integers(low + 1, len(paths)))
    found = library.leaves(list(paths), list(digests)).build(low, high)
    assert found == build_plain(paths, digests, low, high)


@given(LEAVES, PATHS)
def test_roots_and_proofs_equal_the_plain_ones_and_a_recursion_over_bits(library, leaves, path):
    plain, native = LeafSet(rows(leaves), None), LeafSet(rows(leaves), library)
    assert native.root() == plain.root() == slow.trie_root(leaves)
    proofs = [s.closest_proof(path, lambda leaf: LeafContent(*leaves[leaf])) for s in (plain, native)]
    assert proofs[0] == proofs[1]


@pytest.mark.parametrize("length", [0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 4096])
def test_hashes_are_those_of_hashlib(library, length):
    message = random.Random(length).randbytes(length)
    padded = message + b"\x80" + bytes(-(length + 9) % 64) + (8 * length).to_bytes(8, "big")
    out = ctypes.create_string_buffer(32)
    library._library.rt_hash_blocks(padded, ctypes.c_size_t(len(padded) // 64), out)
    assert out.raw == hashlib.sha256(message).digest()


def test_leaves_that_are_not_sorted_or_not_there_are_refused(library):
    digests = [bytes(48)] * 3
    for paths in ([b"b" * 32, b"a" * 32, b"c" * 32], [b"a" * 32, b"a" * 32, b"c" * 32]):
        with pytest.raises(ValueError, match="sorted"):
            library.leaves(paths, digests).build(0, 3)
        with pytest.raises(ValueError, match="sorted"):
            LeafSet(list(zip(paths, digests, strict=True)), library)
    good = library.leaves([bytes([n]) * 32 for n in range(3)], digests)
    for low, high in ((0, 4), (-1, 2), (2, 2), (2, 1)):
        with pytest.raises(ValueError, match="no such leaves"):
            good.build(low, high)


def test_an_empty_set_has_the_root_of_zeros(library):
    assert LeafSet([], library).root() == bytes(48)


def test_it_is_off_where_it_is_switched_off_missing_or_damaged(tmp_path, captured_logs):
    good = build(tmp_path)
    assert bulk.load({}, good) is not None
    assert bulk.load({"RELAY_ACCELERATOR": "off"}, good) is None
    assert bulk.load({}, None) is None
    (tmp_path / "damaged.so").write_bytes(b"\x7fELF" + bytes(100))
    assert bulk.load({}, tmp_path / "damaged.so") is None
    assert "cannot be loaded" in str(captured_logs)


WRONG = [
    ("read64(left + 32) + read64(right + 32)", "read64(left + 32) - read64(right + 32)"),
    ("write64(block + 120, INNER * 8);", "write64(block + 120, INNER * 8 + 1);"),
    ("if (bit(path, depth)) inner", "if (!bit(path, depth)) inner"),
    ("if (depth != NO_BRANCH) lift(digest", "if (depth == NO_BRANCH - 9) lift(digest"),
    ("left->depth, left->branch + 1)", "left->depth, left->branch)"),
    ("__builtin_clzll(a ^ b)", "(__builtin_clzll(a ^ b) & ~1)"),
    ("memcpy(children + DIGEST, digest, DIGEST);", "memcpy(children + DIGEST, left->digest, DIGEST);"),
    ("0x748f82ee", "0x748f82ef"),
]


@pytest.mark.parametrize(("right", "wrong"), WRONG, ids=[row[0][:20] for row in WRONG])
def test_a_library_that_computes_something_else_is_not_used(tmp_path, right, wrong, captured_logs):
    seen = []

    def broken(text):
        seen.append(text.count(right))
        return text.replace(right, wrong)

    made = build(tmp_path, broken)
    assert sum(seen) == 1
    assert bulk.load({}, made) is None
    assert "is disabled" in str(captured_logs)


@pytest.mark.parametrize("sanitizer", ["address", "undefined"])
def test_it_is_clean_under_sanitizers(tmp_path, sanitizer):
    program = tmp_path / "check"
    command = ["cc", "-O1", "-g", "-std=gnu11", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    subprocess.run([*command, "-o", program, "check_trie.c"], cwd=SOURCE, check=True, timeout=180)
    chance = random.Random(4)
    paths = {chance.randbytes(32) for _ in range(40)} | {(1 << n).to_bytes(32, "big") for n in range(256)}
    leaves = rows({path: (b"v", chance.getrandbits(64)) for path in paths})
    lines = "\n".join(f"{path.hex()} {digest.hex()}" for path, digest in leaves)
    ran = subprocess.run([program], input=lines, capture_output=True, text=True, timeout=180, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    sorted_paths, digests = zip(*leaves, strict=True)
    expected = [f"-2 {bytes(48).hex()} {bytes(96).hex()}"]
    for count in range(1, len(leaves) + 1):
        found = build_plain(sorted_paths, digests, 0, count)
        expected.append(shown(found))
    assert ran.stdout.split("\n") == [*expected, *expected, ""]


def shown(found: Subtree) -> str:
    depth = -1 if found.depth is None else found.depth
    return f"{depth} {found.digest.hex()} {b''.join(found.children or (bytes(96),)).hex()}"
