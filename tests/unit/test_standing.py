"""Which of several nodes may be asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.failover import Failover, NodeAddress
from pocket.chain.node_health import NodeAssessment, NodeHealth, NodeHealthTable, NodeProbe, compared_height, judge
from pocket.errors import ChainUnavailable

GOOD, DISPUTED, BEHIND = NodeHealth.HEALTHY, NodeHealth.DISPUTED, NodeHealth.LAGGING
SILENT, FORKED, FOREIGN = NodeHealth.UNREACHABLE, NodeHealth.FORKED, NodeHealth.WRONG_CHAIN


def sight(height=10, block=b"a", chain="pocket"):
    return NodeProbe(height, chain, block)


@pytest.mark.parametrize(
    ("sights", "expected"),
    [
        ([sight(), sight()], [GOOD, GOOD]),
        ([sight(8), sight(10)], [GOOD, GOOD]),
        ([sight(7), sight(10)], [BEHIND, GOOD]),
        ([sight(), NodeProbe(problem="down")], [GOOD, SILENT]),
        ([NodeProbe(), NodeProbe()], [SILENT, SILENT]),
        ([sight(chain="other"), sight()], [FOREIGN, GOOD]),
        ([sight(), sight(block=b"b"), sight()], [GOOD, FORKED, GOOD]),
        ([sight(99, b"b"), sight(), sight()], [FORKED, GOOD, GOOD]),
        ([sight(), sight(block=b"b")], [DISPUTED, DISPUTED]),
        ([sight(), sight(block=b"b"), sight(block=b"c")], [DISPUTED, DISPUTED, DISPUTED]),
        ([sight(99), sight(block=b"b"), sight(5, None)], [DISPUTED, DISPUTED, BEHIND]),
        ([sight(), sight(block=b"b"), sight(5, b"b")], [FORKED, GOOD, BEHIND]),
        ([sight(), sight(block=None), sight()], [GOOD, GOOD, GOOD]),
        ([sight(chain="other", block=b"b"), sight(chain="other", block=b"b"), sight()], [FOREIGN, FOREIGN, GOOD]),
        ([sight()], [GOOD]),
    ],
)
def test_nodes_are_judged_by_what_most_of_them_say(sights, expected):
    assert [verdict.health for verdict in judge(sights, "pocket")] == expected


def test_the_lag_counts_from_the_best_node_that_is_on_the_chain_of_most():
    lags = [v.lag for v in judge([sight(99, b"b"), sight(12), sight(9)], "pocket")]
    assert lags == [0, 0, 3]


@pytest.mark.parametrize(
    ("sights", "expected"),
    [
        ([sight(8), sight(10)], 8),
        ([sight(8)], 0),
        ([sight(8), NodeProbe()], 0),
        ([sight(8, chain="other"), sight(10)], 0),
        ([sight(1), sight(500), sight(499)], 499),
    ],
)
def test_nodes_are_compared_at_a_height_that_all_near_ones_have(sights, expected):
    assert compared_height(sights, "pocket") == expected


sights = st.lists(
    st.builds(
        NodeProbe,
        st.integers(0, 300),
        st.sampled_from(["pocket", "pocket", "other"]),
        st.sampled_from([None, b"a", b"b"]),
    ),
    min_size=1,
    max_size=7,
)


@given(sights)
def test_a_majority_of_the_chain_is_never_shut_out_and_no_node_of_another_chain_is_asked(nodes):
    verdicts = judge(nodes, "pocket")
    voters = [(s, v) for s, v in zip(nodes, verdicts, strict=True) if s.answered and s.chain_id == "pocket" and s.hash]
    shut_out = [v for _, v in voters if v.rank is None]
    assert len(shut_out) * 2 < len(voters) or not shut_out
    for node, verdict in zip(nodes, verdicts, strict=True):
        assert (verdict.health is FOREIGN) == (node.answered and node.chain_id != "pocket")
        assert verdict.rank is None or verdict.health not in (FORKED, FOREIGN)
        assert verdict.lag >= 0


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
    node_health.verdicts = (
        NodeAssessment(FORKED),
        NodeAssessment(SILENT),
        NodeAssessment(BEHIND, 9),
        NodeAssessment(BEHIND, 3),
        NodeAssessment(FOREIGN),
        NodeAssessment(GOOD),
    )
    nodes = Failover(list("abcdef"), clock=lambda: 0.0, node_health=node_health)
    assert (await asked(nodes))[0] == ["f", "d", "c", "b"]
    assert [nodes.outranked(i) for i in range(6)] == [True, True, True, True, True, False]


async def test_a_failure_weighs_more_than_a_standing():
    node_health = NodeHealthTable(2)
    node_health.verdicts = (NodeAssessment(GOOD), NodeAssessment(BEHIND, 3))
    nodes = Failover(["a", "b"], clock=lambda: 0.0, node_health=node_health)
    assert (await asked(nodes))[0] == ["a", "b"]
    nodes._failed_until = {0: 5.0}
    assert nodes.order() == [1, 0]
    assert not nodes.outranked(0)


async def test_with_no_node_left_the_error_says_where_to_look():
    node_health = NodeHealthTable(1)
    node_health.verdicts = (NodeAssessment(FOREIGN),)
    names, text = await asked(Failover(["a"], node_health=node_health))
    assert (names, "Check spec.chain.nodes" in text) == ([], True)


def test_the_name_of_a_node_holds_no_password():
    assert NodeAddress.parse("grpcs://user:secret@node:1", "http://x:1").name == "node:1"
