"""Build the Kubernetes objects that belong to a RelayMiner."""

from pocket_operator.resources import (
    config,
    dashboards,
    miner,
    monitoring,
    names,
    network,
    relayer,
    scaling,
    trial_redis,
)
from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.pods import disruption_budget


def desired(context: Context) -> list[Object]:
    """Return all children in the order in which they are applied: what others mount or name comes first.

    While the RelayMiner is being deleted, only the children that finish open claims and proofs are wanted.
    """
    mining = [
        *config.config_maps(context),
        *config.key_secrets(context),
        *miner.identity(context),
        *trial_redis.trial_redis(context),
        miner.service(context),
        miner.stateful_set(context),
    ]
    if context.deleting:
        return _with_images(mining)
    return _with_images(
        [
            *mining,
            relayer.service_account(context),
            relayer.service(context),
            relayer.deployment(context),
            *relayer.canary(context),
            disruption_budget(context, names.RELAYER),
            disruption_budget(context, names.MINER),
            *scaling.autoscalers(context),
            *relayer.routes(context),
            *network.policies(context),
            *monitoring.monitors(context),
            *monitoring.rules(context),
            *dashboards.dashboards(context),
        ]
    )


def _with_images(children: list[Object]) -> list[Object]:
    """Note on each workload the image that it is given, so that a change by hand is not taken for an older release."""
    for child in children:
        if child["kind"] in ("Deployment", "StatefulSet"):
            image = child["spec"]["template"]["spec"]["containers"][0]["image"]
            child["metadata"].setdefault("annotations", {})[names.ANNOTATION_IMAGE] = image
    return children
