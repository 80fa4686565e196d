import pytest

from corpus import load, unhex
from incremental_trie import Trie
from pocket.errors import InvalidProof
from pocket.protocol.smst.bulk import LeafContent, LeafSet, native
from pocket.protocol.smst.digest import Root, leaf_digest, path_of
from pocket.protocol.smst.verify import unmarshal, verify_closest

DATA = load("smst")
TREES = DATA["trees"]
WAYS = {"plain": None} | ({"native": native} if native is not None else {})
BOTH_WAYS = pytest.mark.parametrize("library", WAYS.values(), ids=WAYS)


def contents(tree):
    leaves = {}
    for operation in tree["operations"]:
        leaves[path_of(unhex(operation["key"]))] = LeafContent(unhex(operation["value"]), int(operation["weight"]))
    return leaves


def leaf_set(leaves, library):
    rows = [(path, leaf_digest(path, leaf.value, leaf.weight)) for path, leaf in sorted(leaves.items())]
    return LeafSet(rows, library)


def incremental(tree):
    trie = Trie()
    for operation in tree["operations"]:
        trie.insert(unhex(operation["key"]), unhex(operation["value"]), int(operation["weight"]))
    return trie


def outcome(marshalled, root):
    try:
        verify_closest(marshalled, root)
    except InvalidProof as error:
        return error.stage
    return "accept"


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree["id"])
def test_the_incremental_trie_has_every_root_and_node_of_the_reference(tree):
    trie = Trie()
    for index, operation in enumerate(tree["operations"]):
        trie.insert(unhex(operation["key"]), unhex(operation["value"]), int(operation["weight"]))
        if "incremental_roots" in tree:
            assert trie.root().hex() == tree["incremental_roots"][index]
    assert trie.root().hex() == tree["root"]
    assert (str(Root(trie.root()).total), str(Root(trie.root()).count)) == (tree["sum"], tree["count"])
    if "committed_nodes" in tree:
        nodes = {digest.hex(): serialised.hex() for digest, serialised in trie.nodes().items()}
        assert nodes == tree["committed_nodes"]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree["id"])
@BOTH_WAYS
def test_the_bulk_root_equals_the_reference(tree, library):
    assert leaf_set(contents(tree), library).root().hex() == tree["root"]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree["id"])
def test_incremental_proofs_equal_the_reference_byte_for_byte(tree):
    trie = incremental(tree)
    for case in tree["proofs"]:
        proof = trie.closest_proof(unhex(case["path"]))
        compact = proof.compact()
        assert compact.marshal().hex() == case["compact_marshaled"]
        assert unmarshal(compact.marshal()) == compact
        assert list(proof.flipped_bits) == case["flipped_bits"]
        assert proof.depth == case["depth"]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree["id"])
@BOTH_WAYS
def test_bulk_proofs_equal_the_reference_but_for_free_extension_bits(tree, library):
    leaves = contents(tree)
    bulk = leaf_set(leaves, library)
    for case in tree["proofs"]:
        proof = bulk.closest_proof(unhex(case["path"]), leaves.__getitem__)
        sibling = case["sibling_data"]
        if sibling and sibling.startswith("02"):
            assert proof.sibling_data[:3].hex() == sibling[:6]
            assert proof.sibling_data[35:].hex() == sibling[70:]
            assert [node.hex() for node in proof.side_nodes] == case["side_nodes"]
            assert proof.closest_path.hex() == case["closest_path"]
        else:
            assert proof.compact().marshal().hex() == case["compact_marshaled"]
        assert outcome(proof.compact().marshal(), unhex(tree["root"])) == case["verify"]
        assert outcome(unhex(case["compact_marshaled"]), unhex(tree["root"])) == case["verify"]


@pytest.mark.parametrize("case", DATA["proof_checks"], ids=lambda case: case["id"])
def test_altered_proofs_are_judged_as_the_chain_judges_them(case):
    stage = outcome(unhex(case["compact_marshaled"]), unhex(case["root"]))
    if case["expected"] == "accept":
        assert stage == "accept"
    elif case["reject_stage"].startswith("panic"):
        assert stage != "accept"
    else:
        assert stage == case["reject_stage"]
