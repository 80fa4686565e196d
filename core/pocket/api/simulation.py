"""Simulated relays: an operator's probe through the whole data path, never paid.

Source: docs/protocol/relay-lifecycle.md, section 12.
"""

from datetime import UTC, datetime
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from pocket.api.base import Model
from pocket.api.schema import LIST_SET, Cel, list_map, rule, rules, text
from pocket.api.services import ServiceId

_FIELD: Final = 2**256 - 2**32 - 977  # of secp256k1
# The key that completes the ring of an application without gateways. Its private key is public knowledge.
_PLACEHOLDER: Final = "021066f293709356a33e9c13017867586baf52513e845bc4335233a15ed1e00baf"
_RING: Final = "keys of a ring must differ, and none may be the publicly known placeholder: pin other keys"
_SOME_IDENTITY: Final = "enabled needs at least one identity that is enabled"

PublicKeyHex = Annotated[
    str, *text("0[23][0-9a-f]{64}", "must be a compressed public key: 66 hex digits, in lower case", longest=66)
]


class SimulationIdentity(Model):
    """A sender of simulated relays: a pinned application with its gateways."""

    key_id: Annotated[
        str, *text("[a-zA-Z0-9._-]{1,64}", "must be at most 64 letters, digits, ., _ or -", longest=64)
    ] = Field(description="Sent in the header Pocket-Simulation-Key-Id.")
    enabled: bool = True
    not_after: (
        Annotated[
            str,
            *text(
                r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
                "must be a time in UTC, such as 2027-01-31T00:00:00Z",
                longest=20,
                description="When the identity expires. Default: never.",
            ),
            Cel("timestamp(self) > timestamp(0)", "must be a date that exists"),
        ]
        | None
    ) = None
    max_per_second: int = Field(default=5, ge=1, le=1000, description="Simulated relays per second and worker.")
    application_public_key: PublicKeyHex = Field(description="Its address must be the session header's application.")
    gateway_public_keys: tuple[PublicKeyHex, ...] = Field(
        min_length=1, max_length=16, description="The rest of the ring.", json_schema_extra=LIST_SET
    )
    services: tuple[ServiceId, ...] = Field(
        default=(), max_length=64, description="Services that may be requested. Empty: all.", json_schema_extra=LIST_SET
    )

    @property
    def ring(self) -> tuple[str, ...]:
        """Return the hex public keys of all ring members."""
        return (self.application_public_key, *self.gateway_public_keys)

    def expired(self, unix_seconds: float) -> bool:
        """Return True if the identity has expired."""
        if self.not_after is None:
            return False
        return unix_seconds >= datetime.strptime(self.not_after, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()

    def problems(self) -> list[str]:
        """Return the problems that no schema can express."""
        problems = []
        for key in self.ring:
            x = int.from_bytes(bytes.fromhex(key)[1:], "big")
            if x >= _FIELD or pow(x**3 + 7, (_FIELD - 1) // 2, _FIELD) != 1:
                problems.append(f"{self.key_id}: {key[:10]}… is not a point of the curve")
        if _PLACEHOLDER in self.ring:
            problems.append(f"{self.key_id}: the placeholder key of rings is publicly known: pin a key of your own")
        if len(set(self.ring)) != len(self.ring):
            problems.append(f"{self.key_id}: a key occurs twice in its ring")
        if self.not_after is not None:
            try:
                self.expired(0)
            except ValueError:
                problems.append(f"{self.key_id}: notAfter is not a valid date")
        return problems


class Simulation(Model):
    """Simulated relays, never charged, mined or counted. Applied without restart.

    A real backend serves them and a real supplier signs them.
    """

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "!self.enabled || (has(self.identities) && self.identities.exists(i, !has(i.enabled) || i.enabled))",
                _SOME_IDENTITY,
            ),
            rule(
                "!self.enabled || !has(self.identities) || self.identities.all(i, "
                "!(i.applicationPublicKey in i.gatewayPublicKeys) && "
                f"i.applicationPublicKey != '{_PLACEHOLDER}' && !('{_PLACEHOLDER}' in i.gatewayPublicKeys))",
                _RING,
            ),
        )
    }

    enabled: bool = Field(default=False, description="While false, the header that requests simulation is ignored.")
    max_concurrent: int = Field(default=32, ge=1, le=1000, description="Concurrent simulated relays per worker.")
    freshness_seconds: int = Field(
        default=30, ge=1, le=600, description="Age at which a signed simulated relay is rejected, seconds."
    )
    identities: tuple[SimulationIdentity, ...] = Field(default=(), max_length=16, json_schema_extra=list_map("keyId"))

    def problems(self) -> list[str]:
        """Return why simulation would not work, whether it is enabled or not."""
        names = [identity.key_id for identity in self.identities]
        repeated = [f"key id {name} occurs twice" for name in sorted({n for n in names if names.count(n) > 1})]
        return repeated + [problem for identity in self.identities for problem in identity.problems()]

    @model_validator(mode="after")
    def _usable(self) -> Self:
        # A disabled simulation cannot keep anything from starting. `relayctl config validate` reports it.
        if self.enabled and not any(identity.enabled for identity in self.identities):
            raise ValueError(_SOME_IDENTITY)
        if self.enabled and (problems := self.problems()):
            raise ValueError("; ".join(problems))
        return self
