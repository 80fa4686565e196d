"""`spec.console`: the read-only web page of a RelayMiner."""

from typing import Annotated

from pydantic import Field

from pocket.api.base import Model
from pocket.api.kubernetes import Image, PodPlacement, Resources
from pocket.api.schema import LIST_SET, text
from pocket.api.services import url

HostName = Annotated[
    str,
    *text(
        r"([a-z0-9]([a-z0-9-]*[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
        "must be a host name in lower case, without scheme and port",
        longest=253,
    ),
]
_LINK = "Link to %s of an explorer, with %s. Rolls the console."


class ConsoleSpec(Model):
    """The read-only web page of this RelayMiner, as one pod with a Service.

    It has no login of its own: put your own proxy with a login before it, or reach it with `kubectl port-forward`.
    """

    hosts: tuple[HostName, ...] = Field(
        default=(),
        max_length=16,
        description="Host names under which your proxy serves it. Requests for other names are refused. Rolls the "
        "console.",
        json_schema_extra=LIST_SET,
    )
    block_url: Annotated[str, *url("https?", "https://host/path", "")] | None = Field(
        default=None, description=_LINK % ("blocks", "`{height}`")
    )
    transaction_url: Annotated[str, *url("https?", "https://host/path", "")] | None = Field(
        default=None, description=_LINK % ("transactions", "`{hash}`")
    )
    dashboards_url: Annotated[str, *url("https?", "https://host/path", "")] | None = Field(
        default=None, description="Link to Grafana. Rolls the console."
    )
    port: int = Field(default=8900, ge=1, le=65535, description="Port of the Service. Applied without restart.")
    image: Image | None = Field(default=None, description="Default: the operator's release. Rolls the console.")
    resources: Resources = Resources()
    pod_template: PodPlacement = PodPlacement()
