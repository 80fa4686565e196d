"""Build NetworkPolicies.

Gateways reach relayers, miners each other, operator and Prometheus the admin port.
"""

from pocket_operator.resources import names
from pocket_operator.resources.config import ADMIN_PORT
from pocket_operator.resources.console import PORT as CONSOLE_PORT
from pocket_operator.resources.context import Context, Object


def policies(context: Context) -> list[Object]:
    """Build one policy per workload.

    Egress stays open, since backends and chain nodes can be anywhere.
    """
    chosen = context.relay_miner.spec.network_policy
    if not chosen.enabled:
        return []
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": context.operator_namespace}},
        "podSelector": {"matchLabels": {names.LABEL_NAME: "pocket-operator"}},
    }
    readers = [operator, *(dict(p) for p in chosen.metrics_from)]
    console = context.relay_miner.spec.console
    if console is not None:
        readers.append({"podSelector": {"matchLabels": names.selector(context.name, names.CONSOLE)}})
    admin: Object = {"from": readers, "ports": [{"port": ADMIN_PORT}]}
    miners = {"podSelector": {"matchLabels": names.selector(context.name, names.MINER)}}
    relays: Object = {"ports": [{"port": context.relay_miner.spec.relayer.port}]}
    if chosen.relays_from:
        relays["from"] = [dict(p) for p in chosen.relays_from]
    rendered = [
        _policy(context, names.RELAYER, names.relayer(context.name), [relays, admin]),
        _policy(context, names.MINER, names.miner(context.name), [{**admin, "from": [*admin["from"], miners]}]),
    ]
    if console is not None:
        peers = [dict(p) for p in chosen.console_from]
        allowed = [{"from": peers, "ports": [{"port": CONSOLE_PORT}]}] if peers else []
        rendered.append(_policy(context, names.CONSOLE, names.console(context.name), allowed))
    if context.relay_miner.spec.redis.trial is not None:
        peers = [
            {"podSelector": {"matchLabels": names.selector(context.name, component)}}
            for component in (names.RELAYER, names.MINER)
        ]
        rule = {"from": peers, "ports": [{"port": 6379}]}
        rendered.append(_policy(context, names.REDIS, names.redis(context.name), [rule]))
    return rendered


def _policy(context: Context, component: str, name: str, ingress: list[Object]) -> Object:
    return context.object(
        "networking.k8s.io/v1", "NetworkPolicy", name, component,
        spec={
            "podSelector": {"matchLabels": names.selector(context.name, component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    )  # fmt: skip
