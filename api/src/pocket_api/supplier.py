"""The Supplier resource: one operator address, its key, the RelayMiner that serves it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pocket_api.base import Metadata, Model
from pocket_api.relayminer import SecretKeyRef, ServiceId


class RelayMinerRef(Model):
    """The RelayMiner in the same namespace."""

    name: str = Field(min_length=1)


class SupplierKey(Model):
    """Where the private key is; exactly one source."""

    secret_ref: SecretKeyRef | None = Field(default=None, description="64 hex digits under a key of a Secret.")
    sealed: str | None = Field(default=None, description="Key sealed to the operator's public key, base64.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.secret_ref is None) == (self.sealed is None):
            raise ValueError("name exactly one of secretRef and sealed")
        return self


class SupplierSpec(Model):
    """What a Supplier declares."""

    relay_miner_ref: RelayMinerRef
    operator_address: str = Field(pattern=r"^pokt1[02-9ac-hj-np-z]{38}$", description="Proven against the key.")
    key: SupplierKey
    services: tuple[ServiceId, ...] = Field(default=(), description="Default: all services staked on chain.")


class Supplier(Model):
    """The custom resource."""

    api_version: Literal["pocket.network/v1alpha1"] = "pocket.network/v1alpha1"
    kind: Literal["Supplier"] = "Supplier"
    metadata: Metadata
    spec: SupplierSpec
