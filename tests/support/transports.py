"""What tests of several transports share: a WebSocket backend, and a relayer with one."""

import asyncio
import contextlib
from dataclasses import replace

import aiohttp
from aiohttp import web

from relays import KEYS, listening, relaying
from world import address


class Sockets:
    """A WebSocket backend: answers each frame, or pushes events when asked to `subscribe`."""

    def __init__(self):
        self.frames, self.headers, self.closed, self.push = [], [], asyncio.Event(), asyncio.Queue()
        self.code, self.subscribed = None, asyncio.Event()

    async def handle(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.headers.append(dict(request.headers))
        async for message in socket:
            self.frames.append((message.type, message.data))
            if message.data in ("subscribe", b"subscribe"):
                self.subscribed.set()
                while (event := await self.push.get()) is not None:
                    await socket.send_str(event)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str("echo " + message.data)
            else:
                await socket.send_bytes(b"echo " + message.data)
        self.code = socket.close_code
        self.closed.set()
        return socket


class Stream:
    """A backend that answers in pieces, each after the first only once the gate is open."""

    def __init__(self, lines, gate=None, kind="text/event-stream"):
        self.lines, self.gate, self.kind = lines, gate, kind

    async def handle(self, request):
        response = web.StreamResponse(headers={"Content-Type": self.kind})
        await response.prepare(request)
        for number, line in enumerate(self.lines):
            if self.gate is not None and number:
                await self.gate.wait()
            await response.write(line)
        return response


@contextlib.asynccontextmanager
async def connected(relayer, **headers):
    async with relayer.http.ws_connect(
        relayer.url, headers={"Target-Service-Id": "eth", **headers}, decode_text=False
    ) as socket:
        yield socket


def frame(relayer, payload, **changes):
    return relayer.world.signed(replace(relayer.request(**changes), payload=payload))


@contextlib.asynccontextmanager
async def all_transports(redis, folder, **options):
    sockets = Sockets()
    async with listening(sockets.handle) as url:
        backends = {"webSocket": {"urls": [url.replace("http", "ws")]}} | options.pop("backends", {})
        async with relaying(redis, folder, backends=backends, **options) as relayer:
            yield relayer, sockets


async def consumed(relayer, supplier="alice"):
    found = await relayer.redis.get(KEYS.consumed(address(supplier), relayer.header().session_id))
    return int(found or 0)
