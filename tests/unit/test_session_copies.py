"""Which leaves keep their value in a copy of a session: always those that a proof needs."""

from hypothesis import given
from hypothesis import strategies as st

from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.smst.digest import leaf_digest
from pocket_miner.ingest.session_copies import _Copy
from pocket_miner.relay_rows import Leaf

PATHS = st.one_of(st.binary(min_size=32, max_size=32), st.integers(0, 40).map(lambda n: n.to_bytes(32)))


@given(st.lists(PATHS, min_size=1, max_size=40, unique=True), PATHS)
def test_the_leaves_that_a_proof_needs_keep_their_values(tmp_path_factory, paths, nearest):
    copy = _Copy(tmp_path_factory.getbasetemp() / "unused", None, None, nearest)
    kept = {path: copy._lean(Leaf(path, b"", 1, b"value of " + path)).value for path in paths}
    asked = []

    def content(path):
        asked.append(path)
        return LeafContent(kept[path], 1)

    LeafSet(sorted((path, leaf_digest(path, b"value of " + path, 1)) for path in paths)).closest_proof(nearest, content)
    assert asked
    assert all(kept[path] == b"value of " + path for path in asked)
