"""The guard of `kubectl pocket clean`: keys stay while anything may still need them."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pocket.redis_store.redis_keys import RedisKeys
from pocket_operator.resources import names
from relayctl.k8s.cluster_view import ClusterView
from relayctl.k8s.dead_keys import KINDS, ClusterFacts, PrefixFacts, reasons_to_keep
from relayctl.k8s.plugin import cluster_facts
from resources import changed, relay_miner

MINER = {"metadata": {"namespace": "ns", "name": "main-miner-0", "labels": names.selector("main", names.MINER)}}
VIEW = ClusterView(datetime(2026, 11, 29, tzinfo=UTC), "", (relay_miner("ns"),), (), (MINER,))
OWNER = "ns/main"
GONE = ClusterFacts(relay_miner=False)
FACTS = PrefixFacts(OWNER, {"seals": 3, "owner": 1}, 0, 0, "same")


@pytest.mark.parametrize(
    ("first", "second", "cluster", "words"),
    [
        (FACTS, replace(FACTS, owner="ns/other"), GONE, "belongs to ns/other"),
        (FACTS, replace(FACTS, owner=""), GONE, "belongs to no RelayMiner"),
        (FACTS, FACTS, replace(GONE, relay_miner=True), "exists: delete it first"),
        (FACTS, FACTS, replace(GONE, pods=("ns/main-miner-0",)), "pods of it exist: ns/main-miner-0"),
        (FACTS, FACTS, replace(GONE, others=("x/y",)), "RelayMiner x/y uses the same prefix"),
        (replace(FACTS, activity="other"), FACTS, GONE, "changed while they were watched"),
        (FACTS, replace(FACTS, open_sessions=2, relays=7), GONE, "2 sessions with 7 relays are not settled"),
        (FACTS, replace(FACTS, keys={}), GONE, "there is no key"),
    ],
)
def test_keys_stay_for_each_reason(first, second, cluster, words):
    (reason,) = reasons_to_keep(OWNER, first, second, cluster, discard_open=False)
    assert words in reason


def test_keys_of_a_gone_relay_miner_may_go():
    assert reasons_to_keep(OWNER, FACTS, FACTS, GONE, discard_open=False) == []
    open_ = replace(FACTS, open_sessions=2)
    assert reasons_to_keep(OWNER, open_, open_, GONE, discard_open=True) == []


def test_the_cluster_is_searched_for_the_resource_its_pods_and_the_prefix():
    other = changed(relay_miner("else", "eu-main"), "spec.prefix", "ns-main")
    view = replace(VIEW, relay_miners=(relay_miner("ns"), other))
    assert cluster_facts(view, OWNER, "ns-main") == ClusterFacts(True, ("ns/main-miner-0",), ("else/eu-main",))
    assert cluster_facts(replace(VIEW, relay_miners=(), pods=()), OWNER, "ns-main") == GONE


def test_every_kind_of_key_is_known():
    keys = RedisKeys("p")
    built = [
        keys.stream("a", "s"), keys.sessions("a"), keys.closed("a"), keys.cutoff("a"), keys.incarnation("a"),
        keys.seals("a"), keys.transactions("a"), keys.fence("a"), keys.replicated("a"), keys.costs("a", "s"),
        *keys.spent("a", "s"), keys.rate("e", "a", 1), keys.simulated("d"), keys.notifications(1), keys.owner,
        keys.leases, keys.block, keys.blocks, keys.cache_known, keys.cache_version, keys.cache_invalidations,
        keys.cache("k", "n"),
    ]  # fmt: skip
    assert {name.split(":")[1] for name in built} == KINDS
    methods = {name for name in dir(RedisKeys) if not name.startswith("_")} - {"prefix", "spent", "cached"}
    assert len(methods) + 1 == len(KINDS) + 1
