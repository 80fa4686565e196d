import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import slow_curve as slow
from incremental_trie import Trie
from pocket.errors import InvalidProof
from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.smst.digest import leaf_digest, path_of
from pocket.protocol.smst.verify import leaf_value, verify_closest

# Paths that share long prefixes make extensions; hypothesis' own binaries rarely do.
CLUSTERED = st.builds(
    lambda head, tail: (head + b"\0" * 32)[:30] + tail, st.binary(max_size=3), st.binary(min_size=2, max_size=2)
)
PATHS = st.one_of(st.binary(min_size=32, max_size=32), CLUSTERED)
LEAVES = st.dictionaries(PATHS, st.tuples(st.binary(min_size=1, max_size=8), st.integers(1, 2**63)), max_size=24)


def leaf_set(leaves):
    return LeafSet([(path, leaf_digest(path, *leaf)) for path, leaf in sorted(leaves.items())])


@given(LEAVES)
def test_the_bulk_root_equals_a_recursion_over_bits(leaves):
    assert leaf_set(leaves).root() == slow.trie_root(leaves)


@given(LEAVES.filter(bool), st.binary(min_size=32, max_size=32))
def test_every_closest_proof_verifies_and_shows_its_leaf(leaves, path):
    bulk = leaf_set(leaves)
    proof = bulk.closest_proof(path, lambda leaf: LeafContent(*leaves[leaf]))
    verified = verify_closest(proof.compact().marshal(), bulk.root())
    assert leaf_value(verified) == leaves[verified.closest_path][0]
    assert verified.path == path


@given(LEAVES.filter(bool), st.binary(min_size=32, max_size=32), st.integers(0, 47))
def test_a_proof_is_refused_under_another_root(leaves, path, at):
    bulk = leaf_set(leaves)
    proof = bulk.closest_proof(path, lambda leaf: LeafContent(*leaves[leaf])).compact().marshal()
    root = bytearray(bulk.root())
    root[at] ^= 1
    with pytest.raises(InvalidProof):
        verify_closest(proof, bytes(root))


@given(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=4), st.integers(0, 9)), max_size=30), st.randoms())
def test_insertion_order_and_repetition_do_not_change_the_root(operations, chance):
    last = {key: (value, weight) for key, value, weight in operations}
    tries = []
    for _ in range(2):
        rows = [(k, *v) for k, v in last.items()] * 2
        chance.shuffle(rows)
        trie = Trie()
        for row in rows:
            trie.insert(*row)
        tries.append(trie.root())
    assert tries[0] == tries[1] == slow.trie_root({path_of(k): v for k, v in last.items()})


@given(st.binary(max_size=600))
def test_arbitrary_proof_bytes_raise_only_typed_errors(data):
    with pytest.raises(InvalidProof):
        verify_closest(data, b"\x01" * 48)


@given(LEAVES.filter(lambda leaves: len(leaves) > 2), st.data())
def test_damaged_proofs_never_crash_the_verifier(leaves, data):
    bulk = leaf_set(leaves)
    proof = bytearray(bulk.closest_proof(b"\x5a" * 32, lambda leaf: LeafContent(*leaves[leaf])).compact().marshal())
    for _ in range(3):
        at = data.draw(st.integers(0, len(proof) - 1))
        proof[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidProof):
        verify_closest(bytes(proof), bulk.root())


def test_unsorted_or_repeated_paths_are_refused():
    with pytest.raises(ValueError, match="sorted"):
        LeafSet([(b"\x02" * 32, bytes(48)), (b"\x01" * 32, bytes(48))])
    with pytest.raises(ValueError, match="sorted"):
        LeafSet([(b"\x01" * 32, bytes(48)), (b"\x01" * 32, bytes(48))])


@pytest.mark.parametrize("size", [0, 1, 32, 33, 50])
def test_data_of_another_leaf_is_none_or_long_enough_for_its_path(size):
    path, value = b"\x01" * 32, b"value"
    leaves = LeafSet([(path, leaf_digest(path, value, 7))])
    proof = leaves.closest_proof(path, lambda _: LeafContent(value, 7)).compact()
    data = replace(proof, non_membership_leaf_data=bytes(size)).marshal()
    if 0 < size < 33:
        with pytest.raises(InvalidProof, match="too short"):
            verify_closest(data, leaves.root())
    else:
        verify_closest(data, leaves.root())


@pytest.mark.parametrize(("depth", "valid"), [(0, True), (255, True), (256, True), (257, False)])
def test_a_proof_is_at_most_as_deep_as_a_path_is_long(depth, valid):
    path = b"\x01" * 32
    leaves = LeafSet([(path, leaf_digest(path, b"value", 7))])
    proof = leaves.closest_proof(path, lambda _: LeafContent(b"value", 7)).compact()
    with contextlib.nullcontext() if valid else pytest.raises(InvalidProof, match="above 256"):
        verify_closest(replace(proof, depth=depth.to_bytes(2)).marshal(), leaves.root())
