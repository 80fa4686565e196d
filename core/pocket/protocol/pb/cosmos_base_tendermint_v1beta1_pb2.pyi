from pocket.protocol.pb import tendermint_types_pb2 as _tendermint_types_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetLatestBlockRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLatestBlockResponse(_message.Message):
    __slots__ = ("block_id", "block")
    BLOCK_ID_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    block_id: _tendermint_types_pb2.BlockID
    block: _tendermint_types_pb2.Block
    def __init__(self, block_id: _Optional[_Union[_tendermint_types_pb2.BlockID, _Mapping]] = ..., block: _Optional[_Union[_tendermint_types_pb2.Block, _Mapping]] = ...) -> None: ...

class GetBlockByHeightRequest(_message.Message):
    __slots__ = ("height",)
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    height: int
    def __init__(self, height: _Optional[int] = ...) -> None: ...

class GetBlockByHeightResponse(_message.Message):
    __slots__ = ("block_id", "block")
    BLOCK_ID_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    block_id: _tendermint_types_pb2.BlockID
    block: _tendermint_types_pb2.Block
    def __init__(self, block_id: _Optional[_Union[_tendermint_types_pb2.BlockID, _Mapping]] = ..., block: _Optional[_Union[_tendermint_types_pb2.Block, _Mapping]] = ...) -> None: ...

class NodeInfo(_message.Message):
    __slots__ = ("network", "version", "moniker")
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MONIKER_FIELD_NUMBER: _ClassVar[int]
    network: str
    version: str
    moniker: str
    def __init__(self, network: _Optional[str] = ..., version: _Optional[str] = ..., moniker: _Optional[str] = ...) -> None: ...

class GetNodeInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNodeInfoResponse(_message.Message):
    __slots__ = ("default_node_info",)
    DEFAULT_NODE_INFO_FIELD_NUMBER: _ClassVar[int]
    default_node_info: NodeInfo
    def __init__(self, default_node_info: _Optional[_Union[NodeInfo, _Mapping]] = ...) -> None: ...
