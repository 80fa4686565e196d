"""Define `spec.signer`.

It is a process that holds the suppliers' keys and signs for relayers and miners.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from pocket.api.base import Model
from pocket.api.kubernetes import Name
from pocket.api.schema import rule, rules, text

_ADDRESS = "must be https://host:port, or unix:/path of a socket"
SignerUrl = Annotated[
    str, *text(r"(https://[A-Za-z0-9.-]{1,253}(:[1-9][0-9]{0,4})?|unix:/[-._/A-Za-z0-9]{1,100})", _ADDRESS, longest=270)
]
_TLS = "tlsSecretRef is needed with https, and only there"


class TlsSecretRef(Model):
    """A Secret in the same namespace with tls.crt, tls.key and ca.crt."""

    name: Name = Field(min_length=1, description="Name of the Secret.")


class SignerLimits(Model):
    """Deadlines and connections of a process to the signer."""

    timeout_seconds: float = Field(
        default=2.0, ge=0.1, le=60, description="Deadline of a signature, attempts after failures included."
    )
    connections: int = Field(
        default=4, ge=1, le=64, description="Connections of each worker of a relayer, and of a miner."
    )


class SignerSpec(SignerLimits):
    """The remote signer of the Suppliers whose key is remote. Changes roll the pods."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(rule("self.url.startsWith('https://') == has(self.tlsSecretRef)", _TLS))
    }

    url: SignerUrl = Field(description="https://host:port, or unix:/path of a socket that podTemplate mounts.")
    tls_secret_ref: TlsSecretRef | None = Field(
        default=None, description="Client certificate, its key, and the authority of the signer's certificate."
    )

    @model_validator(mode="after")
    def _tls(self) -> Self:
        if self.url.startswith("https://") != (self.tls_secret_ref is not None):
            raise ValueError(_TLS)
        return self


class SignerAccess(SignerLimits):
    """How a process gets access to the signer."""

    url: SignerUrl
    tls_dir: Path | None = Field(default=None, description="Folder with tls.crt, tls.key and ca.crt.")

    @property
    def socket(self) -> str | None:
        """Path of the Unix socket, None if the signer is reached by TCP."""
        return self.url.removeprefix("unix:") if self.url.startswith("unix:") else None
