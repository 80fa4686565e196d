"""ProtectedNamespaces: what the operator tells the admission policy. Written by the operator alone."""

from pydantic import Field

from pocket.api.base import Model


class ProtectedNamespacesSpec(Model):
    """Namespaces that must not be deleted yet. The operator writes it; an admission policy reads it."""

    namespaces: dict[str, str] = Field(
        default={},
        description="Names of namespaces, and in words what is held there.",
        # As one: of a map whose last entry goes by server-side apply the API server makes null, and refuses that.
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
