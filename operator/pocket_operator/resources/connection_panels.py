"""Define the panels of connections and of the pools that hold them."""

from typing import Final

from pocket_operator.resources.panels import Panel, Row, quantiles

CONNECTIONS: Final = Row(
    "Connections",
    (
        Panel(
            "Connections to backends",
            (("sum by (service, state) (pocket_relayer_backend_connections{$pods})", "{{service}} {{state}}"),),
        ),
        Panel(
            "Relays waiting for a connection to a backend",
            (("sum by (service) (pocket_relayer_backend_connections_awaited{$pods})", "{{service}}"),),
        ),
        Panel(
            "Connections to Redis",
            (
                ("sum by (pod, state) (pocket_relayer_redis_connections{$pods})", "{{pod}} {{state}}"),
                ("sum by (pod, state) (pocket_miner_redis_connections{$pods})", "{{pod}} {{state}}"),
            ),
        ),
        Panel("Transaction size", quantiles("pocket_miner_transaction_bytes"), "bytes"),
    ),
)
