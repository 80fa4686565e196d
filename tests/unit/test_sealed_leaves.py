"""The sealed leaves are found again on a volume that holds later ones."""

import pytest

from pocket.protocol.smst.bulk import LeafSet
from pocket.protocol.smst.digest import leaf_digest
from pocket_miner.relay_rows import Leaf
from pocket_miner.storage import sealed_leaves as module
from pocket_miner.storage.relay_store import SessionEndFile
from pocket_miner.storage.sealed_leaves import sealed_leaves
from pocket_miner.storage.trie_pool import compute_proof, compute_root


def leaf(number):
    path, value = bytes([number * 37 % 256]) * 32, b"relay %d" % number
    return Leaf(path, leaf_digest(path, value, 10), 10, value)


def rows(leaves):
    return sorted((leaf.path, leaf.digest) for leaf in leaves)


def root_of(leaves):
    return LeafSet(rows(leaves)).root()


SEALED = [leaf(number) for number in range(1, 6)]
LATE = [leaf(number) for number in range(10, 13)]


@pytest.mark.parametrize("arrived", [
    [*SEALED, *LATE],
    [*SEALED[:4], LATE[0], SEALED[4], *LATE[1:]],
    [*LATE, *SEALED],
    [LATE[0], *SEALED],
])  # fmt: skip
def test_leaves_that_came_after_the_seal_are_set_aside(arrived):
    found = sealed_leaves(rows(arrived), lambda: [leaf.path for leaf in arrived], root_of(SEALED))
    assert found == rows(SEALED)


@pytest.mark.parametrize("stored", [SEALED, SEALED[1:], [*SEALED[1:], *LATE]])
def test_without_the_sealed_leaves_none_are_selected(stored):
    assert sealed_leaves(rows(stored), lambda: [leaf.path for leaf in stored], root_of(SEALED)) is None


def test_the_number_of_attempts_is_bounded(monkeypatch):
    roots = []

    class Counted(LeafSet):
        def root(self):
            roots.append(1)
            return super().root()

    monkeypatch.setattr(module, "LeafSet", Counted)
    stored = [leaf(number) for number in range(40, 0, -1)]
    assert sealed_leaves(rows(stored), lambda: [leaf.path for leaf in stored], root_of(SEALED)) is None
    assert len(roots) == 200


def stored(path, *groups):
    file = SessionEndFile(path)
    file.add_session("alice", "session", b"header")
    for number, group in enumerate(groups):
        file.store("alice", "session", group, 0, f"{number}-0", "life")
    return file


def test_a_volume_proves_the_sealed_leaves_in_whatever_order_their_paths_are(tmp_path):
    path = tmp_path / "end-10.sqlite"
    stored(path, SEALED[:3], SEALED[1:], LATE).close()
    sealed = root_of(SEALED)
    assert compute_root(str(path), "alice", "session", sealed).root == sealed
    assert compute_root(str(path), "alice", "session").root == root_of([*SEALED, *LATE])
    root, proof = compute_proof(str(path), "alice", "session", b"\x01" * 32, sealed)
    expected = LeafSet(rows(SEALED)).closest_proof(b"\x01" * 32, lambda found: content(path, found))
    assert (root, proof) == (sealed, expected.compact().marshal())


def content(path, found):
    file = SessionEndFile(path)
    try:
        return file.content("alice", "session", found)
    finally:
        file.close()


def test_the_order_of_arrival_counts_where_attempts_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_ATTEMPTS", 1)
    file = stored(tmp_path / "end-10.sqlite", SEALED[:2], [*SEALED[1:], LATE[0]], LATE)
    try:
        assert file.arrivals("alice", "session") == [leaf.path for leaf in [*SEALED, *LATE]]
        found = sealed_leaves(
            file.leaves("alice", "session"), lambda: file.arrivals("alice", "session"), root_of(SEALED)
        )
        assert found == rows(SEALED)
    finally:
        file.close()
