"""Transports from a gateway to a relayer: HTTP, gRPC and WebSocket."""

import json
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import grpc

from pocket.protocol.relays.envelope import STREAM_DELIMITER
from pocket.protocol.relays.messages import RelayRequest
from pocket.runtime.grpc_authorities import channel_credentials

METHOD: Final = "/pocket.service.RelayService/SendRelay"
_LONGEST_CODE: Final = 64


class ClientTransport(StrEnum):
    """Transports of a gateway."""

    HTTP = "http"
    GRPC = "grpc"
    WEB_SOCKET = "websocket"


class RelayFailed(Exception):
    """The relay got no valid signed response.

    The text gives the reason, `code` the relayer's name for it.
    """

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def kind(self) -> str:
        """Return the status and code that failures of one kind have in common.

        The id of a request is not part of it.
        """
        return f"status {self.status} {self.code}" if self.code else str(self)


Sender = Callable[[aiohttp.ClientSession, str, RelayRequest, int, float, Mapping[str, str]], Awaitable[list[bytes]]]
"""Sends a request with an RPC type, a timeout in seconds and additional headers to a URL.

Returns the encoded responses, several for a stream. Raises RelayFailed.
"""


async def send_http(
    http: aiohttp.ClientSession,
    url: str,
    request: RelayRequest,
    rpc_type: int,
    seconds: float,
    extra: Mapping[str, str],
) -> list[bytes]:
    """Send over HTTP. A stream is split at its delimiters."""
    headers = {"Rpc-Type": str(rpc_type), "Content-Type": "application/json", **extra}
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with http.post(url, data=request.encode(), headers=headers, timeout=timeout) as answer:
        body = await answer.read()
        if answer.status != 200:
            raise RelayFailed(
                f"status {answer.status}: {body[:300].decode('utf-8', 'replace')}", answer.status, _code_of(body)
            )
        streamed = answer.content_type in ("text/event-stream", "application/x-ndjson")
    return [part for part in body.split(STREAM_DELIMITER) if part] if streamed else [body]


def _code_of(body: bytes) -> str:
    """Return the code in a relayer's refusal, empty for another body."""
    try:
        refusal = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    code = refusal.get("code") if isinstance(refusal, dict) else None
    return code[:_LONGEST_CODE] if isinstance(code, str) else ""


async def send_grpc(
    _: aiohttp.ClientSession, url: str, request: RelayRequest, rpc_type: int, seconds: float, extra: Mapping[str, str]
) -> list[bytes]:
    """Send one unary gRPC call on its own channel."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        channel = grpc.aio.secure_channel(parts.netloc, channel_credentials())
    else:
        channel = grpc.aio.insecure_channel(parts.netloc)
    async with channel:
        try:
            call = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
            metadata = (("rpc-type", str(rpc_type)), *((name.lower(), value) for name, value in extra.items()))
            return [await call(request.encode(), metadata=metadata, timeout=seconds)]
        except grpc.aio.AioRpcError as error:
            raise RelayFailed(f"{error.code().name}: {error.details()}", error.code().value[0]) from error


async def send_web_socket(
    http: aiohttp.ClientSession, url: str, request: RelayRequest, _: int, seconds: float, extra: Mapping[str, str]
) -> list[bytes]:
    """Send one frame on its own connection and return the first frame received."""
    service = request.header.service_id if request.header else ""
    try:
        async with http.ws_connect(url, headers={"Target-Service-Id": service, **extra}, decode_text=False) as socket:
            await socket.send_bytes(request.encode())
            message = await socket.receive(seconds)
            if message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                return [message.data]
            raise RelayFailed(f"closed with {socket.close_code}: {message.extra or ''}", socket.close_code or 0)
    except aiohttp.WSServerHandshakeError as error:
        raise RelayFailed(f"status {error.status}: the upgrade was rejected", error.status) from error


SENDERS: Final[Mapping[ClientTransport, Sender]] = {
    ClientTransport.HTTP: send_http,
    ClientTransport.GRPC: send_grpc,
    ClientTransport.WEB_SOCKET: send_web_socket,
}
