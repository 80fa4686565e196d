"""Relays and connections that are being admitted while the configuration replaces their backends."""

import asyncio
import base64
from dataclasses import replace

import pytest

from pocket.protocol.relays.envelope import HttpRequest
from pocket_relayer.backends.framing import frame as grpc_frame
from relays import listening, relaying
from transports import Sockets, connected, frame

pytestmark = pytest.mark.redis
BACKENDS = {
    "https": {"jsonRpc": {"urls": ["https://127.0.0.1:1"]}},
    "grpc": {"grpc": {"urls": ["grpc://127.0.0.1:1"]}},
}


class Gate:
    """Delays a coroutine function until it is open."""

    def __init__(self, work):
        self.work, self.reached, self.opened = work, asyncio.Event(), asyncio.Event()

    async def __call__(self, *given, **named):
        self.reached.set()
        await self.opened.wait()
        return await self.work(*given, **named)


async def replace_backends(relayer):
    """Replace the backends of the service, and wait until the registry has seen to the old ones."""
    old = relayer.registry.get("eth")
    changed = old.service.model_copy(update={"max_body_bytes": old.service.max_body_bytes + 1})
    assert relayer.registry.update([changed]) == ["eth"]
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", BACKENDS)
async def test_a_relay_that_is_being_admitted_is_served_by_the_backends_it_began_with(redis, tmp_path, kind):
    async with relaying(redis, tmp_path, service={"backends": BACKENDS[kind]}) as relayer:
        envelope = HttpRequest("POST", "/a/b", {}, grpc_frame(b"x"))
        requests = [
            relayer.world.signed(replace(relayer.request(), payload=replace(envelope, url=f"/a/{n}").encode()))
            for n in range(2)
        ]
        headers = {"Rpc-Type": "1" if kind == "grpc" else "3"}
        assert b'"backend_failed"' in (await relayer.send(requests[0], headers))[2]  # opens connections and channels
        gate = Gate(relayer.pipeline.admission.validate)
        relayer.pipeline.admission.validate = gate
        relay = asyncio.create_task(relayer.send(requests[1], headers))
        await asyncio.wait_for(gate.reached.wait(), 5)
        await replace_backends(relayer)
        gate.opened.set()
        status, _, body = await relay
        assert (status, b'"backend_failed"' in body) == (502, True)


async def test_a_connection_whose_handshake_is_being_verified_keeps_its_backends(redis, tmp_path):
    sockets = Sockets()
    async with listening(sockets.handle) as url:
        backends = {"webSocket": {"urls": [url.replace("http", "ws")]}}
        async with relaying(redis, tmp_path, backends=backends, enforce_handshake=True) as relayer:
            signed = relayer.world.signed(replace(relayer.request(), payload=b""))
            header = signed.header
            validate = relayer.pipeline.admission.validate
            gate = relayer.pipeline.admission.validate = Gate(validate)

            async def relay():
                async with connected(
                    relayer,
                    **{
                        "App-Address": header.application_address, "Pocket-Session-Id": header.session_id,
                        "Pocket-Session-Start-Height": str(header.session_start_block_height),
                        "Pocket-Session-End-Height": str(header.session_end_block_height),
                        "Pocket-Supplier-Address": signed.supplier_operator_address,
                        "Pocket-Signature": base64.b64encode(signed.signature).decode(),
                    },
                ) as socket:  # fmt: skip
                    await socket.send_bytes(frame(relayer, b"x").encode())
                    return (await socket.receive(5)).type.name

            connection = asyncio.create_task(relay())
            await asyncio.wait_for(gate.reached.wait(), 5)
            relayer.pipeline.admission.validate = validate
            await replace_backends(relayer)
            gate.opened.set()
            assert await connection == "BINARY"
