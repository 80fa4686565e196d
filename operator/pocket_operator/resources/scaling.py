"""Build HorizontalPodAutoscalers. Removed pods drain or hand over their shards."""

from pocket_operator.resources import names
from pocket_operator.resources.context import Context, Object


def autoscalers(context: Context) -> list[Object]:
    """Build the autoscalers of the workloads that declare one."""
    spec = context.relay_miner.spec
    rendered = []
    for component, kind, chosen in (
        (names.RELAYER, "Deployment", spec.relayer.autoscaling),
        (names.MINER, "StatefulSet", spec.miner.autoscaling),
    ):
        if chosen is None:
            continue
        name = f"{context.name}-{component}"
        target = {"type": "Utilization", "averageUtilization": chosen.target_cpu_percent}
        rendered.append(
            context.object(
                "autoscaling/v2", "HorizontalPodAutoscaler", name, component,
                spec={
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name},
                    "minReplicas": chosen.min_replicas,
                    "maxReplicas": chosen.max_replicas,
                    "metrics": [
                        {"type": "Resource", "resource": {"name": "cpu", "target": target}},
                        *(dict(metric) for metric in chosen.metrics),
                    ],
                    "behavior": {"scaleDown": {"stabilizationWindowSeconds": chosen.scale_down_seconds}},
                },
            )
        )  # fmt: skip
    return rendered
