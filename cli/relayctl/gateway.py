"""Sign relays for an application, send them and verify the responses.

A gateway does the same.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from pocket.chain.client import ChainClient
from pocket.chain.model import Session
from pocket.chain.ring_queries import query_ring
from pocket.errors import ChainError, DecodingError, InvalidRelay, NotFound, system_reason
from pocket.protocol.crypto.ecdsa import PrivateKey, verify_signature
from pocket.protocol.crypto.ring import sign_ring
from pocket.protocol.relays.envelope import HttpRequest, HttpResponse, decode_http_response, url_text
from pocket.protocol.relays.messages import RelayRequest, RelayResponse, decode_relay_response
from relayctl.client_transports import SENDERS, ClientTransport, RelayFailed


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    """A verified response."""

    response: RelayResponse
    http: HttpResponse
    seconds: float


@dataclass(slots=True)
class SessionSigner:
    """Signs for one session."""

    session: Session
    ring: tuple[bytes, ...]
    key: PrivateKey
    random_bytes: Callable[[int], bytes] = secrets.token_bytes

    def sign(self, supplier: str, envelope: HttpRequest) -> RelayRequest:
        """Return a request with a new ring signature."""
        return self.sign_payload(supplier, envelope.encode())

    def sign_payload(self, supplier: str, payload: bytes) -> RelayRequest:
        """Sign a payload without envelope, such as a WebSocket frame."""
        unsigned = RelayRequest(self.session.header, b"", supplier, payload)
        signature = sign_ring(unsigned.signable_hash(), self.ring, self.key.scalar, self.random_bytes)
        return RelayRequest(self.session.header, signature.encode(), supplier, unsigned.payload)


class Gateway:
    """Signs with one key for any application that is, or delegates to, its owner."""

    def __init__(self, chain: ChainClient, http: aiohttp.ClientSession, key: PrivateKey) -> None:
        self._chain = chain
        self._http = http
        self._key = key
        self._supplier_keys: dict[str, bytes] = {}

    async def signer(self, application: str, service: str, height: int = 0) -> SessionSigner:
        """Return the signer for the session that includes `height` (0 = now).

        Raises ChainError.
        """
        session = await self._chain.session(application, service, height)
        header = session.header
        ring = await query_ring(self._chain, header.application_address, header.session_end_block_height)
        if self._key.public_key not in ring:
            raise InvalidRelay(f"the key is neither application {application}'s nor a delegated gateway's")
        return SessionSigner(session, ring, self._key)

    async def supplier_key(self, address: str) -> bytes:
        """Return the public key of a supplier. Raises ChainError."""
        if address not in self._supplier_keys:
            account = await self._chain.account(address)
            if account.public_key is None:
                raise NotFound(f"supplier {address} has no public key on chain")
            self._supplier_keys[address] = account.public_key
        return self._supplier_keys[address]

    async def send(
        self,
        url: str,
        request: RelayRequest,
        rpc_type: int,
        timeout_seconds: float = 30.0,
        over: ClientTransport = ClientTransport.HTTP,
    ) -> RelayAnswer:
        """Send a relay and return the verified response. Raises RelayFailed.

        The chunks of a stream are verified one by one and returned as one body.
        """
        begun = time.perf_counter()
        try:
            supplier_key = await self.supplier_key(request.supplier_operator_address)
            bodies = await SENDERS[over](self._http, url, request, rpc_type, timeout_seconds, {})
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise RelayFailed(f"{url}: {system_reason(error)}") from error
        except ChainError as error:
            raise RelayFailed(str(error)) from error
        try:
            return self._verified(request, bodies, supplier_key, over, begun)
        except DecodingError as error:
            raise RelayFailed(f"{url}: the answer is no relay response: {error}") from error

    @staticmethod
    def _verified(
        request: RelayRequest, bodies: list[bytes], supplier_key: bytes, over: ClientTransport, begun: float
    ) -> RelayAnswer:
        """Return the verified answer. Raises RelayFailed and DecodingError."""
        responses = [decode_relay_response(body) for body in bodies]
        for response in responses:
            if response.header != request.header:
                raise RelayFailed("the response is for another session header")
            if not verify_signature(supplier_key, response.signable_hash(), response.supplier_operator_signature):
                raise RelayFailed("the supplier's signature is invalid")
        if not responses:
            raise RelayFailed("the stream was empty")
        if over is ClientTransport.WEB_SOCKET:
            combined = HttpResponse(200, {}, responses[0].payload)
        else:
            parts = [decode_http_response(response.payload) for response in responses]
            combined = HttpResponse(parts[0].status, parts[0].headers, b"".join(part.body for part in parts))
        return RelayAnswer(responses[-1], combined, time.perf_counter() - begun)


def json_rpc_envelope(url: str, body: bytes) -> HttpRequest:
    """Return the envelope of a JSON-RPC call."""
    return HttpRequest("POST", url_text(url), {"Content-Type": ("application/json",)}, body)


def rest_envelope(url: str) -> HttpRequest:
    """Return the envelope of a REST read."""
    return HttpRequest("GET", url_text(url), {"Accept": ("application/json",)}, b"")
