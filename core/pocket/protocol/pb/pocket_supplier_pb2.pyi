from pocket.protocol.pb import cosmos_base_query_v1beta1_pb2 as _cosmos_base_query_v1beta1_pb2
from pocket.protocol.pb import cosmos_base_v1beta1_pb2 as _cosmos_base_v1beta1_pb2
from pocket.protocol.pb import pocket_shared_pb2 as _pocket_shared_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Params(_message.Message):
    __slots__ = ("min_stake", "staking_fee")
    MIN_STAKE_FIELD_NUMBER: _ClassVar[int]
    STAKING_FEE_FIELD_NUMBER: _ClassVar[int]
    min_stake: _cosmos_base_v1beta1_pb2.Coin
    staking_fee: _cosmos_base_v1beta1_pb2.Coin
    def __init__(self, min_stake: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ..., staking_fee: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ...) -> None: ...

class QueryGetSupplierRequest(_message.Message):
    __slots__ = ("operator_address", "dehydrated")
    OPERATOR_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEHYDRATED_FIELD_NUMBER: _ClassVar[int]
    operator_address: str
    dehydrated: bool
    def __init__(self, operator_address: _Optional[str] = ..., dehydrated: _Optional[bool] = ...) -> None: ...

class QueryGetSupplierResponse(_message.Message):
    __slots__ = ("supplier",)
    SUPPLIER_FIELD_NUMBER: _ClassVar[int]
    supplier: _pocket_shared_pb2.Supplier
    def __init__(self, supplier: _Optional[_Union[_pocket_shared_pb2.Supplier, _Mapping]] = ...) -> None: ...

class QueryAllSuppliersRequest(_message.Message):
    __slots__ = ("pagination", "service_id", "operator_address", "owner_address", "dehydrated")
    PAGINATION_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OWNER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEHYDRATED_FIELD_NUMBER: _ClassVar[int]
    pagination: _cosmos_base_query_v1beta1_pb2.PageRequest
    service_id: str
    operator_address: str
    owner_address: str
    dehydrated: bool
    def __init__(self, pagination: _Optional[_Union[_cosmos_base_query_v1beta1_pb2.PageRequest, _Mapping]] = ..., service_id: _Optional[str] = ..., operator_address: _Optional[str] = ..., owner_address: _Optional[str] = ..., dehydrated: _Optional[bool] = ...) -> None: ...

class QueryAllSuppliersResponse(_message.Message):
    __slots__ = ("supplier", "pagination")
    SUPPLIER_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_FIELD_NUMBER: _ClassVar[int]
    supplier: _containers.RepeatedCompositeFieldContainer[_pocket_shared_pb2.Supplier]
    pagination: _cosmos_base_query_v1beta1_pb2.PageResponse
    def __init__(self, supplier: _Optional[_Iterable[_Union[_pocket_shared_pb2.Supplier, _Mapping]]] = ..., pagination: _Optional[_Union[_cosmos_base_query_v1beta1_pb2.PageResponse, _Mapping]] = ...) -> None: ...

class QueryParamsResponse(_message.Message):
    __slots__ = ("params",)
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    params: Params
    def __init__(self, params: _Optional[_Union[Params, _Mapping]] = ...) -> None: ...

class MsgStakeSupplier(_message.Message):
    __slots__ = ("signer", "owner_address", "operator_address", "stake", "services")
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    OWNER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STAKE_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    signer: str
    owner_address: str
    operator_address: str
    stake: _cosmos_base_v1beta1_pb2.Coin
    services: _containers.RepeatedCompositeFieldContainer[_pocket_shared_pb2.SupplierServiceConfig]
    def __init__(self, signer: _Optional[str] = ..., owner_address: _Optional[str] = ..., operator_address: _Optional[str] = ..., stake: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ..., services: _Optional[_Iterable[_Union[_pocket_shared_pb2.SupplierServiceConfig, _Mapping]]] = ...) -> None: ...

class MsgUnstakeSupplier(_message.Message):
    __slots__ = ("signer", "operator_address")
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    signer: str
    operator_address: str
    def __init__(self, signer: _Optional[str] = ..., operator_address: _Optional[str] = ...) -> None: ...

class QueryParamsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
