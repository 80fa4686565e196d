"""The first thing that is wrong with a relay rejects it before any query. Simulated relays have checks of their own."""

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from generate_reference import refusals_page
from mutants import ROOT
from pocket.api.services import ServiceSpec
from pocket.api.simulation import Simulation
from pocket.keys.remote_signer import RemoteKey
from pocket.protocol.crypto.ring import sign_ring
from pocket.protocol.relays.envelope import HttpRequest
from pocket.protocol.relays.messages import RelayRequest, SessionHeader
from pocket.protocol.relays.simulated import simulated_header
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.limits.rejection import Rejected, RejectionReason, first_rejected
from pocket_relayer.pipeline.relay import Transport, TransportInfo, parse_relay
from pocket_relayer.pipeline.simulated_relays import HEADER as SIMULATED
from pocket_relayer.pipeline.simulated_relays import SimulatedRelayAdmission
from world import World, address, key

WORLD = World()
HEADER = SessionHeader(address("app eth"), "eth", "ab" * 32, 11, 20)
REQUEST = WORLD.request(HEADER, address("alice"), b"{}")
KEYS = {address("alice"): key("alice")}
BACKENDS = {"jsonRpc": {"urls": ["http://b"]}, "rest": {"urls": ["http://b"]}}


def registry(**more):
    service = ServiceSpec.model_validate({"id": "eth", "maxBodyBytes": 10_000, "backends": BACKENDS, **more})
    backends = SimpleNamespace(service=service)
    return SimpleNamespace(get=lambda name: backends if name == "eth" else None)


def parsed(
    request=REQUEST, *, headers=None, transport=Transport.HTTP, height=15, keys=None, simulated="", more=None, **caller
):
    """Return the relay, or the rejection with its service."""
    body = request if isinstance(request, bytes) else request.encode()
    info = TransportInfo(transport, headers or {}, **caller)
    try:
        return parse_relay(
            body, info, registry(**(more or {})), KEYS if keys is None else keys, lambda: height, simulated
        )
    except Rejected as rejected:
        return rejected.reason, rejected.service_id


def with_header(**changes):
    return WORLD.signed(replace(REQUEST, header=replace(HEADER, **changes)))


AWAY = {address("alice"): RemoteKey(key("alice").public_key, SimpleNamespace(problem="away"))}


@pytest.mark.parametrize(
    ("change", "reason", "service"),
    [
        ({"request": b"\xff"}, RejectionReason.INVALID_REQUEST, ""),
        ({"request": replace(REQUEST, header=None)}, RejectionReason.INVALID_REQUEST, ""),
        ({"request": with_header(service_id="")}, RejectionReason.INVALID_REQUEST, ""),
        ({"request": with_header(service_id="other")}, RejectionReason.UNKNOWN_SERVICE, ""),
        ({"request": replace(REQUEST, payload=b"\xff")}, RejectionReason.INVALID_REQUEST, "eth"),
        ({"headers": {"Rpc-Type": "soap"}}, RejectionReason.UNKNOWN_RPC_TYPE, "eth"),
        ({"more": {"maxBodyBytes": len(REQUEST.encode()) - 1}}, RejectionReason.BODY_TOO_LARGE, "eth"),
        ({"request": replace(REQUEST, supplier_operator_address="")}, RejectionReason.SUPPLIER_MISSING, "eth"),
        ({"keys": {}}, RejectionReason.SUPPLIER_NOT_OURS, "eth"),
        ({"keys": AWAY}, RejectionReason.SIGNER_UNAVAILABLE, "eth"),
        ({"request": replace(REQUEST, signature=b"")}, RejectionReason.INVALID_REQUEST, "eth"),
        ({"height": 20_021}, RejectionReason.IMPLAUSIBLE_HEIGHTS, "eth"),
        ({"more": {"applications": {"deny": [address("app eth")]}}}, RejectionReason.APPLICATION_REFUSED, "eth"),
        ({"more": {"applications": {"allow": [address("gateway")]}}}, RejectionReason.APPLICATION_REFUSED, "eth"),
    ],
)
def test_what_needs_no_query_is_rejected_at_once_with_the_service_that_rejects(change, reason, service):
    assert parsed(**change) == (reason, service)


@pytest.mark.parametrize("change", [
    {}, {"more": {"maxBodyBytes": len(REQUEST.encode())}}, {"height": 0}, {"height": 10_020},
    {"more": {"applications": {"allow": [address("app eth")]}}}, {"height": 20_021, "simulated": "probe"},
    {"simulated": "probe", "more": {"applications": {"deny": [address("app eth")]}}},
])  # fmt: skip
def test_a_sound_relay_has_all_that_follows_from_its_bytes(change):
    relay = parsed(**change)
    assert (relay.supplier, relay.header, relay.rpc_type) == (address("alice"), HEADER, "jsonRpc")
    assert (relay.envelope.method, relay.envelope.body, relay.simulated) == ("POST", b"{}", change.get("simulated", ""))
    assert relay.pocket_headers() == {
        "Pocket-Supplier": address("alice"), "Pocket-Service": "eth", "Pocket-Application": address("app eth"),
    }  # fmt: skip


