"""Build PodMonitor and PrometheusRule if the cluster has these kinds."""

from dataclasses import dataclass

from pocket_operator.resources import names
from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.objectives import burn_alerts, recording_rules

RUNBOOK = "https://github.com/pocket-relay-mining/pocket-relay-mining/blob/main/docs/runbook.md"


@dataclass(frozen=True, slots=True)
class Alert:
    """An alerting rule.

    `{pods}` stands for the label matcher of the RelayMiner's pods, `{relay_miner}` for that of the operator's series
    about it, `{shards}` for the number of shards.
    """

    name: str
    expression: str
    minutes: int
    severity: str
    summary: str


ALERTS = (
    Alert(
        "PocketMinerAbsent", 'absent(pocket_miner_block_height{{{pods}}})', 5, "critical",
        "No miner reports: claims and proofs are not sent",
    ),
    Alert(
        "PocketRelayerAbsent", 'absent(pocket_relayer_supplier_keys{{{pods}}})', 5, "critical",
        "No relayer reports: relays are not served",
    ),
    Alert(
        "PocketSuppliersNotServed",
        'max(pocket_operator_suppliers_declared{{{relay_miner}}}) > '
        'max(pocket_operator_suppliers_served{{{relay_miner}}})', 10,
        "warning", "A Supplier is served by no relayer or mined by no miner",
    ),
    Alert(
        "PocketBlocksStale", 'changes(pocket_miner_block_height{{{pods}}}[10m]) == 0', 5, "critical",
        "No new block for 10 minutes: check the chain nodes",
    ),
    Alert(
        "PocketSessionLost", 'increase(pocket_miner_session_outcomes_total{{{pods},outcome=~'
        '"claim_missed|claim_lost|proof_missed|proof_invalid|expired|forfeited"}}[30m]) > 0', 0, "critical",
        "A session was lost: `relayctl ledger verify` and the audit name its stage and reason",
    ),
    Alert(
        "PocketRelaysNotRecorded", 'increase(pocket_relayer_relays_not_recorded_total{{{pods}}}[10m]) > 0', 0,
        "critical", "Served relays could not be recorded: check Redis and the relayers' volumes",
    ),
    Alert(
        "PocketEntriesRefused", 'increase(pocket_miner_relays_refused_total{{{pods}}}[10m]) > 0', 0, "critical",
        "Recorded relays are invalid and are not mined: the label `reason` names the check",
    ),
    Alert(
        "PocketRelaysUnprovable", 'increase(pocket_relayer_relays_unprovable_total{{{pods}}}[1h]) > 0', 0, "warning",
        "Relays are served unpaid since their requests are too large for a proof",
    ),
    Alert(
        "PocketRelaysRejected", 'sum(rate(pocket_relayer_relays_rejected_total{{{pods}}}[5m])) > 0.2 * '
        'sum(rate(pocket_relayer_relays_received_total{{{pods}}}[5m]))', 10, "warning",
        "More than a fifth of the relays is rejected",
    ),
    Alert(
        "PocketRelaysWaiting", 'sum(pocket_relayer_relays_queued{{{pods}}}) > 5000', 2, "warning",
        "Relays wait to be recorded: Redis is slow or away",
    ),
    Alert(
        "PocketSupplierKeysMissing", 'min(pocket_relayer_supplier_keys{{{pods}}}) == 0', 5, "warning",
        "A relayer has no supplier key",
    ),
    Alert(
        "PocketConflictingClaim", 'increase(pocket_miner_conflicting_claims_total{{{pods}}}[1h]) > 0', 0, "critical",
        "A claim on chain is not ours: another miner uses a supplier's key",
    ),
    Alert(
        "PocketUnknownClaim", 'increase(pocket_miner_unknown_claims_total{{{pods}}}[1h]) > 0', 0, "critical",
        "A claim on chain is of a session that no miner here knows: stake may be lost",
    ),
    Alert(
        "PocketShardsUnheld", 'sum(pocket_miner_shards{{{pods}}}) < {shards}', 2, "critical",
        "No miner owns some of the shards, so their suppliers are not mined",
    ),
    Alert(
        "PocketWindowsTight", 'histogram_quantile(0.1, sum by (le, message) '
        '(rate(pocket_miner_window_margin_blocks_bucket{{{pods}}}[1h]))) < 2', 10, "warning",
        "Claims or proofs reach the chain in the last blocks of their windows",
    ),
    Alert(
        "PocketBalanceLow", 'min by (supplier) (pocket_miner_balance_upokt{{{pods}}}) < 1000000', 5, "warning",
        "A supplier has less than 1 POKT for the fees of its claims and proofs",
    ),
    Alert(
        "PocketStakeRunwayShort", 'min by (supplier) (pocket_miner_stake_runway_penalties{{{pods}}}) < 3', 5,
        "critical",
        "A few more penalties unstake a supplier",
    ),
    Alert(
        "PocketStakeRunwayLow", 'min by (supplier) (pocket_miner_stake_runway_penalties{{{pods}}}) < 10', 30, "warning",
        "A supplier's stake takes fewer than ten further penalties",
    ),
    Alert(
        "PocketEndpointsBroken", 'max by (supplier) (pocket_miner_endpoint_problems{{{pods}}}) > 0', 15, "warning",
        "A public URL of a supplier's stake cannot be reached, or its certificate ends soon",
    ),
    Alert(
        "PocketChainDiverges",
        '(sum(increase(pocket_relayer_chain_cache_requests_total{{{pods},source="divergent"}}[1h])) or vector(0)) + '
        '(sum(increase(pocket_miner_chain_cache_requests_total{{{pods},source="divergent"}}[1h])) or vector(0)) > 0',
        0, "critical",
        "Nodes return different sessions: they do not follow the same chain",
    ),
    Alert(
        "PocketChainNodesDisagree", 'max by (health) (pocket_miner_chain_nodes{{{pods},health!="healthy"}}) > 0', 10,
        "warning", "Chain nodes are behind, silent, on another fork or on another chain",
    ),
    Alert(
        "PocketClockSkewed", 'min(pocket_miner_block_age_seconds{{{pods}}}) < -5', 5, "warning",
        "A miner's clock is slow: blocks come from its future",
    ),
    Alert(
        "PocketProbesFail", 'sum(increase(pocket_relayer_simulated_relays_total{{{pods},result!="served"}}[10m])) > 2',
        5, "warning",
        "Simulated relays are not served: a backend, a key or the way to them is broken",
    ),
    Alert(
        "PocketRedisMemoryHigh", 'max(pocket_miner_redis_memory_bytes{{{pods},type="used"}}) / '
        'max(pocket_miner_redis_memory_bytes{{{pods},type="max"}} > 0) > 0.8', 5, "critical",
        "Redis is nearly full: relayers will reject relays rather than lose them",
    ),
    Alert(
        "PocketMinerVolumeFilling",
        'min(pocket_miner_volume_bytes{{{pods},type="free"}} / ignoring(type) '
        'pocket_miner_volume_bytes{{{pods},type="total"}}) < 0.1 or '
        'min(pocket_miner_volume_bytes{{{pods},type="reserved"}}) < 1', 5, "critical",
        "The volume of a miner is filling up: when it is full, relays wait in Redis and are claimed late or not at all",
    ),
    Alert(
        "PocketMinerVolumeReadOnly", "max(pocket_miner_volume_read_only{{{pods}}}) > 0", 0, "critical",
        "The volume of a miner is read-only: only sessions that are sealed on it are claimed and proven",
    ),
    Alert(
        "PocketMinerVolumeHangs", "max(pocket_miner_volume_hangs{{{pods}}}) > 0", 0, "critical",
        "The volume of a miner hangs: nothing is claimed or proven unless another miner takes over",
    ),
    Alert(
        "PocketRelayerLogDamaged",
        "sum(pocket_relayer_local_log_damaged_segments{{{pods}}}) + "
        "sum(pocket_relayer_local_log_damaged_records{{{pods}}}) > 0", 0, "critical",
        "A relayer's write-ahead log is damaged: its relays are lost if Redis loses them before a miner has read them",
    ),
    Alert(
        "PocketMinerStepsFail", 'sum by (step) (rate(pocket_miner_errors_total{{{pods}}}[10m])) > 0.1', 10, "warning",
        "A step of the miner fails repeatedly",
    ),
)  # fmt: skip


