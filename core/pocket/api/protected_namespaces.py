"""Define the ProtectedNamespaces resource.

The operator informs the admission policy by it.
"""

from pydantic import Field

from pocket.api.base import Model


class ProtectedNamespacesSpec(Model):
    """Namespaces that must not be deleted yet.

    The operator writes it, an admission policy reads it.
    """

    namespaces: dict[str, str] = Field(
        default={},
        description="Names of namespaces with the reason why each must stay.",
        # Atomic: when server-side apply removes the last entry, the API server makes the map null and rejects that.
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
