from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionHeader(_message.Message):
    __slots__ = ("application_address", "service_id", "session_id", "session_start_block_height", "session_end_block_height")
    APPLICATION_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_START_BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SESSION_END_BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    application_address: bytes
    service_id: bytes
    session_id: bytes
    session_start_block_height: int
    session_end_block_height: int
    def __init__(self, application_address: _Optional[bytes] = ..., service_id: _Optional[bytes] = ..., session_id: _Optional[bytes] = ..., session_start_block_height: _Optional[int] = ..., session_end_block_height: _Optional[int] = ...) -> None: ...

class RelayRequestMetadata(_message.Message):
    __slots__ = ("session_header", "signature", "supplier_operator_address")
    SESSION_HEADER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SUPPLIER_OPERATOR_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    session_header: SessionHeader
    signature: bytes
    supplier_operator_address: bytes
    def __init__(self, session_header: _Optional[_Union[SessionHeader, _Mapping]] = ..., signature: _Optional[bytes] = ..., supplier_operator_address: _Optional[bytes] = ...) -> None: ...

class RelayRequest(_message.Message):
    __slots__ = ("meta", "payload")
    META_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    meta: RelayRequestMetadata
    payload: bytes
    def __init__(self, meta: _Optional[_Union[RelayRequestMetadata, _Mapping]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class RelayResponseMetadata(_message.Message):
    __slots__ = ("session_header", "supplier_operator_signature")
    SESSION_HEADER_FIELD_NUMBER: _ClassVar[int]
    SUPPLIER_OPERATOR_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    session_header: SessionHeader
    supplier_operator_signature: bytes
    def __init__(self, session_header: _Optional[_Union[SessionHeader, _Mapping]] = ..., supplier_operator_signature: _Optional[bytes] = ...) -> None: ...

class RelayMinerError(_message.Message):
    __slots__ = ("codespace", "code", "description", "message")
    CODESPACE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    codespace: bytes
    code: int
    description: bytes
    message: bytes
    def __init__(self, codespace: _Optional[bytes] = ..., code: _Optional[int] = ..., description: _Optional[bytes] = ..., message: _Optional[bytes] = ...) -> None: ...

class RelayResponse(_message.Message):
    __slots__ = ("meta", "payload", "relay_miner_error", "payload_hash")
    META_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    RELAY_MINER_ERROR_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_HASH_FIELD_NUMBER: _ClassVar[int]
    meta: RelayResponseMetadata
    payload: bytes
    relay_miner_error: RelayMinerError
    payload_hash: bytes
    def __init__(self, meta: _Optional[_Union[RelayResponseMetadata, _Mapping]] = ..., payload: _Optional[bytes] = ..., relay_miner_error: _Optional[_Union[RelayMinerError, _Mapping]] = ..., payload_hash: _Optional[bytes] = ...) -> None: ...

class Relay(_message.Message):
    __slots__ = ("req", "res")
    REQ_FIELD_NUMBER: _ClassVar[int]
    RES_FIELD_NUMBER: _ClassVar[int]
    req: RelayRequest
    res: RelayResponse
    def __init__(self, req: _Optional[_Union[RelayRequest, _Mapping]] = ..., res: _Optional[_Union[RelayResponse, _Mapping]] = ...) -> None: ...
