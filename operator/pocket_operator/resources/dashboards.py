"""Build a Grafana dashboard for each RelayMiner, as a ConfigMap for Grafana's sidecar."""

import json
from typing import Final

from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.dashboard_panels import ROWS, Panel

_WIDTH: Final = 24
_HEIGHT: Final = 7


def _panel(panel: Panel, number: int, x: int, y: int, pods: str) -> Object:
    return {
        "id": number,
        "title": panel.title,
        "type": "stat" if panel.stat else "timeseries",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 4 if panel.stat else _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + at), "expr": expression.replace("$pods", pods), "legendFormat": legend}
            for at, (expression, legend) in enumerate(panel.queries)
        ],
    }


def dashboard(name: str, namespace: str) -> Object:
    """Return the dashboard's JSON model."""
    pods = f'namespace="{namespace}",pocket_network_relayminer="{name}"'
    panels: list[Object] = []
    number, y = 1, 0
    for row in ROWS:
        panels.append(
            {
                "id": number,
                "type": "row",
                "title": row.title,
                "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
                "panels": [],
            }
        )
        number, y, x = number + 1, y + 1, 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + panels[-1]["gridPos"]["h"]
            panels.append(_panel(panel, number, x, y, pods))
            number, x = number + 1, x + panel.width
        y += panels[-1]["gridPos"]["h"]
    return {
        "uid": f"pocket-{namespace}-{name}"[:40],
        "title": f"Pocket relay mining: {namespace}/{name}",
        "tags": ["pocket"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "panels": panels,
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                }
            ]
        },
    }


def dashboards(context: Context) -> list[Object]:
    """Build the dashboard's ConfigMap if the cluster has the Prometheus operator."""
    if not context.relay_miner.spec.monitoring.dashboards or "PodMonitor" not in context.capabilities:
        return []
    model = json.dumps(dashboard(context.name, context.namespace), sort_keys=True)
    child = context.object("v1", "ConfigMap", f"{context.name}-dashboard", "monitoring")
    child["data"] = {f"{context.namespace}-{context.name}.json": model}
    labels = context.relay_miner.spec.monitoring.dashboard_labels
    child["metadata"]["labels"] = {**labels, **child["metadata"]["labels"]}
    return [child]