FRAMED = WORLD.signed(
    RelayRequest(
        HEADER,
        b"",
        address("alice"),
        HttpRequest("POST", "/", {"Content-Type": ("application/grpc+proto",)}, b"").encode(),
    )
)


@pytest.mark.parametrize(
    ("asked", "transport", "request_", "kind"),
    [
        ("", Transport.HTTP, REQUEST, "jsonRpc"), ("4", Transport.HTTP, REQUEST, "rest"),
        (" rest ", Transport.HTTP, REQUEST, "rest"),
        ("json_rpc", Transport.HTTP, REQUEST, "jsonRpc"), ("5", Transport.HTTP, REQUEST, "cometBft"),
        ("1", Transport.HTTP, REQUEST, "grpc"), ("", Transport.GRPC, REQUEST, "jsonRpc"),
        ("", Transport.GRPC, FRAMED, "grpc"), ("", Transport.GRPC_WEB, FRAMED, "grpc"),
        ("", Transport.HTTP, FRAMED, "jsonRpc"),
        ("3", Transport.GRPC, FRAMED, "jsonRpc"), ("", Transport.WEB_SOCKET, REQUEST, "webSocket"),
    ],
)  # fmt: skip
def test_the_kind_of_backend_is_the_one_asked_for_or_follows_from_transport_and_content(
    asked, transport, request_, kind
):
    relay = parsed(request_, headers={"Rpc-Type": asked} if asked else {}, transport=transport)
    assert relay.rpc_type == kind
    assert relay.over_grpc == (kind == "grpc" or transport in (Transport.GRPC, Transport.GRPC_WEB))
    if transport is Transport.WEB_SOCKET:
        assert relay.envelope == HttpRequest("", "", {}, request_.payload), "a frame has no envelope"


@pytest.mark.parametrize(
    ("validation", "transport", "counted", "by_address"),
    [
        ("eager", Transport.HTTP, True, False), ("optimistic", Transport.HTTP, True, True),
        ("optimistic", Transport.HTTP, False, False), ("optimistic", Transport.GRPC, True, False),
    ],
)  # fmt: skip
def test_connections_are_shared_by_application_and_by_address_where_anybody_can_name_one(
    validation, transport, counted, by_address
):
    reservation = MemoryBudget(lambda: 0.0).connection("192.0.2.1").reserve() if counted else None
    relay = parsed(more={"validation": validation}, transport=transport, reservation=reservation)
    assert relay.fairness_key == address("app eth") + (" 192.0.2.1" if by_address else "")


def test_the_page_of_refusals_has_the_statuses_that_gateways_know():
    assert (ROOT / "docs/reference/refusals.md").read_text() == refusals_page()


@pytest.mark.parametrize("limit", [40, 60, 123])
def test_the_text_that_closes_a_connection_fits_with_code_and_id(limit):
    for message in ("", "short", "é" * 200):
        rejected = Rejected(RejectionReason.REPLAYED, message)
        text = rejected.close_text(limit)
        assert text.endswith(f" (replayed {rejected.request_id})")
        assert len(text.encode()) <= limit
        assert len(text.encode()) >= min(limit - 1, len(message.encode()))
    assert Rejected(RejectionReason.INTERNAL, "m").status == 500
    assert Rejected(RejectionReason.INTERNAL, "m", 418).status == 418


def test_the_first_rejection_of_a_group_is_the_one_told():
    first, second = Rejected(RejectionReason.REPLAYED, "a"), Rejected(RejectionReason.INTERNAL, "b")
    nested = BaseExceptionGroup("g", [ValueError(), BaseExceptionGroup("h", [OSError(), first]), second])
    assert first_rejected(nested) is first
    other = BaseExceptionGroup("g", [ValueError()])
    assert first_rejected(other) is other
    assert first_rejected(second) is second


# Simulated relays

NOW = 1_800_000_000
IDENTITY = {
    "keyId": "probe", "applicationPublicKey": key("app eth").public_key.hex(), "maxPerSecond": 2,
    "gatewayPublicKeys": [key("gateway").public_key.hex()], "services": ["eth"], "notAfter": "2027-01-31T00:00:00Z",
}  # fmt: skip


