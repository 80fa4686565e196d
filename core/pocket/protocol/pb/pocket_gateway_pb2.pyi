from pocket.protocol.pb import cosmos_base_v1beta1_pb2 as _cosmos_base_v1beta1_pb2
from pocket.protocol.pb import pocket_shared_pb2 as _pocket_shared_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Gateway(_message.Message):
    __slots__ = ("address", "stake", "unstake_session_end_height", "metadata")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STAKE_FIELD_NUMBER: _ClassVar[int]
    UNSTAKE_SESSION_END_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    address: str
    stake: _cosmos_base_v1beta1_pb2.Coin
    unstake_session_end_height: int
    metadata: _pocket_shared_pb2.Metadata
    def __init__(self, address: _Optional[str] = ..., stake: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ..., unstake_session_end_height: _Optional[int] = ..., metadata: _Optional[_Union[_pocket_shared_pb2.Metadata, _Mapping]] = ...) -> None: ...

class Params(_message.Message):
    __slots__ = ("min_stake",)
    MIN_STAKE_FIELD_NUMBER: _ClassVar[int]
    min_stake: _cosmos_base_v1beta1_pb2.Coin
    def __init__(self, min_stake: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ...) -> None: ...

class QueryGetGatewayRequest(_message.Message):
    __slots__ = ("address", "dehydrated")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEHYDRATED_FIELD_NUMBER: _ClassVar[int]
    address: str
    dehydrated: bool
    def __init__(self, address: _Optional[str] = ..., dehydrated: _Optional[bool] = ...) -> None: ...

class QueryGetGatewayResponse(_message.Message):
    __slots__ = ("gateway",)
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    gateway: Gateway
    def __init__(self, gateway: _Optional[_Union[Gateway, _Mapping]] = ...) -> None: ...

class MsgStakeGateway(_message.Message):
    __slots__ = ("address", "stake")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STAKE_FIELD_NUMBER: _ClassVar[int]
    address: str
    stake: _cosmos_base_v1beta1_pb2.Coin
    def __init__(self, address: _Optional[str] = ..., stake: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ...) -> None: ...

class QueryParamsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
