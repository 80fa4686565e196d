"""Gateways of every transport: each sends one relay and says what came of it."""

import asyncio
import base64
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

METHOD = "/pocket.service.RelayService/SendRelay"


@dataclass(frozen=True)
class Outcome:
    """Result of a call.

    `code` is the HTTP status, gRPC status or WebSocket close code. `body` is the encoded RelayResponse, if any.
    """

    code: int
    body: bytes = b""
    text: str = ""


async def http1(url: str, body: bytes, headers: dict[str, str] | None = None) -> Outcome:
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers or {}) as answer:
        read = await answer.read()
        return Outcome(answer.status, read if answer.status == 200 else b"", read.decode("utf-8", "replace"))


async def http2_raw(url: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """One request over cleartext HTTP/2 with prior knowledge."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        h2.initiate_connection()
        pseudo = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", place.netloc)]
        h2.send_headers(1, pseudo + list(headers.items()))
        status, read, left, ended = 0, b"", body, False

        def send() -> None:
            nonlocal left, ended
            while left and (room := min(h2.local_flow_control_window(1), h2.max_outbound_frame_size, len(left))):
                h2.send_data(1, left[:room])
                left = left[room:]
            if not left and not ended:
                h2.end_stream(1)
                ended = True
            writer.write(h2.data_to_send())

        send()
        while data := await asyncio.wait_for(reader.read(65536), 10):
            for event in h2.receive_data(data):
                if isinstance(event, ResponseReceived):
                    status = int(dict(event.headers)[":status"])
                elif isinstance(event, DataReceived):
                    read += event.data
                    h2.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, StreamReset):
                    raise ConnectionResetError("the stream was reset")
                elif isinstance(event, StreamEnded):
                    return status, read
            send()
        raise ConnectionResetError("the connection ended")
    finally:
        writer.close()


async def http2(url: str, body: bytes, headers: dict[str, str] | None = None) -> Outcome:
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    status, read = await http2_raw(url, "/", body, lower)
    return Outcome(status, read if status == 200 else b"", read.decode("utf-8", "replace"))


async def grpc_call(url: str, body: bytes, headers: dict[str, str] | None = None) -> Outcome:
    """By grpcio's own client."""
    metadata = [(name.lower(), value) for name, value in (headers or {}).items()]
    async with grpc.aio.insecure_channel(urlsplit(url).netloc) as channel:
        try:
            answer = await channel.unary_unary(METHOD)(body, metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return Outcome(error.code().value[0], b"", error.details() or "")
        return Outcome(0, answer)


async def grpc_web(url: str, body: bytes, headers: dict[str, str] | None = None, *, text: bool = False) -> Outcome:
    """As browsers do it, binary or base64."""
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    sent = {"Content-Type": kind, "Origin": "http://page", **(headers or {})}
    async with aiohttp.ClientSession() as http:
        data = base64.b64encode(framed) if text else framed
        async with http.post(url + METHOD, data=data, headers=sent) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            read = await answer.read()
    read = base64.b64decode(read) if text else read
    message, at = b"", 0
    while at < len(read):
        flag, length = read[at], int.from_bytes(read[at + 1 : at + 5], "big")
        part, at = read[at + 5 : at + 5 + length], at + 5 + length
        if flag & 0x80:
            rows = dict(line.split(": ", 1) for line in part.decode().strip().split("\r\n"))
            return Outcome(int(rows["grpc-status"]), message, rows.get("grpc-message", ""))
        message = part
    raise AssertionError("no trailers")


async def web_socket(url: str, body: bytes, headers: dict[str, str] | None = None) -> Outcome:
    """Send one frame and return the first frame in reply, or the close code."""
    sent = {"Target-Service-Id": "eth", **(headers or {})}
    async with aiohttp.ClientSession() as http:
        try:
            socket = await http.ws_connect(url, headers=sent, decode_text=False)
        except aiohttp.WSServerHandshakeError as error:
            return Outcome(error.status)
        async with socket:
            await socket.send_bytes(body)
            message = await socket.receive(10)
            if message.type is aiohttp.WSMsgType.BINARY:
                following = None
                if b"session expired" in message.data:
                    following = await socket.receive(10)
                    message = following
                else:
                    return Outcome(0, message.data)
            return Outcome(socket.close_code or 0, b"", str(message.extra or ""))


TRANSPORTS = {"http1": http1, "http2": http2, "grpc": grpc_call, "grpc_web": grpc_web, "websocket": web_socket}
