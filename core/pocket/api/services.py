"""The services of a RelayMiner, their backends and their limits."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic.fields import FieldInfo

from pocket.api.base import Model
from pocket.api.kubernetes import Name
from pocket.api.schema import LIST_SET, Cel, keys_matching, matching, rule, rules, shown_value, text

ServiceId = Annotated[
    str,
    *text(
        "[a-zA-Z0-9_-]{1,42}",
        "must be a service id: at most 42 letters, digits, - or _",
        longest=42,
        description="Service id on chain.",
    ),
]
KEY_CHARACTERS: Final = 12
"""Length from which a part of a backend's path or query may be a key. Shorter ones are words."""
_HEADER_NAME: Final = "[!#-'*+.0-9A-Z^-z|~-]+"
_IS_HEADER: Final = "must be the name of an HTTP header: letters, digits and -"
HeaderName = Annotated[str, *text(_HEADER_NAME, _IS_HEADER, longest=64)]
Headers = Annotated[
    dict[str, Annotated[str, Field(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]],
    *keys_matching(_HEADER_NAME, _IS_HEADER),
]


PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"


def url(
    schemes: str, example: str, description: str, credentials: str = ""
) -> tuple[AfterValidator, Cel, Cel, FieldInfo]:
    """Return the annotations of a URL without credentials.

    They are for `Annotated[str, *url(...)]`.

    `credentials` names where those belong. The API server bounds the cost of a rule, which a pattern of ports exceeds,
    so it checks in a rule of its own that a port is at most 65535.
    """
    remedy = f" (those belong in {credentials})" if credentials else ""
    message = f"must be a URL of this kind: {example}, without credentials{remedy}"

    def form(port: str) -> str:
        # Printable ASCII only: \S of an API server matches the non-breaking space of a copied text.
        return rf"(?:{schemes})://(?:\[[-.%:\w]+\]|[-.\w]+)(?::{port})?(?:[/?][!-~]*)?"

    _, rule_, field = text(form(r"[1-9]\d{0,4}"), message, longest=512, description=description, hidden="@")
    return matching(form(PORT), message, hidden="@"), rule_, _PORT_RULE, field


_PORT_MESSAGE = "has a port above 65535"
_PORT_RULE = Cel(
    r"!self.matches('^[^/]*//[^/?]*:(6553[6-9]|(655[4-9]|65[6-9]\\d|(6[6-9]|[7-9]\\d)\\d\\d)\\d)\\b')",
    _PORT_MESSAGE,
    shown_value(_PORT_MESSAGE, "@"),
)
_AUTH = "auth.secretRef"
HttpUrl = Annotated[str, *url("https?", "http://host:port/path", "An endpoint.", _AUTH)]
WebSocketUrl = Annotated[str, *url("wss?", "ws://host:port/path or wss://host:port/path", "An endpoint.", _AUTH)]
GrpcBackendUrl = Annotated[
    str, *url("grpcs?", "grpc://host:port or grpcs://host:port", "An endpoint. grpcs:// uses TLS.", _AUTH)
]
# A rule about every address of two lists of every service would exceed what the API server spends on rules.
ApplicationAddress = Annotated[str, Field(max_length=43, pattern="^pokt1[02-9ac-hj-np-z]{38}$")]


class Validation(StrEnum):
    """When a relay is validated: before the backend is called, or concurrently.

    No invalid relay is answered.
    """

    EAGER = "eager"
    OPTIMISTIC = "optimistic"


class Replays(StrEnum):
    """Handling of a repeated signed request.

    It is rejected, served but not mined, or served as any relay.
    """

    REFUSE = "refuse"
    SERVE_UNPAID = "serve-unpaid"
    SERVE = "serve"


RPC_NUMBERS: Final[Mapping[str, int]] = {"grpc": 1, "webSocket": 2, "jsonRpc": 3, "rest": 4, "cometBft": 5}
"""Backends by the numbers with which stakes declare their transports (docs/protocol/messages.md)."""

_SAME_URL = "the same URL occurs twice"
_SOME_BACKEND = "set at least one of jsonRpc, rest, cometBft, webSocket and grpc"


class SecretRef(Model):
    """A Secret in the same namespace."""

    name: Name = Field(min_length=1, description="Name of the Secret.")


class Auth(Model):
    """Authentication to a backend.

    The values are in a Secret. Changes are applied without restart.
    """

    type: Literal["basic", "bearer", "header"] = Field(
        description="basic: entries username and password. bearer: entry token. header: entry value, sent unchanged."
    )
    secret_ref: SecretRef
    header: HeaderName = Field(default="Authorization", description="Header that carries it, for type header.")


class Freshness(Model):
    """Excludes endpoints that lag behind the others of their pool."""

    field: str = Field(
        default="result",
        min_length=1,
        max_length=200,
        description="Path of the block height in the response, names joined by dots. Decimal, or hexadecimal with 0x.",
    )
    max_behind_blocks: int = Field(default=5, ge=0, le=1_000_000, description="Blocks behind the highest endpoint.")


class HealthCheck(Model):
    """A probe of every endpoint, in addition to the results of relays."""

    method: Literal["GET", "POST", "HEAD"] = "GET"
    path: str = Field(default="", max_length=512, pattern=r"^[!\x22$-~]*$", description="Joined to the endpoint's URL.")
    body: str = Field(default="", max_length=4096, description="Request body, sent as JSON if it begins with { or [.")
    expect_status: tuple[Annotated[int, Field(ge=100, le=599)], ...] = Field(
        default=(), max_length=16, description="Expected status codes. Default: 200 to 299.", json_schema_extra=LIST_SET
    )
    expect_body: str = Field(default="", max_length=1024, description="Text that the response must contain.")
    interval_seconds: float = Field(default=10.0, ge=0.1, le=3600)
    timeout_seconds: float = Field(default=5.0, gt=0, le=300)
    unhealthy_threshold: int = Field(
        default=3, ge=1, le=100, description="Consecutive failures after which an endpoint is unhealthy."
    )
    healthy_threshold: int = Field(
        default=2, ge=1, le=100, description="Consecutive successes after which it is healthy again."
    )
    freshness: Freshness | None = None


class BackendBase(Model):
    """Settings common to backends of all transports. Applied without restart."""

    strategy: Literal["first_healthy", "round_robin"] | None = Field(
        default=None, description="Default: first_healthy for one URL, round_robin for several."
    )
    dial_timeout_seconds: float = Field(default=5.0, gt=0, le=300, description="Seconds to connect.")
    unhealthy_threshold: int = Field(
        default=5, ge=1, le=1000, description="Consecutive failures that open the circuit breaker."
    )
    recovery_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Seconds before an endpoint with an open circuit breaker is tried again.",
    )
    headers: Headers = Field(default={}, max_length=32, description="Headers set on every request, replacing its own.")
    auth: Auth | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Return the URLs of any scheme."""
        urls: tuple[str, ...] = getattr(self, "urls", ())
        return urls

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ValueError(_SAME_URL)
        return self


class RequestBackend(BackendBase):
    """Backends with one response per request."""

    timeout_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="Deadline of a request with all its attempts, seconds."
    )
    max_retries: int = Field(default=1, ge=0, le=3, description="Additional attempts on another healthy endpoint.")


class Backend(RequestBackend):
    """The HTTP backends of one transport of a service. Applied without restart."""

    urls: tuple[HttpUrl, ...] = Field(
        min_length=1, max_length=8, description="Endpoints, http:// or https://.", json_schema_extra=LIST_SET
    )
    base_path: str = Field(
        default="",
        max_length=512,
        pattern=r"^[!\x22$->@-~]*$",
        description="Path prefix of every request, instead of the URLs' own path.",
    )
    max_connections: int = Field(default=500, ge=1, le=65535, description="Connections per endpoint.")
    health_check: HealthCheck | None = None


class WebSocketBackend(BackendBase):
    """The WebSocket backends of a service. Applied without restart."""

    urls: tuple[WebSocketUrl, ...] = Field(
        min_length=1, max_length=8, description="Endpoints, ws:// or wss://.", json_schema_extra=LIST_SET
    )
    max_connections: int = Field(
        default=1000, ge=1, le=65535, description="WebSockets per endpoint, in addition to connections for requests."
    )


class GrpcBackend(RequestBackend):
    """The gRPC backends of a service. Applied without restart."""

    urls: tuple[GrpcBackendUrl, ...] = Field(
        min_length=1, max_length=8, description="Endpoints, grpc:// or grpcs://.", json_schema_extra=LIST_SET
    )


class Backends(Model):
    """Backends by transport. A request is never served by another transport's backend."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "has(self.jsonRpc) || has(self.rest) || has(self.cometBft) || has(self.webSocket) || has(self.grpc)",
                _SOME_BACKEND,
            )
        )
    }

    json_rpc: Backend | None = None
    rest: Backend | None = None
    comet_bft: Backend | None = None
    web_socket: WebSocketBackend | None = None
    grpc: GrpcBackend | None = None

    def by_type(self) -> dict[str, BackendBase]:
        """Return the configured backends by the names of their fields in the resource."""
        named = {
            "jsonRpc": self.json_rpc, "rest": self.rest, "cometBft": self.comet_bft,
            "webSocket": self.web_socket, "grpc": self.grpc,
        }  # fmt: skip
        return {name: backend for name, backend in named.items() if backend}

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.by_type():
            raise ValueError(_SOME_BACKEND)
        return self


