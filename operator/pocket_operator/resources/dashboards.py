"""Build Grafana dashboards for each RelayMiner and for the operator.

They are ConfigMaps for Grafana's sidecar.
"""

import json
from typing import Final

from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.dashboard_panels import ROLES, ROWS
from pocket_operator.resources.operator_panels import OPERATOR_ROWS
from pocket_operator.resources.panels import Panel, Row

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


def dashboard(name: str, namespace: str, role: str = "") -> Object:
    """Return the JSON model of a RelayMiner's dashboard, of one role or of all."""
    pods = f'namespace="{namespace}",pocket_network_relayminer="{name}"'
    title = f"Pocket {role or 'relay mining'}: {namespace}/{name}"
    return _model(title, f"pocket-{role}-{namespace}-{name}".replace("--", "-"), _rows_of(role), pods)


def shared_dashboard(role: str) -> Object:
    """Return a dashboard to import into Grafana by hand.

    It asks for namespace and RelayMiner.
    """
    pods = 'namespace="$namespace",pocket_network_relayminer="$relayminer"'
    model = _model(f"Pocket {role}", f"pocket-{role}", _rows_of(role), pods)
    labels = {"namespace": "namespace", "relayminer": "pocket_network_relayminer"}
    family = 'pocket_miner_block_height{namespace=~"$namespace"}'
    for variable, label in labels.items():
        source = "pocket_miner_block_height" if variable == "namespace" else family
        model["templating"]["list"].append(
            {
                "name": variable,
                "type": "query",
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "query": f"label_values({source}, {label})",
                "refresh": 2,
            }
        )
    return model


def operator_dashboard() -> Object:
    """Return the dashboard of the operator."""
    return _model("Pocket operator", "pocket-operator", OPERATOR_ROWS, "")


def _rows_of(role: str) -> tuple[Row, ...]:
    return tuple(row for row in ROWS if not role or row.title in ROLES[role])


def _model(title: str, uid: str, rows: tuple[Row, ...], pods: str) -> Object:
    panels: list[Object] = []
    number, y = 1, 0
    for row in rows:
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
        "uid": uid[:40],
        "title": title,
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
    child = context.object("v1", "ConfigMap", f"{context.name}-dashboard", "monitoring")
    child["data"] = {
        f"{context.namespace}-{context.name}{'-' if role else ''}{role}.json": json.dumps(
            dashboard(context.name, context.namespace, role), sort_keys=True
        )
        for role in ("", *ROLES)
    }
    labels = context.relay_miner.spec.monitoring.dashboard_labels
    child["metadata"]["labels"] = {**labels, **child["metadata"]["labels"]}
    return [child]
