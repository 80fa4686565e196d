"""Define the panels of what a RelayMiner earns, pays and loses."""

from typing import Final

from pocket_operator.resources.panels import Panel, Row

MONEY: Final = Row(
    "Money",
    (
        Panel(
            "Claimed, settled and earned",
            (
                ("sum(increase(pocket_miner_claimed_upokt_total{$pods}[1h])) / 1e6", "claimed"),
                ("sum(increase(pocket_miner_settled_upokt_total{$pods}[1h])) / 1e6", "settled: paid to everybody"),
                (
                    "sum(increase(pocket_miner_earned_upokt_total{$pods}[1h])) / 1e6",
                    "earned: by the suppliers' side",
                ),
            ),
            "POKT",
        ),
        Panel(
            "Earned, less fees",
            (
                (
                    "(sum(increase(pocket_miner_earned_upokt_total{$pods}[1h])) - "
                    "sum(increase(pocket_miner_fees_upokt_total{$pods}[1h]))) / 1e6",
                    "",
                ),
            ),
            "POKT",
        ),
        Panel(
            "Lost, by reason",
            (("sum by (reason) (increase(pocket_miner_lost_upokt_total{$pods}[1h])) / 1e6", "{{reason}}"),),
            "POKT",
        ),
        Panel(
            "Claims that need a proof",
            (("sum by (required) (increase(pocket_miner_proof_requirements_total{$pods}[1h]))", "{{required}}"),),
        ),
        Panel(
            "Earned, by supplier and service",
            (
                (
                    "sum by (supplier, service) (increase(pocket_miner_earned_upokt_total{$pods}[1h])) / 1e6",
                    "{{supplier}} {{service}}",
                ),
            ),
            "POKT",
        ),
        Panel(
            "Earned, by recipient",
            (("sum by (recipient) (increase(pocket_miner_earned_upokt_total{$pods}[1h])) / 1e6", "{{recipient}}"),),
            "POKT",
        ),
        Panel(
            "From a relay's recording to the volume, p99",
            (("histogram_quantile(0.99, sum by (le) (rate(pocket_miner_tail_seconds_bucket{$pods}[5m])))", "p99"),),
            "s",
        ),
        Panel("Memory of Redis", (("max by (type) (pocket_miner_redis_memory_bytes{$pods})", "{{type}}"),), "bytes"),
        Panel(
            "Volumes of the miners",
            (("min by (type) (pocket_miner_volume_bytes{$pods})", "{{type}}, the smallest"),),
            "bytes",
        ),
        Panel(
            "Volumes that take no writes",
            (
                ("sum(pocket_miner_volume_read_only{$pods})", "read-only"),
                ("sum(pocket_miner_volume_hangs{$pods})", "hanging"),
            ),
        ),
        Panel("Slow blocks", (("max(increase(pocket_miner_slow_blocks_total{$pods}[1h]))", "an hour"),)),
        Panel("Sessions with unread relays", (("sum by (pod) (pocket_miner_tail_behind_sessions{$pods})", "{{pod}}"),)),
        Panel(
            "Fees, by transaction",
            (("sum by (message) (increase(pocket_miner_fees_upokt_total{$pods}[1h])) / 1e6", "{{message}}"),),
            "POKT",
        ),
        Panel("Balances", (("min by (supplier) (pocket_miner_balance_upokt{$pods}) / 1e6", "{{supplier}}"),), "POKT"),
        Panel(
            "Public URLs that do not work",
            (("max by (supplier) (pocket_miner_endpoint_problems{$pods})", "{{supplier}}"),),
        ),
        Panel(
            "Penalties until a supplier is unstaked",
            (("min by (supplier) (pocket_miner_stake_runway_penalties{$pods})", "{{supplier}}"),),
        ),
    ),
)