class Applications(Model):
    """Applications whose relays are served. Applied without restart."""

    allow: tuple[ApplicationAddress, ...] = Field(
        default=(), max_length=256, description="Serve only these. Empty: all.", json_schema_extra=LIST_SET
    )
    deny: tuple[ApplicationAddress, ...] = Field(
        default=(), max_length=256, description="Never serve these.", json_schema_extra=LIST_SET
    )

    def rejects(self, address: str) -> bool:
        """Return True if the application's relays are rejected."""
        return address in self.deny or (bool(self.allow) and address not in self.allow)


class RateLimit(Model):
    """Relays per second per application over all replicas. Applied without restart.

    Beyond it the relayer answers 429.
    """

    relays_per_second: int = Field(ge=1, le=1_000_000)


class ServiceSpec(Model):
    """A service that is served."""

    id: ServiceId
    validation: Validation = Field(
        default=Validation.EAGER, description="When relays are validated. Applied without restart."
    )
    default_backend: Literal["jsonRpc", "rest", "cometBft"] = Field(
        default="jsonRpc", description="Transport of requests without Rpc-Type header. Applied without restart."
    )
    max_body_bytes: int = Field(
        default=10 * 1024 * 1024,
        ge=1,
        le=2**30,
        description="Largest request and response body, bytes. Applied without restart.",
    )
    service_factor: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the application's stake up to which one supplier serves in a session. Default: what the "
        "chain "
        "is certain to pay. Applied without restart.",
    )
    replays: Replays = Field(
        default=Replays.REFUSE, description="Handling of a repeated signed request. Applied without restart."
    )
    applications: Applications = Applications()
    rate_limit: RateLimit | None = None
    backends: Backends
