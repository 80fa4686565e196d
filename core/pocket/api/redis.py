"""`spec.redis`: where the relays are recorded, and how to get there."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from pocket.api.base import Model
from pocket.api.kubernetes import Name, PodTemplate, Quantity, Resources, owned_by
from pocket.api.schema import LIST_SET, Cel, at_least, immutable, matching, rule, rules, shown_value, text
from pocket.api.services import PORT, url

HostPort = Annotated[
    str, *text(rf"[A-Za-z0-9]+((-+|\.)[A-Za-z0-9]+)*(:{PORT})?", "must be host or host:port", longest=259)
]
_DATABASE = "must name the database by its number, such as redis://host:6379/0"
_OPTION = "[?&](db|client_name|max_connections|health_check_interval|socket_(connect_)?timeout|ssl_[a-z_]+)=[^?&]*"
_OPTIONS = "must have no options but db, client_name, max_connections, timeouts and, with TLS, ssl_..."
RedisUrl = Annotated[
    str,
    *url("rediss?", "redis://host:6379/0", "rediss:// uses TLS.", "a Secret that urlSecretRef names"),
    matching(r"[^/]*//[^/?]*(/[0-9]{0,5})?(\?.*)?", _DATABASE, hidden="@"),
    Cel(r"self.matches('^[^/]*//[^/?]*(/[0-9]{0,5})?(\\?.*)?$')", _DATABASE, shown_value(_DATABASE, "@")),
    matching(rf"[^?&]*({_OPTION})*", _OPTIONS, hidden="?"),
    Cel(rf"self.matches('^[^?&]*({_OPTION})*$')", _OPTIONS),
]
EntryKey = Annotated[
    str, *text(r"\.?[-_A-Za-z0-9][-._A-Za-z0-9]*", "must be of letters, digits, -, _ or .", longest=253)
]


class Durability(StrEnum):
    """What keeps the data of a Redis that does not report it."""

    AOF = "aof"
    MANAGED = "managed"
    NONE = "none"


class SecretKeyRef(Model):
    """A key of a Secret in the same namespace."""

    name: Name = Field(min_length=1, description="Name of the Secret.")
    key: EntryKey = Field(description="Entry of its data.")


class ConfigMapKeyRef(Model):
    """A key of a ConfigMap in the same namespace."""

    name: Name = Field(min_length=1, description="Name of the ConfigMap.")
    key: EntryKey = Field(description="Entry of its data.")


_ONE_BUNDLE = "set exactly one of secretRef and configMapRef"


class CaBundle(Model):
    """The certificate authorities that Redis's certificate is checked against, PEM."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(rule("has(self.secretRef) != has(self.configMapRef)", _ONE_BUNDLE))
    }

    secret_ref: SecretKeyRef | None = None
    config_map_ref: ConfigMapKeyRef | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.secret_ref is None) == (self.config_map_ref is None):
            raise ValueError(_ONE_BUNDLE)
        return self


class RedisCredentials(Model):
    """A Secret with the login, mounted as files.

    Processes use a changed one without a restart.
    """

    name: Name = Field(min_length=1, description="Name of the Secret.")
    username_key: EntryKey = Field(
        default="username", description="Entry that holds the user. Without the entry: the default user."
    )
    password_key: EntryKey = Field(default="password", description="Entry that holds the password.")


class TrialRedis(Model):
    """A single Redis pod without replica for trials. Not for real money."""

    storage: Annotated[
        Quantity,
        at_least("1Mi"),
        immutable("the volume keeps its size, enlarge its PersistentVolumeClaim or use another Redis"),
    ] = Field(default="1Gi", description="Size of the volume of its append-only file. Immutable.")
    resources: Resources = Resources()
    pod_template: Annotated[PodTemplate, *owned_by("redis")] = PodTemplate()


class SentinelSpec(Model):
    """A Redis behind Sentinels. Credentials belong in credentialsSecretRef."""

    addresses: list[HostPort] = Field(
        min_length=1, max_length=16, description="The Sentinels, host or host:port.", json_schema_extra=LIST_SET
    )
    service: Annotated[
        str, *text("[A-Za-z0-9._-]{1,64}", "must be a name of letters, digits, ., - or _", longest=64)
    ] = Field(default="mymaster", description="The name under which the Sentinels know the primary.")
    database: int = Field(default=0, ge=0, le=65535)
    tls: bool = Field(default=False, description="TLS to the Sentinels and to Redis.")

    @property
    def url(self) -> str:
        """The URL that relayers and miners read."""
        scheme = "rediss+sentinel" if self.tls else "redis+sentinel"
        return f"{scheme}://{','.join(self.addresses)}/{self.service}/{self.database}"


class ClusterSpec(Model):
    """A Redis Cluster. Credentials belong in credentialsSecretRef."""

    addresses: list[HostPort] = Field(
        min_length=1,
        max_length=16,
        description="Some of its nodes, host or host:port. They name the others.",
        json_schema_extra=LIST_SET,
    )
    tls: bool = Field(default=False, description="TLS to all nodes.")

    @property
    def url(self) -> str:
        """The URL that relayers and miners read."""
        return f"{'rediss' if self.tls else 'redis'}+cluster://{','.join(self.addresses)}"


_ONE_REDIS = "set exactly one of url, urlSecretRef, sentinel, cluster and trial"
_NO_TRIAL = "durability, caBundle and credentialsSecretRef do not apply to a trial Redis"


class RedisSpec(Model):
    """The Redis that holds the relays. Name exactly one source. Changes roll the pods."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "[has(self.url), has(self.urlSecretRef), has(self.sentinel), has(self.cluster), has(self.trial)]"
                ".filter(x, x).size() == 1",
                _ONE_REDIS,
            ),
            rule(
                "!has(self.trial) || !(has(self.durability) || has(self.caBundle) || has(self.credentialsSecretRef))",
                _NO_TRIAL,
            ),
        )
    }

    url: RedisUrl | None = None
    url_secret_ref: SecretKeyRef | None = Field(
        default=None, description="A Secret that holds the URL, credentials included."
    )
    sentinel: SentinelSpec | None = None
    cluster: ClusterSpec | None = None
    trial: TrialRedis | None = None
    durability: Durability | None = Field(
        default=None,
        description="What keeps the data of a Redis that does not report it. aof: an append-only file. managed: the "
        "means of a managed service. none: nothing, so that a restart leaves relays in the relayers' logs only. "
        "Default: INFO must report an append-only file.",
    )
    ca_bundle: CaBundle | None = None
    credentials_secret_ref: RedisCredentials | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        sources = (self.url, self.url_secret_ref, self.sentinel, self.cluster, self.trial)
        if sum(source is not None for source in sources) != 1:
            raise ValueError(_ONE_REDIS)
        if self.trial is not None and (self.durability or self.ca_bundle or self.credentials_secret_ref):
            raise ValueError(_NO_TRIAL)
        return self

    @property
    def known_url(self) -> str | None:
        """The URL without credentials, None if it is in a Secret or of the trial Redis."""
        if self.sentinel is not None:
            return self.sentinel.url
        return self.cluster.url if self.cluster is not None else self.url


class RedisAccess(Model):
    """A process's access to Redis.

    It has the paths of mounted files, and what the owner states about the data.
    """

    username_file: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    durability: Durability | None = None
