from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClaimExpirationReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPIRATION_REASON_UNSPECIFIED: _ClassVar[ClaimExpirationReason]
    PROOF_MISSING: _ClassVar[ClaimExpirationReason]
    PROOF_INVALID: _ClassVar[ClaimExpirationReason]
EXPIRATION_REASON_UNSPECIFIED: ClaimExpirationReason
PROOF_MISSING: ClaimExpirationReason
PROOF_INVALID: ClaimExpirationReason

class Params(_message.Message):
    __slots__ = ("mint_allocation_percentages", "dao_reward_address", "global_inflation_per_claim", "mint_equals_burn_claim_distribution", "mint_ratio", "overservicing_bonus_multiplier")
    MINT_ALLOCATION_PERCENTAGES_FIELD_NUMBER: _ClassVar[int]
    DAO_REWARD_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_INFLATION_PER_CLAIM_FIELD_NUMBER: _ClassVar[int]
    MINT_EQUALS_BURN_CLAIM_DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    MINT_RATIO_FIELD_NUMBER: _ClassVar[int]
    OVERSERVICING_BONUS_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    mint_allocation_percentages: MintAllocationPercentages
    dao_reward_address: str
    global_inflation_per_claim: float
    mint_equals_burn_claim_distribution: MintEqualsBurnClaimDistribution
    mint_ratio: float
    overservicing_bonus_multiplier: int
    def __init__(self, mint_allocation_percentages: _Optional[_Union[MintAllocationPercentages, _Mapping]] = ..., dao_reward_address: _Optional[str] = ..., global_inflation_per_claim: _Optional[float] = ..., mint_equals_burn_claim_distribution: _Optional[_Union[MintEqualsBurnClaimDistribution, _Mapping]] = ..., mint_ratio: _Optional[float] = ..., overservicing_bonus_multiplier: _Optional[int] = ...) -> None: ...

class MintAllocationPercentages(_message.Message):
    __slots__ = ("dao", "proposer", "supplier", "source_owner", "application")
    DAO_FIELD_NUMBER: _ClassVar[int]
    PROPOSER_FIELD_NUMBER: _ClassVar[int]
    SUPPLIER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OWNER_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    dao: float
    proposer: float
    supplier: float
    source_owner: float
    application: float
    def __init__(self, dao: _Optional[float] = ..., proposer: _Optional[float] = ..., supplier: _Optional[float] = ..., source_owner: _Optional[float] = ..., application: _Optional[float] = ...) -> None: ...

class MintEqualsBurnClaimDistribution(_message.Message):
    __slots__ = ("dao", "proposer", "supplier", "source_owner", "application")
    DAO_FIELD_NUMBER: _ClassVar[int]
    PROPOSER_FIELD_NUMBER: _ClassVar[int]
    SUPPLIER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OWNER_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    dao: float
    proposer: float
    supplier: float
    source_owner: float
    application: float
    def __init__(self, dao: _Optional[float] = ..., proposer: _Optional[float] = ..., supplier: _Optional[float] = ..., source_owner: _Optional[float] = ..., application: _Optional[float] = ...) -> None: ...

class QueryParamsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QueryParamsResponse(_message.Message):
    __slots__ = ("params",)
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    params: Params
    def __init__(self, params: _Optional[_Union[Params, _Mapping]] = ...) -> None: ...
