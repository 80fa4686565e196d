"""Define the panels of a RelayMiner's dashboard: titles, queries, units."""

from collections.abc import Mapping
from typing import Final

from pocket_operator.resources.connection_panels import CONNECTIONS
from pocket_operator.resources.money_panels import MONEY
from pocket_operator.resources.panels import Panel, Row, quantiles

_VERSION: Final = "{{version}} {{commit}}"
ROWS: Final = (
    Row(
        "Now",
        (
            Panel(
                "Relays per second",
                (("sum(rate(pocket_relayer_relays_served_total{$pods}[5m]))", ""),),
                "reqps",
                stat=True,
                width=4,
            ),
            Panel(
                "Refused",
                (
                    (
                        "(sum(rate(pocket_relayer_relays_rejected_total{$pods}[5m])) or vector(0)) / "
                        "sum(rate(pocket_relayer_relays_received_total{$pods}[5m]))",
                        "",
                    ),
                ),
                "percentunit",
                stat=True,
                width=4,
            ),
            Panel("Open sessions", (("sum(pocket_miner_sessions{$pods})", ""),), stat=True, width=4),
            Panel(
                "Earned, last day",
                (("sum(increase(pocket_miner_earned_upokt_total{$pods}[1d])) / 1e6", ""),),
                "POKT",
                stat=True,
                width=4,
            ),
            Panel(
                "Lost, last day",
                (("(sum(increase(pocket_miner_lost_upokt_total{$pods}[1d])) or vector(0)) / 1e6", ""),),
                "POKT",
                stat=True,
                width=4,
            ),
            Panel("Block", (("max(pocket_miner_block_height{$pods})", ""),), stat=True, width=4),
        ),
    ),
    Row(
        "Relays",
        (
            Panel(
                "Served, by service",
                (("sum by (service) (rate(pocket_relayer_relays_served_total{$pods}[5m]))", "{{service}}"),),
                "reqps",
            ),
            Panel(
                "Served, by transport",
                (("sum by (rpc_type) (rate(pocket_relayer_relays_served_total{$pods}[5m]))", "{{rpc_type}}"),),
                "reqps",
            ),
            Panel(
                "Refused, by reason",
                (("sum by (reason) (rate(pocket_relayer_relays_rejected_total{$pods}[5m]))", "{{reason}}"),),
                "reqps",
            ),
            Panel("Whole relay", quantiles("pocket_relayer_relay_seconds"), "s"),
            Panel("Backend's share", quantiles("pocket_relayer_backend_seconds", "service"), "s"),
            Panel(
                "Mined, and below the difficulty",
                (
                    ("sum(rate(pocket_relayer_relays_mined_total{$pods}[5m]))", "mined"),
                    ("sum(rate(pocket_relayer_relays_skipped_difficulty_total{$pods}[5m]))", "below the difficulty"),
                    ("sum(rate(pocket_relayer_relays_duplicate_total{$pods}[5m]))", "equal to another: unpaid"),
                ),
                "reqps",
            ),
            Panel(
                "Budgets",
                (("sum by (outcome) (rate(pocket_relayer_relays_metered_total{$pods}[5m]))", "{{outcome}}"),),
                "reqps",
            ),
            Panel("WebSockets", (("sum by (service) (pocket_relayer_websockets{$pods})", "{{service}}"),)),
            Panel(
                "Probes",
                (("sum by (result) (rate(pocket_relayer_simulated_relays_total{$pods}[5m]))", "{{result}}"),),
                "reqps",
            ),
            Panel(
                "Over undeclared transports",
                (
                    (
                        "sum by (service, rpc_type) "
                        "(rate(pocket_relayer_undeclared_transport_served_total{$pods}[5m]))",
                        "{{service}} {{rpc_type}}",
                    ),
                ),
                "reqps",
            ),
        ),
    ),
    Row(
        "Recording",
        (
            Panel("Waiting to be recorded", (("sum by (pod) (pocket_relayer_relays_queued{$pods})", "{{pod}}"),)),
            Panel("Local logs", (("sum by (pod) (pocket_relayer_local_log_bytes{$pods})", "{{pod}}"),), "bytes"),
            Panel(
                "Not recorded",
                (("sum by (reason) (increase(pocket_relayer_relays_not_recorded_total{$pods}[5m]))", "{{reason}}"),),
            ),
            Panel(
                "Too large for a proof",
                (("sum by (service) (increase(pocket_relayer_relays_unprovable_total{$pods}[5m]))", "{{service}}"),),
            ),
            Panel(
                "Logs appended again",
                (("sum by (reason) (increase(pocket_relayer_ledger_replays_total{$pods}[5m]))", "{{reason}}"),),
            ),
            Panel(
                "Damage in logs",
                (
                    ("sum by (pod) (pocket_relayer_local_log_damaged_segments{$pods})", "{{pod}}, unreadable segments"),
                    ("sum by (pod) (pocket_relayer_local_log_damaged_records{$pods})", "{{pod}}, records"),
                ),
            ),
            Panel(
                "Restarted background tasks",
                (("sum by (task) (increase(pocket_relayer_background_task_restarts_total{$pods}[5m]))", "{{task}}"),),
            ),
            Panel(
                "Relays stored",
                (
                    ("sum(rate(pocket_miner_relays_stored_total{$pods}[5m]))", "by owners"),
                    ("sum(rate(pocket_miner_standby_relays_total{$pods}[5m]))", "by standbys"),
                    ("sum(rate(pocket_miner_relays_merged_total{$pods}[5m]))", "from peers"),
                ),
                "reqps",
            ),
            Panel(
                "Refused entries of streams",
                (("sum by (reason) (increase(pocket_miner_relays_refused_total{$pods}[5m]))", "{{reason}}"),),
            ),
        ),
    ),
    Row(
        "Claims and proofs",
        (
            Panel("Sessions, by stage", (("sum by (stage) (pocket_miner_sessions{$pods})", "{{stage}}"),)),
            Panel("Claims", (("sum by (result) (increase(pocket_miner_claims_total{$pods}[5m]))", "{{result}}"),)),
            Panel("Proofs", (("sum by (result) (increase(pocket_miner_proofs_total{$pods}[5m]))", "{{result}}"),)),
            Panel(
                "Blocks left in the window, one in ten has less",
                (
                    (
                        "histogram_quantile(0.1, sum by (le, message) "
                        "(rate(pocket_miner_window_margin_blocks_bucket{$pods}[1h])))",
                        "{{message}}",
                    ),
                ),
            ),
            Panel(
                "Outcomes",
                (("sum by (outcome) (increase(pocket_miner_session_outcomes_total{$pods}[1h]))", "{{outcome}}"),),
            ),
            Panel(
                "Claims that are not ours",
                (
                    ("sum(increase(pocket_miner_conflicting_claims_total{$pods}[1h]))", "another root"),
                    ("sum(increase(pocket_miner_unknown_claims_total{$pods}[1h]))", "an unknown session"),
                ),
            ),
        ),
    ),
    MONEY,
    Row(
        "Miners and chain",
        (
            Panel("Shards", (("sum by (pod) (pocket_miner_shards{$pods})", "{{pod}}"),)),
            Panel("Suppliers", (("sum by (pod, role) (pocket_miner_suppliers{$pods})", "{{pod}} {{role}}"),)),
            Panel("Leader", (("sum by (pod) (pocket_miner_leader{$pods})", "{{pod}}"),)),
            Panel("Lease writes", (("sum(rate(pocket_miner_lease_writes_total{$pods}[5m]))", ""),), "wps"),
            Panel("Failed steps", (("sum by (step) (rate(pocket_miner_errors_total{$pods}[5m]))", "{{step}}"),)),
            Panel("Tailed sessions", (("sum by (pod) (pocket_miner_tail_sessions{$pods})", "{{pod}}"),)),
            Panel(
                "Chain answers of relayers, by where they come from",
                (("sum by (source) (rate(pocket_relayer_chain_cache_requests_total{$pods}[5m]))", "{{source}}"),),
                "reqps",
            ),
            Panel(
                "Chain answers of miners",
                (("sum by (source) (rate(pocket_miner_chain_cache_requests_total{$pods}[5m]))", "{{source}}"),),
                "reqps",
            ),
            Panel(
                "Records looked at again",
                (("sum by (result) (rate(pocket_miner_cache_refreshes_total{$pods}[5m]))", "{{result}}"),),
                "ops",
            ),
            Panel(
                "Block heights",
                (
                    ("max by (pod) (pocket_relayer_block_height{$pods})", "{{pod}}"),
                    ("max by (pod) (pocket_miner_block_height{$pods})", "{{pod}}"),
                ),
            ),
            *(
                Panel(f"{title}, p99 by result", quantiles(family, "result", ((0.99, "p99"),)), "s")
                for title, family in (
                    ("Chain queries of relayers", "pocket_relayer_chain_query_seconds"),
                    ("Chain queries of miners", "pocket_miner_chain_query_seconds"),
                    ("Broadcasts", "pocket_miner_broadcast_seconds"),
                    ("Signatures for relayers", "pocket_relayer_signer_seconds"),
                    ("Signatures for miners", "pocket_miner_signer_seconds"),
                )
            ),
            Panel("Chain nodes, by health", (("max by (health) (pocket_miner_chain_nodes{$pods})", "{{health}}"),)),
            Panel(
                "Chain nodes, blocks behind",
                (("max by (node) (pocket_miner_chain_node_lag_blocks{$pods})", "{{node}}"),),
            ),
            Panel(
                "Chain nodes as relayers see them, not good",
                (
                    (
                        'sum by (node, health) (pocket_relayer_chain_node_health{$pods,health!="healthy"})',
                        "{{node}} {{health}}",
                    ),
                ),
            ),
            Panel(
                "Age of new blocks by the miners' clocks",
                (("max by (pod) (pocket_miner_block_age_seconds{$pods})", "{{pod}}"),),
                "s",
            ),
            Panel(
                "Backends, by outcome",
                (
                    (
                        "sum by (service, outcome) (rate(pocket_relayer_backend_answers_total{$pods}[5m]))",
                        "{{service}} {{outcome}}",
                    ),
                ),
                "reqps",
            ),
            Panel(
                "Retries at backends",
                (("sum by (service) (rate(pocket_relayer_backend_retries_total{$pods}[5m]))", "{{service}}"),),
                "reqps",
            ),
            Panel(
                "Endpoints that are not asked",
                (
                    (
                        "max by (service, rpc_type) (pocket_relayer_backend_endpoints_unhealthy{$pods})",
                        "{{service}} {{rpc_type}}",
                    ),
                ),
            ),
            Panel(
                "Active checks",
                (
                    (
                        "sum by (service, result) (rate(pocket_relayer_health_checks_total{$pods}[5m]))",
                        "{{service}} {{result}}",
                    ),
                ),
                "reqps",
            ),
            Panel(
                "Parts of a relay, p99",
                (
                    (
                        "histogram_quantile(0.99, sum by (le, stage) "
                        "(rate(pocket_relayer_stage_seconds_bucket{$pods}[5m])))",
                        "{{stage}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Relays that wait for a backend",
                (("sum by (pod) (pocket_relayer_relays_in_flight{$pods})", "{{pod}}"),),
            ),
            Panel("Connections of clients", (("sum by (pod) (pocket_relayer_open_connections{$pods})", "{{pod}}"),)),
            Panel(
                "Connections that were closed",
                (("sum by (reason) (increase(pocket_relayer_closed_connections_total{$pods}[5m]))", "{{reason}}"),),
            ),
            Panel("Memory held by clients", (("sum by (pod) (pocket_relayer_held_bytes{$pods})", "{{pod}}"),), "bytes"),
            Panel(
                "Dropped for want of memory",
                (("sum by (pod) (increase(pocket_relayer_dropped_total{$pods}[5m]))", "{{pod}}"),),
            ),
            Panel(
                "Event loops, worst delay",
                (
                    ("max by (pod) (pocket_relayer_event_loop_lag_seconds{$pods})", "{{pod}}"),
                    ("max by (pod) (pocket_miner_event_loop_lag_seconds{$pods})", "{{pod}}"),
                ),
                "s",
            ),
            Panel(
                "Memory of the relayers", (("sum by (pod) (pocket_relayer_resident_bytes{$pods})", "{{pod}}"),), "bytes"
            ),
            Panel(
                "Tasks",
                (
                    ("sum by (pod) (pocket_relayer_tasks{$pods})", "{{pod}}"),
                    ("sum by (pod) (pocket_miner_tasks{$pods})", "{{pod}}"),
                ),
            ),
            Panel(
                "Versions",
                tuple(
                    (f"count by (version, commit, python) (pocket_{role}_build_info{{$pods}})", f"{role} {_VERSION}")
                    for role in ("relayer", "miner")
                ),
            ),
            Panel("Supplier keys", (("min by (pod) (pocket_relayer_supplier_keys{$pods})", "{{pod}}"),)),
            Panel(
                "Remote signer: 1 if it does not answer, and keys that it lacks",
                tuple(
                    (f"max by (pod) (pocket_{role}_signer_{what}{{$pods}})", f"{{{{pod}}}} {what}")
                    for role in ("relayer", "miner")
                    for what in ("down", "missing_keys")
                ),
            ),
        ),
    ),
    CONNECTIONS,
)

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "relayers": ("Now", "Relays", "Recording", "Connections"),
    "miners": ("Now", "Claims and proofs", "Miners and chain", "Connections"),
    "earnings": ("Now", "Money"),
}
"""The rows of the dashboard of each role. Every row is on one at least."""