class Simulating:
    """The admission of simulated relays on clocks that the test sets, with what Redis noted."""

    def __init__(self, identity=None, **config):
        rows = [
            {"keyId": "other", **{k: v for k, v in IDENTITY.items() if k != "keyId"}},
            {**IDENTITY, **(identity or {})},
        ]
        self.config = Simulation.model_validate({"enabled": True, "identities": rows, **config})
        self.noted, self.now, self.clock, self.away, self.number = {}, NOW, 0.0, False, 0
        self.admission = SimulatedRelayAdmission(
            self, RedisKeys("p"), lambda: self.config, wall_clock=lambda: self.now, clock=lambda: self.clock
        )

    async def set(self, name, value, *, nx, ex):
        if self.away:
            raise RedisUnavailable("away")
        assert nx
        if name in self.noted:
            return None
        self.noted[name] = ex
        return True

    def relay(self, *, at=0, service="eth", signer="gateway", application="app eth", session_id=None, key_id="probe"):
        """Return a signed simulated relay of a time, each with a nonce of its own."""
        self.number += 1
        header = simulated_header(key(application).public_key, service, NOW + at, self.number.to_bytes(4, "big"))
        header = header if session_id is None else replace(header, session_id=session_id)
        unsigned = RelayRequest(header, b"", address("alice"), REQUEST.payload)
        ring = sorted([key(signer).public_key, key(application).public_key])
        signature = sign_ring(unsigned.signable_hash(), ring, key(signer).scalar, random.Random(self.number).randbytes)
        return parsed(replace(unsigned, signature=signature.encode()), simulated=key_id, more={"id": service})

    def outcome(self, relay):
        try:
            return asyncio.run(self.admission.admit(relay))
        except Rejected as rejected:
            return rejected.reason


REFUSED, LIMITED = RejectionReason.SIMULATION_REFUSED, RejectionReason.SIMULATION_LIMITED


def test_a_simulated_relay_is_admitted_once_unpaid_and_of_no_session():
    world = Simulating()
    relay = world.relay()
    admitted, metered = world.outcome(relay)
    assert (admitted.windows, admitted.target_hash, admitted.header) == (None, b"\xff" * 32, relay.header)
    assert (metered.charge, metered.paid) == (None, False)
    assert list(world.noted.values()) == [2 * 30], "as long as it could be fresh, before and after its time"
    world.clock = 10.0
    assert world.outcome(relay) is RejectionReason.SIMULATION_REPLAYED


@pytest.mark.parametrize(
    ("relay", "reason"),
    [
        ({"key_id": "nobody"}, REFUSED), ({"application": "bob"}, REFUSED), ({"signer": "bob"}, REFUSED),
        ({"session_id": "ab" * 32}, RejectionReason.INVALID_REQUEST),
        ({"session_id": f"simv1:{NOW}:xyz"}, RejectionReason.INVALID_REQUEST),
        ({"at": -30}, REFUSED), ({"at": 30}, REFUSED), ({"at": -29}, None), ({"at": 29}, None),
    ],
)  # fmt: skip
def test_a_simulated_relay_is_refused_unless_it_is_pinned_and_fresh(relay, reason):
    world = Simulating()
    found = world.outcome(world.relay(**relay))
    assert (found if isinstance(found, RejectionReason) else None) is reason
    assert len(world.noted) == (reason is None), "nothing is noted of strangers"


@pytest.mark.parametrize(
    ("identity", "known"),
    [
        ({}, True), ({"enabled": False}, False), ({"services": []}, True), ({"services": ["base"]}, True),
        ({"notAfter": "2027-01-15T08:00:00Z"}, False), ({"notAfter": "2027-01-15T08:00:01Z"}, True),
    ],
)  # fmt: skip
def test_an_identity_counts_while_it_is_enabled_not_expired_and_for_its_services(identity, known):
    world = Simulating(identity)
    assert world.admission.knows("probe") is known
    admitted = not isinstance(world.outcome(world.relay()), RejectionReason)
    assert admitted == (known and identity.get("services") != ["base"])
    world.config = world.config.model_copy(update={"enabled": False})
    assert not world.admission.knows("probe")


def test_an_identity_has_its_rate_as_configured_now_and_without_redis_nothing_is_admitted():
    world = Simulating()
    found = [world.outcome(world.relay()) for _ in range(3)]
    assert [row is LIMITED for row in found] == [False, False, True]
    world.clock = 0.5
    assert [world.outcome(world.relay()) is LIMITED for _ in range(2)] == [False, True]
    raised = tuple(row.model_copy(update={"max_per_second": 4}) for row in world.config.identities)
    world.config, world.clock = world.config.model_copy(update={"identities": raised}), 100.0
    assert [world.outcome(world.relay()) is LIMITED for _ in range(5)] == [False] * 4 + [True]
    world.away, world.clock = True, 200.0
    assert world.outcome(world.relay()) is RejectionReason.SIMULATION_UNAVAILABLE


def test_so_many_simulated_relays_run_at_once_and_others_have_no_limit():
    admission = Simulating(maxConcurrent=2).admission
    with admission.limit("probe"):
        with admission.limit("probe"):
            with pytest.raises(Rejected) as rejected, admission.limit("probe"):
                pass
            assert rejected.value.reason is LIMITED
            for free in ("", "nobody"):
                with admission.limit(free):
                    pass
        with admission.limit("probe"):
            pass


@pytest.mark.parametrize(("enabled", "sent", "named"), [
    (True, " probe ", "probe"), (True, "", ""), (False, "probe", ""), (True, "x" * 99, "x" * 64),
])  # fmt: skip
def test_a_caller_asks_for_simulation_by_a_header_that_is_ignored_while_it_is_disabled(enabled, sent, named):
    world = Simulating()
    world.config = world.config.model_copy(update={"enabled": enabled})
    assert world.admission.key_id(TransportInfo(Transport.HTTP, {SIMULATED: sent})) == named
