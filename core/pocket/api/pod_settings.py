"""Check pod settings that the schemas of Kubernetes do not cover.

The settings are of files that no API server has validated. The admission policy `pocket-operator-templates` makes the
same checks, and more of its kind.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

ANNOTATION_BYTES: Final = 253952
"""What Kubernetes allows an object, less 8 KiB for the operator's own annotations."""
TOO_MANY_ANNOTATION_BYTES: Final = f"annotations have more than {ANNOTATION_BYTES} bytes"
PROBE_HANDLERS: Final = ("exec", "grpc", "httpGet", "tcpSocket")
PROBE_NEEDS_HANDLER: Final = f"a probe needs one of {', '.join(PROBE_HANDLERS)}, as nothing is merged into it"
HOST_PORT_TWICE: Final = "a hostPort of this container occurs twice in the pod"
_TEMPLATES: Final = ("relayer", "miner", "redis.trial", "console")
_ANNOTATED: Final = (*(f"{place}.podTemplate" for place in _TEMPLATES), "relayer.service", "relayer.ingress")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")


def pod_setting_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield what Kubernetes would refuse in the objects of a RelayMiner.

    Each problem has its path. The objects are made of the RelayMiner's spec. What has another type than it should is
    left to the API server.
    """
    for place in _ANNOTATED:
        annotations = _object(spec, f"{place}.annotations")
        if sum(len(str(text).encode()) for entry in annotations.items() for text in entry) > ANNOTATION_BYTES:
            yield f"spec.{place}: {TOO_MANY_ANNOTATION_BYTES}"
    for place in _TEMPLATES:
        path = f"{place}.podTemplate.spec"
        yield from (f"spec.{path}.{problem}" for problem in _pod_problems(_object(spec, path)))


def _pod_problems(pod: Mapping[str, Any]) -> Iterator[str]:
    together, initial = (_rows(pod, kind) for kind in ("containers", "initContainers"))
    for kind, containers in (("containers", together), ("initContainers", initial)):
        for container in containers:
            where = f"{kind}[{container.get('name')}]"
            beside = together if kind == "containers" else [container]
            used = Counter(port for other in beside for port in _host_ports(other))
            if any(used[port] > 1 for port in _host_ports(container)):
                yield f"{where}: {HOST_PORT_TWICE}"
            for name in _PROBES:
                probe = container.get(name)
                if isinstance(probe, dict) and sum(handler in probe for handler in PROBE_HANDLERS) != 1:
                    yield f"{where}.{name}: {PROBE_NEEDS_HANDLER}"


def _host_ports(container: Mapping[str, Any]) -> list[tuple[object, object, object]]:
    """Return the ports of the host that a container takes.

    Each is port, protocol and address.
    """
    return [
        (port["hostPort"], port.get("protocol", "TCP"), port.get("hostIP", ""))
        for port in _rows(container, "ports")
        if port.get("hostPort")
    ]


def _object(value: Any, path: str) -> Mapping[str, Any]:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _rows(value: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    rows = value.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
