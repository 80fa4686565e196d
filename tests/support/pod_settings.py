"""Pod settings that Kubernetes refuses, which the admission policy and files without an API server check alike."""

from pocket.api.pod_settings import HOST_PORT_TWICE, PROBE_NEEDS_HANDLER, TOO_MANY_ANNOTATION_BYTES

POD = "spec.relayer.podTemplate.spec"


def side(**more):
    return {"containers": [{"name": "side", "image": "s", **more}]}


def host_port(port, **more):
    return {"containerPort": port, "hostPort": 9999, **more}


REFUSED = [
    ("spec.relayer.service", {"annotations": {"a": "x" * 262144}}, TOO_MANY_ANNOTATION_BYTES),
    ("spec.relayer.podTemplate", {"annotations": {"a": "ä" * 135_000}}, TOO_MANY_ANNOTATION_BYTES),
    (POD, side(ports=[host_port(1), host_port(2)]), HOST_PORT_TWICE),
    (
        POD, {"containers": [{"name": name, "image": "s", "ports": [host_port(1)]} for name in ("one", "two")]},
        HOST_PORT_TWICE,
    ),
    (POD, {"initContainers": [{"name": "one", "image": "s", "ports": [host_port(1), host_port(2)]}]}, HOST_PORT_TWICE),
    (POD, side(readinessProbe={"periodSeconds": 5}), PROBE_NEEDS_HANDLER),
    (POD, side(startupProbe={"tcpSocket": {"port": 1}, "grpc": {"port": 2}}), PROBE_NEEDS_HANDLER),
]  # fmt: skip
"""Path, value, and what the refusal says."""
TAKEN = {
    "initContainers": [{"name": "first", "image": "s", "ports": [host_port(1)]}],
    "containers": [{
        "name": "side", "image": "s", "livenessProbe": {"httpGet": {"port": 1}, "periodSeconds": 5},
        "ports": [{"containerPort": 1}, {"containerPort": 2}, host_port(3), host_port(4, protocol="UDP"),
                  host_port(5, hostIP="10.0.0.1")],
    }],
}  # fmt: skip
"""A pod spec that is near to what is refused."""
