from pocket.protocol.pb import cosmos_base_query_v1beta1_pb2 as _cosmos_base_query_v1beta1_pb2
from pocket.protocol.pb import cosmos_base_v1beta1_pb2 as _cosmos_base_v1beta1_pb2
from pocket.protocol.pb import pocket_shared_pb2 as _pocket_shared_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Application(_message.Message):
    __slots__ = ("address", "stake", "service_configs", "delegatee_gateway_addresses", "pending_undelegations", "unstake_session_end_height", "pending_transfer", "per_session_spend_limit", "service_config_history")
    class PendingUndelegationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: UndelegatingGatewayList
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[UndelegatingGatewayList, _Mapping]] = ...) -> None: ...
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STAKE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_CONFIGS_FIELD_NUMBER: _ClassVar[int]
    DELEGATEE_GATEWAY_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    PENDING_UNDELEGATIONS_FIELD_NUMBER: _ClassVar[int]
    UNSTAKE_SESSION_END_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PENDING_TRANSFER_FIELD_NUMBER: _ClassVar[int]
    PER_SESSION_SPEND_LIMIT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_CONFIG_HISTORY_FIELD_NUMBER: _ClassVar[int]
    address: str
    stake: _cosmos_base_v1beta1_pb2.Coin
    service_configs: _containers.RepeatedCompositeFieldContainer[_pocket_shared_pb2.ApplicationServiceConfig]
    delegatee_gateway_addresses: _containers.RepeatedScalarFieldContainer[str]
    pending_undelegations: _containers.MessageMap[int, UndelegatingGatewayList]
    unstake_session_end_height: int
    pending_transfer: PendingApplicationTransfer
    per_session_spend_limit: _cosmos_base_v1beta1_pb2.Coin
    service_config_history: _containers.RepeatedCompositeFieldContainer[ApplicationServiceConfigUpdate]
    def __init__(self, address: _Optional[str] = ..., stake: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ..., service_configs: _Optional[_Iterable[_Union[_pocket_shared_pb2.ApplicationServiceConfig, _Mapping]]] = ..., delegatee_gateway_addresses: _Optional[_Iterable[str]] = ..., pending_undelegations: _Optional[_Mapping[int, UndelegatingGatewayList]] = ..., unstake_session_end_height: _Optional[int] = ..., pending_transfer: _Optional[_Union[PendingApplicationTransfer, _Mapping]] = ..., per_session_spend_limit: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ..., service_config_history: _Optional[_Iterable[_Union[ApplicationServiceConfigUpdate, _Mapping]]] = ...) -> None: ...

class ApplicationServiceConfigUpdate(_message.Message):
    __slots__ = ("application_address", "service", "activation_height", "deactivation_height")
    APPLICATION_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DEACTIVATION_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    application_address: str
    service: _pocket_shared_pb2.ApplicationServiceConfig
    activation_height: int
    deactivation_height: int
    def __init__(self, application_address: _Optional[str] = ..., service: _Optional[_Union[_pocket_shared_pb2.ApplicationServiceConfig, _Mapping]] = ..., activation_height: _Optional[int] = ..., deactivation_height: _Optional[int] = ...) -> None: ...

class UndelegatingGatewayList(_message.Message):
    __slots__ = ("gateway_addresses",)
    GATEWAY_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    gateway_addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, gateway_addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class PendingApplicationTransfer(_message.Message):
    __slots__ = ("destination_address", "session_end_height")
    DESTINATION_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SESSION_END_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    destination_address: str
    session_end_height: int
    def __init__(self, destination_address: _Optional[str] = ..., session_end_height: _Optional[int] = ...) -> None: ...

class Params(_message.Message):
    __slots__ = ("max_delegated_gateways", "min_stake")
    MAX_DELEGATED_GATEWAYS_FIELD_NUMBER: _ClassVar[int]
    MIN_STAKE_FIELD_NUMBER: _ClassVar[int]
    max_delegated_gateways: int
    min_stake: _cosmos_base_v1beta1_pb2.Coin
    def __init__(self, max_delegated_gateways: _Optional[int] = ..., min_stake: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ...) -> None: ...

class QueryGetApplicationRequest(_message.Message):
    __slots__ = ("address",)
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class QueryGetApplicationResponse(_message.Message):
    __slots__ = ("application",)
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    application: Application
    def __init__(self, application: _Optional[_Union[Application, _Mapping]] = ...) -> None: ...

class QueryAllApplicationsRequest(_message.Message):
    __slots__ = ("pagination", "delegatee_gateway_address")
    PAGINATION_FIELD_NUMBER: _ClassVar[int]
    DELEGATEE_GATEWAY_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    pagination: _cosmos_base_query_v1beta1_pb2.PageRequest
    delegatee_gateway_address: str
    def __init__(self, pagination: _Optional[_Union[_cosmos_base_query_v1beta1_pb2.PageRequest, _Mapping]] = ..., delegatee_gateway_address: _Optional[str] = ...) -> None: ...

class QueryAllApplicationsResponse(_message.Message):
    __slots__ = ("applications", "pagination")
    APPLICATIONS_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_FIELD_NUMBER: _ClassVar[int]
    applications: _containers.RepeatedCompositeFieldContainer[Application]
    pagination: _cosmos_base_query_v1beta1_pb2.PageResponse
    def __init__(self, applications: _Optional[_Iterable[_Union[Application, _Mapping]]] = ..., pagination: _Optional[_Union[_cosmos_base_query_v1beta1_pb2.PageResponse, _Mapping]] = ...) -> None: ...

class QueryParamsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QueryParamsResponse(_message.Message):
    __slots__ = ("params",)
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    params: Params
    def __init__(self, params: _Optional[_Union[Params, _Mapping]] = ...) -> None: ...

class MsgStakeApplication(_message.Message):
    __slots__ = ("address", "stake", "services", "per_session_spend_limit")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STAKE_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    PER_SESSION_SPEND_LIMIT_FIELD_NUMBER: _ClassVar[int]
    address: str
    stake: _cosmos_base_v1beta1_pb2.Coin
    services: _containers.RepeatedCompositeFieldContainer[_pocket_shared_pb2.ApplicationServiceConfig]
    per_session_spend_limit: _cosmos_base_v1beta1_pb2.Coin
    def __init__(self, address: _Optional[str] = ..., stake: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ..., services: _Optional[_Iterable[_Union[_pocket_shared_pb2.ApplicationServiceConfig, _Mapping]]] = ..., per_session_spend_limit: _Optional[_Union[_cosmos_base_v1beta1_pb2.Coin, _Mapping]] = ...) -> None: ...

class MsgDelegateToGateway(_message.Message):
    __slots__ = ("app_address", "gateway_address")
    APP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    app_address: str
    gateway_address: str
    def __init__(self, app_address: _Optional[str] = ..., gateway_address: _Optional[str] = ...) -> None: ...
