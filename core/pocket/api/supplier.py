"""Define the Supplier resource.

It is one operator address, its key, and the RelayMiner that serves it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pocket.api.address_checksum import CHECKSUM, checksum_rule
from pocket.api.base import Metadata, Model
from pocket.api.kubernetes import Name
from pocket.api.redis import SecretKeyRef
from pocket.api.schema import LIST_SET, immutable, rule, rules, text
from pocket.api.services import ServiceId
from pocket.api.stake import StakeSpec


class RelayMinerRef(Model):
    """The RelayMiner in the same namespace."""

    name: Name = Field(min_length=1)


_ONE_KEY = "set exactly one of secretRef, sealed and remote"


class RemoteKeyRef(Model):
    """A key that the signer of the RelayMiner holds."""

    public_key: Annotated[
        str, *text("0[23][0-9a-f]{64}", "must be a public key: 66 lower case hex digits", longest=66)
    ] = Field(description="Public key of the operator address, 66 hex digits.")


class SupplierKey(Model):
    """The source of the private key.

    Name exactly one. Changes are applied without restart.
    """

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule("[has(self.secretRef), has(self.sealed), has(self.remote)].filter(x, x).size() == 1", _ONE_KEY)
        )
    }

    secret_ref: SecretKeyRef | None = Field(
        default=None, description="64 hex digits under a key of a Secret in this namespace."
    )
    sealed: (
        Annotated[
            str,
            *text(
                "[A-Za-z0-9+/]{40,}={0,2}",
                "must be the base64 text that `relayctl keys seal` prints",
                longest=2000,
                hidden="",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Key sealed by `relayctl keys seal` to the operator's public key, or to a key of the namespace.",
    )
    remote: RemoteKeyRef | None = Field(
        default=None, description="The key stays with the signer that spec.signer of the RelayMiner names."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(source is not None for source in (self.secret_ref, self.sealed, self.remote)) != 1:
            raise ValueError(_ONE_KEY)
        return self


OperatorAddress = Annotated[
    str,
    *text(
        "pokt1[02-9ac-hj-np-z]{38}",
        "must be an operator address: pokt1 and 38 lower case letters or digits",
        longest=43,
        description="Operator address on chain. The key must match it. Immutable.",
    ),
    CHECKSUM,
    checksum_rule(),
]


class SupplierSpec(Model):
    """The desired state of a Supplier."""

    relay_miner_ref: Annotated[
        RelayMinerRef, immutable("delete this Supplier, wait for its claims and proofs, and create it again")
    ]
    operator_address: Annotated[
        OperatorAddress,
        immutable("create another Supplier for another address and delete this one, which drains first"),
    ]
    key: SupplierKey
    services: tuple[ServiceId, ...] = Field(
        default=(),
        max_length=256,
        description="Services that are served here. Default: all services staked on chain. Applied without restart.",
        json_schema_extra=LIST_SET,
    )
    stake: StakeSpec | None = Field(
        default=None, description="Stake on chain that should be. Without it, nothing is compared or changed."
    )


class Supplier(Model):
    """The Supplier resource."""

    api_version: Literal["pocket.network/v1beta1"] = "pocket.network/v1beta1"
    kind: Literal["Supplier"] = "Supplier"
    metadata: Metadata
    spec: SupplierSpec
