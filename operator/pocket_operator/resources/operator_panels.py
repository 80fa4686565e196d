"""Define the panels of the operator's dashboard."""

from typing import Final

from pocket_operator.resources.panels import Panel, Row

OPERATOR_ROWS: Final = (
    Row(
        "Operator",
        (
            Panel("Leaders", (("sum(pocket_operator_leader)", ""),), stat=True, width=4),
            Panel("RelayMiners", (("max(pocket_operator_relay_miners)", ""),), stat=True, width=4),
            Panel("Paused", (("max(pocket_operator_relay_miners_paused)", ""),), stat=True, width=4),
            Panel("Suppliers", (("max(pocket_operator_suppliers)", ""),), stat=True, width=4),
            Panel(
                "Not served",
                (
                    (
                        "sum(max by (relay_miner_namespace, relay_miner) (pocket_operator_suppliers_declared)) - "
                        "sum(max by (relay_miner_namespace, relay_miner) (pocket_operator_suppliers_served))",
                        "",
                    ),
                ),
                stat=True,
                width=4,
            ),
            Panel("Sealing keys", (("min(pocket_operator_sealing_keys)", ""),), stat=True, width=4),
            Panel("Waiting to be reconciled", (("max(pocket_operator_queue_keys)", ""),), stat=True, width=4),
            Panel(
                "Stakes, by state",
                (("max by (reason) (pocket_operator_stakes)", "{{reason}}"),),
            ),
        ),
    ),
    Row(
        "Reconciliation",
        (
            Panel(
                "Reconciliations, by result",
                (("sum by (result) (rate(pocket_operator_reconciles_total[5m]))", "{{result}}"),),
                "ops",
            ),
            Panel(
                "One reconciliation, p99",
                (
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(pocket_operator_reconcile_seconds_bucket[5m])))",
                        "p99",
                    ),
                ),
                "s",
            ),
            Panel("Age of the watches", (("max by (pod) (pocket_operator_watch_age_seconds)", "{{pod}}"),), "s"),
            Panel(
                "Writes, by kind", (("sum by (kind) (rate(pocket_operator_api_writes_total[5m]))", "{{kind}}"),), "wps"
            ),
            Panel(
                "Requests to the API server, by method and result",
                (
                    (
                        'sum by (method, result) (rate(pocket_operator_api_seconds_bucket{le="+Inf"}[5m]))',
                        "{{method}} {{result}}",
                    ),
                ),
                "reqps",
            ),
            Panel(
                "Requests to the API server, p99",
                (
                    (
                        "histogram_quantile(0.99, sum by (le, method) (rate(pocket_operator_api_seconds_bucket[5m])))",
                        "{{method}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Rejected by the API server",
                (("sum by (status) (increase(pocket_operator_api_refusals_total[5m]))", "{{status}}"),),
            ),
            Panel(
                "Repairs of what another client keeps changing",
                (("sum by (kind) (increase(pocket_operator_contested_writes_total[5m]))", "{{kind}}"),),
            ),
            Panel(
                "Events that were not written",
                (("sum(increase(pocket_operator_events_dropped_total[5m]))", "events"),),
            ),
            Panel(
                "Versions",
                (("count by (version, commit, python) (pocket_operator_build_info)", "{{version}} {{commit}}"),),
            ),
            Panel(
                "Fields that CRDs and operator do not share",
                (("max by (kind, state) (pocket_operator_schema_fields)", "{{kind}} {{state}}"),),
            ),
            Panel(
                "Missing definitions and restarts of watches",
                (
                    ("max by (kind) (pocket_operator_definitions_missing)", "{{kind}} missing"),
                    ("sum(increase(pocket_operator_watch_restarts_total[5m]))", "restarts"),
                ),
            ),
        ),
    ),
)
