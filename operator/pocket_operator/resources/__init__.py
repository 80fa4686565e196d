"""Build the Kubernetes objects that belong to a RelayMiner."""

from pocket_operator.resources import (
    config,
    console,
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
    """Return all children in the order in which they are applied.

    What others mount or name comes first. While the RelayMiner is being deleted, only the children that finish open
    claims and proofs are wanted.
    """
    mining = [
        *config.config_maps(context),
        *config.key_secrets(context),
        *_saved_revisions(context),
        *miner.identity(context),
        *trial_redis.trial_redis(context),
        miner.service(context),
        miner.stateful_set(context),
    ]
    if context.deleting:
        return _annotated(context, mining)
    return _annotated(
        context,
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
            *console.console(context),
            *network.policies(context),
            *monitoring.monitors(context),
            *monitoring.rules(context),
            *dashboards.dashboards(context),
        ],
    )


def _saved_revisions(context: Context) -> list[Object]:
    """Build the ConfigMaps with the revisions that the pods run.

    Another release could not render them again.
    """
    revisions = {names.MINER: miner.current(context)}
    if context.relay_miner.spec.redis.trial is not None:
        revisions[names.REDIS] = trial_redis.current(context)
    if not context.deleting:
        revisions[names.RELAYER] = relayer.current(context) if context.rollout is None else context.rollout.steady
    return [
        context.object("v1", "ConfigMap", names.revision(context.name, part), part, data=revision.data(part))
        for part, revision in revisions.items()
    ]


def _annotated(context: Context, children: list[Object]) -> list[Object]:
    """Note on each workload its image and the release that rendered it.

    A change by hand is then not taken for an older release, nor a change by the owner for a newer one.
    """
    for child in children:
        if child["kind"] not in ("Deployment", "StatefulSet"):
            continue
        kept = context.kept.get(child["metadata"]["labels"][names.LABEL_COMPONENT])
        child["metadata"].setdefault("annotations", {}).update(
            {
                names.ANNOTATION_IMAGE: child["spec"]["template"]["spec"]["containers"][0]["image"],
                names.ANNOTATION_RENDERING: context.rendering if kept is None else kept.rendering,
                **({names.ANNOTATION_OFFERED: kept.offered} if kept is not None else {}),
            }
        )
    return children
