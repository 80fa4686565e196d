"""Read the genesis of a localnet from YAML.

Amounts are in upokt, heights in blocks, times in seconds.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pocket.errors import ConfigurationError
from pocket.input_files import InputFileError, read_yaml
from pocket.protocol.crypto.addresses import is_address
from pocket.protocol.relays.messages import is_service_id


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"{text!r} is not a pokt address")
    return text


RpcType = Literal["GRPC", "WEBSOCKET", "JSON_RPC", "REST", "COMET_BFT"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AccountGenesis(_Model):
    """An account. Without a public key it cannot be a ring member."""

    address: str
    balance: Annotated[int, Field(ge=0)] = 0
    public_key: str | None = None
    number: Annotated[int, Field(ge=0, description="account number (default: the position in the list)")] | None = None

    _checked = field_validator("address")(_address)


class GatewayGenesis(_Model):
    """A staked gateway."""

    address: str
    stake: Annotated[int, Field(ge=0)] = 2_000_000

    _checked = field_validator("address")(_address)


class ServiceGenesis(_Model):
    """A service with its price and difficulty.

    The difficulty is a 32-byte target as hex, by default the base target.
    """

    id: str
    name: str = ""
    compute_units_per_relay: Annotated[int, Field(ge=1)] = 1
    owner: str
    target_hash: str | None = None

    @field_validator("id")
    @classmethod
    def _id(cls, text: str) -> str:
        if not is_service_id(text):
            raise ValueError("1 to 42 letters, digits, '_' or '-'")
        return text


class ApplicationGenesis(_Model):
    """A staked application with its delegations."""

    address: str
    stake: Annotated[int, Field(ge=0)]
    service: str
    gateways: tuple[str, ...] = ()

    _checked = field_validator("address")(_address)


class SupplierGenesis(_Model):
    """A staked supplier.

    `revenue_share` maps addresses to percent, by default the owner gets all. `rpc_types` maps services to the
    transports that the stake declares, by default JSON_RPC.
    """

    operator: str
    owner: str
    stake: Annotated[int, Field(ge=0)]
    services: tuple[str, ...]
    endpoint: str = "http://localhost"
    revenue_share: dict[str, int] = Field(default_factory=dict)
    rpc_types: dict[str, tuple[RpcType, ...]] = Field(default_factory=dict)

    _checked = field_validator("operator", "owner")(_address)


class SharedParamsGenesis(_Model):
    """Shared params, as in SharedParams."""

    num_blocks_per_session: Annotated[int, Field(ge=1)] = 10
    grace_period_end_offset_blocks: Annotated[int, Field(ge=0)] = 1
    claim_window_open_offset_blocks: Annotated[int, Field(ge=0)] = 1
    claim_window_close_offset_blocks: Annotated[int, Field(ge=0)] = 4
    proof_window_open_offset_blocks: Annotated[int, Field(ge=0)] = 0
    proof_window_close_offset_blocks: Annotated[int, Field(ge=0)] = 4
    supplier_unbonding_period_sessions: Annotated[int, Field(ge=1)] = 1
    application_unbonding_period_sessions: Annotated[int, Field(ge=1)] = 1
    gateway_unbonding_period_sessions: Annotated[int, Field(ge=1)] = 1
    compute_units_to_tokens_multiplier: Annotated[int, Field(ge=1)] = 42_000_000
    compute_unit_cost_granularity: Annotated[int, Field(ge=1)] = 1_000_000


class ProofParamsGenesis(_Model):
    """Proof params."""

    proof_request_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    proof_requirement_threshold: Annotated[int, Field(ge=0)] = 20_000_000
    proof_missing_penalty: Annotated[int, Field(ge=0)] = 320_000_000
    proof_submission_fee: Annotated[int, Field(ge=0)] = 0


class DistributionGenesis(_Model):
    """Shares of a settled claim. The DAO gets what rounding leaves."""

    dao: float = 0.1
    proposer: float = 0.05
    supplier: float = 0.7
    source_owner: float = 0.15
    application: float = 0.0


class TokenomicsGenesis(_Model):
    """Tokenomics params."""

    dao_reward_address: str = "pokt1eeeksh2tvkh7wzmfrljnhw4wrhs55lcuvmekkw"
    mint_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    overservicing_bonus_multiplier: Annotated[int, Field(ge=0)] = 0
    distribution: DistributionGenesis = DistributionGenesis()


class Genesis(_Model):
    """A complete genesis file."""

    chain_id: str = "pocket"
    time: Annotated[int, Field(ge=0, description="seconds since 1970 of block 1")] = 1_767_225_600
    block_seconds: Annotated[float, Field(gt=0)] = 1.0
    minimum_gas_price: str = ""
    accounts: tuple[AccountGenesis, ...] = ()
    gateways: tuple[GatewayGenesis, ...] = ()
    services: tuple[ServiceGenesis, ...] = ()
    applications: tuple[ApplicationGenesis, ...] = ()
    suppliers: tuple[SupplierGenesis, ...] = ()
    shared_params: SharedParamsGenesis = SharedParamsGenesis()
    proof_params: ProofParamsGenesis = ProofParamsGenesis()
    tokenomics: TokenomicsGenesis = TokenomicsGenesis()
    num_suppliers_per_session: Annotated[int, Field(ge=1)] = 15
    target_num_relays: Annotated[int, Field(ge=1)] = 10_000
    supplier_min_stake: Annotated[int, Field(ge=0)] = 1_000_000
    supplier_staking_fee: Annotated[int, Field(ge=0)] = 1_000_000
    application_min_stake: Annotated[int, Field(ge=0)] = 1_000_000


def load_genesis(path: Path) -> Genesis:
    """Load a genesis from a YAML file. Raises ConfigurationError naming the field."""
    try:
        documents = read_yaml(path)
        return Genesis.model_validate(documents[0] if len(documents) == 1 else None)
    except InputFileError as error:
        raise ConfigurationError(f"genesis {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ConfigurationError(f"genesis {path}: {field}: {first['msg']}") from error