def monitors(context: Context) -> list[Object]:
    """Build the PodMonitor by which Prometheus finds the pods."""
    chosen = context.relay_miner.spec.monitoring
    if not chosen.pod_monitor or "PodMonitor" not in context.capabilities:
        return []
    child = context.object(
        "monitoring.coreos.com/v1", "PodMonitor", context.name, "monitoring",
        spec={
            "selector": {"matchLabels": {names.LABEL_RELAY_MINER: context.name}},
            "podMetricsEndpoints": [{"port": "admin", "path": "/metrics", "interval": "30s"}],
            "podTargetLabels": [names.LABEL_COMPONENT, names.LABEL_RELAY_MINER],
        },
    )  # fmt: skip
    child["metadata"]["labels"] = {**chosen.labels, **child["metadata"]["labels"]}
    return [child]


def rules(context: Context) -> list[Object]:
    """Build the alerting rules, each with a runbook entry, and the objectives."""
    chosen = context.relay_miner.spec.monitoring
    if not chosen.rules or "PrometheusRule" not in context.capabilities:
        return []
    pods = f'namespace="{context.namespace}",pocket_network_relayminer="{context.name}"'
    relay_miner = f'relay_miner_namespace="{context.namespace}",relay_miner="{context.name}"'
    shards = context.relay_miner.spec.miner.shards
    apart = {"namespace": context.namespace, "pocket_network_relayminer": context.name}
    alerts: list[Object] = []
    for alert in ALERTS:
        row: Object = {
            "alert": alert.name,
            "expr": alert.expression.format(pods=pods, relay_miner=relay_miner, shards=shards),
            "labels": {"severity": alert.severity, **apart},
            "annotations": {"summary": alert.summary, "runbook_url": f"{RUNBOOK}#{alert.name.lower()}"},
        }
        if alert.minutes:
            row["for"] = f"{alert.minutes}m"
        alerts.append(row)
    child = context.object(
        "monitoring.coreos.com/v1", "PrometheusRule", context.name, "monitoring",
        spec={
            "groups": [
                {"name": f"pocket-{context.namespace}-{context.name}", "rules": alerts},
                {
                    "name": f"pocket-{context.namespace}-{context.name}-objectives",
                    "rules": [*recording_rules(pods, apart), *burn_alerts(apart, RUNBOOK)],
                },
            ]
        },
    )  # fmt: skip
    child["metadata"]["labels"] = {**chosen.labels, **child["metadata"]["labels"]}
    return [child]
