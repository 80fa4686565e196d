"""Which of several nodes may be asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.failover import Failover, NodeAddress
from pocket.chain.node_health import (
    NodeAssessment,
    NodeHealth,
    NodeHealthTable,
    NodeProbe,
    assess_nodes,
    compared_height,
)
from pocket.errors import ChainUnavailable

GOOD, DISPUTED, BEHIND = NodeHealth.HEALTHY, NodeHealth.DISPUTED, NodeHealth.LAGGING
SILENT, FORKED, FOREIGN = NodeHealth.UNREACHABLE, NodeHealth.FORKED, NodeHealth.WRONG_CHAIN


def probe(height=10, block=b"a", chain="pocket"):
    return NodeProbe(height, chain, block)


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ([probe(), probe()], [GOOD, GOOD]),
        ([probe(8), probe(10)], [GOOD, GOOD]),
        ([probe(7), probe(10)], [BEHIND, GOOD]),
        ([probe(), NodeProbe(problem="down")], [GOOD, SILENT]),
        ([NodeProbe(), NodeProbe()], [SILENT, SILENT]),
        ([probe(chain="other"), probe()], [FOREIGN, GOOD]),
        ([probe(), probe(block=b"b"), probe()], [GOOD, FORKED, GOOD]),
        ([probe(99, b"b"), probe(), probe()], [FORKED, GOOD, GOOD]),
        ([probe(), probe(block=b"b")], [DISPUTED, DISPUTED]),
        ([probe(), probe(block=b"b"), probe(block=b"c")], [DISPUTED, DISPUTED, DISPUTED]),
        ([probe(99), probe(block=b"b"), probe(5, None)], [DISPUTED, DISPUTED, BEHIND]),
        ([probe(), probe(block=b"b"), probe(5, b"b")], [FORKED, GOOD, BEHIND]),
        ([probe(), probe(block=None), probe()], [GOOD, GOOD, GOOD]),
        ([probe(chain="other", block=b"b"), probe(chain="other", block=b"b"), probe()], [FOREIGN, FOREIGN, GOOD]),
        ([probe()], [GOOD]),
    ],
)
def test_nodes_are_judged_by_what_most_of_them_say(probes, expected):
    assert [assessment.health for assessment in assess_nodes(probes, "pocket")] == expected


def test_the_lag_counts_from_the_best_node_that_is_on_the_chain_of_most():
    lags = [v.lag for v in assess_nodes([probe(99, b"b"), probe(12), probe(9)], "pocket")]
    assert lags == [0, 0, 3]


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ([probe(8), probe(10)], 8),
        ([probe(8)], 0),
        ([probe(8), NodeProbe()], 0),
        ([probe(8, chain="other"), probe(10)], 0),
        ([probe(1), probe(500), probe(499)], 499),
    ],
)
def test_nodes_are_compared_at_a_height_that_all_near_ones_have(probes, expected):
    assert compared_height(probes, "pocket") == expected


probes = st.lists(
    st.builds(
        NodeProbe,
        st.integers(0, 300),
        st.sampled_from(["pocket", "pocket", "other"]),
        st.sampled_from([None, b"a", b"b"]),
    ),
    min_size=1,
    max_size=7,
)


@given(probes)
def test_a_majority_of_the_chain_is_never_shut_out_and_no_node_of_another_chain_is_asked(nodes):
    assessments = assess_nodes(nodes, "pocket")
    voters = [
        (s, v) for s, v in zip(nodes, assessments, strict=True) if s.answered and s.chain_id == "pocket" and s.hash
    ]
    shut_out = [v for _, v in voters if v.rank is None]
    assert len(shut_out) * 2 < len(voters) or not shut_out
    for node, assessment in zip(nodes, assessments, strict=True):
        assert (assessment.health is FOREIGN) == (node.answered and node.chain_id != "pocket")
        assert assessment.rank is None or assessment.health not in (FORKED, FOREIGN)
        assert assessment.lag >= 0


def test_a_node_that_lags_a_little_twice_in_a_row_is_asked_after_the_others():
    lags, later = [probe(9), probe(10)], [probe(10), probe(10)]
    once = assess_nodes(lags, "pocket")
    assert [found.rank for found in once] == [(0, 0), (0, 0)], "one node may have a block a moment before the others"
    twice = assess_nodes(lags, "pocket", before=once)
    assert [found.rank for found in twice] == [(0, 1), (0, 0)]
    assert [found.rank for found in assess_nodes(later, "pocket", before=twice)] == [(0, 0), (0, 0)]


async def asked(nodes):
    names = []

    async def ask(node):
        names.append(node)
        raise ChainUnavailable("down")

    with pytest.raises(ChainUnavailable) as caught:
        await nodes.call("q", ask, 5)
    return names, str(caught.value)


async def test_failover_asks_good_nodes_first_then_those_least_behind_and_strayed_ones_never():
    node_health = NodeHealthTable(6)
    node_health.assessments = (
        NodeAssessment(FORKED),
        NodeAssessment(SILENT),
        NodeAssessment(BEHIND, 9),
        NodeAssessment(BEHIND, 3),
        NodeAssessment(FOREIGN),
        NodeAssessment(GOOD),
    )
    nodes = Failover(list("abcdef"), clock=lambda: 0.0, node_health=node_health)
    assert (await asked(nodes))[0] == ["f", "d", "c", "b"]
    assert [nodes.better_node_exists(i) for i in range(6)] == [True, True, True, True, True, False]


async def test_a_failure_weighs_more_than_a_standing():
    node_health = NodeHealthTable(2)
    node_health.assessments = (NodeAssessment(GOOD), NodeAssessment(BEHIND, 3))
    nodes = Failover(["a", "b"], clock=lambda: 0.0, node_health=node_health)
    assert (await asked(nodes))[0] == ["a", "b"]
    nodes._failed_until = {0: 5.0}
    assert nodes.order() == [1, 0]
    assert not nodes.better_node_exists(0)


async def test_with_no_node_left_the_error_says_where_to_look():
    node_health = NodeHealthTable(1)
    node_health.assessments = (NodeAssessment(FOREIGN),)
    names, text = await asked(Failover(["a"], node_health=node_health))
    assert (names, "Check spec.chain.nodes" in text) == ([], True)


def test_the_name_of_a_node_holds_no_password():
    assert NodeAddress.parse("grpcs://user:secret@node:1", "http://x:1").name == "node:1"
