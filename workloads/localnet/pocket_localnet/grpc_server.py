"""The gRPC server of a chain node."""

from typing import Any, Final

import grpc
import grpc.aio

from pocket_localnet.grpc_service import METHODS, Abort, answer
from pocket_localnet.local_chain import LocalChain

_HEIGHT: Final = "x-cosmos-block-height"


def _is_about_the_state(abort: Abort) -> bool:
    """Return True if a query failed before a state was selected, so no height is sent."""
    return "codespace sdk code" in abort.text or "unmarshalling" in abort.text


class ChainService(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """All methods of METHODS. Any other method is UNIMPLEMENTED."""

    def __init__(self, chain: LocalChain) -> None:
        self._chain = chain

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method, or None."""
        method = handler_call_details.method
        if method not in METHODS:
            return None

        async def respond(request: bytes, context: Any) -> bytes:
            metadata = {key.lower(): value for key, value in context.invocation_metadata()}
            asked_height = str(metadata.get(_HEIGHT, "0"))
            try:
                body, height = answer(self._chain, method, request, asked_height)
            except Abort as abort:
                if not _is_about_the_state(abort):
                    answered = int(asked_height) or self._chain.served_height
                    await context.send_initial_metadata(((_HEIGHT, str(answered)),))
                await context.abort(abort.code, abort.text)
                raise
            await context.send_initial_metadata(((_HEIGHT, str(height)),))
            return body

        return grpc.unary_unary_rpc_method_handler(respond)


async def start_grpc(chain: LocalChain, address: str) -> tuple[grpc.aio.Server, int]:
    """Start a server and return it with its port.

    Raises RuntimeError when the port is taken.
    """
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((ChainService(chain),))
    port = server.add_insecure_port(address)
    await server.start()
    return server, port
