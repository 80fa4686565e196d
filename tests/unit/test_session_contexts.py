"""How long what a relayer knows of sessions, rings and suppliers counts, and of which session it is."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from direct import DirectChain
from pocket.api.services import RPC_NUMBERS
from pocket.chain import ring_queries
from pocket.chain.model import ServiceConfig, StakedSupplier
from pocket.chain.node_answer import NodeAnswer
from pocket.errors import ChainUnavailable, NotFound
from pocket.protocol.crypto.ring import ExpectedRing
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.relays.messages import RelayRequest, SessionHeader
from pocket_localnet.hydration import hydrate
from pocket_localnet.local_chain import LocalChain
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline import session_context
from pocket_relayer.pipeline.admission import Admission, verification_cost
from pocket_relayer.pipeline.authorization import plausible_problem, supplier_rejection
from pocket_relayer.pipeline.fair_queue import QUANTUM
from pocket_relayer.pipeline.session_context import SessionContexts
from world import World, address

HEADER = SessionHeader(address("app"), "eth", "session", 11, 20)


def supplier(*, services=("eth",), unstaked=0, history=()):
    return StakedSupplier(address("alice"), address("alice"), 10**9, frozenset(services), unstaked, history)


def served(service, first, last):
    return ServiceConfig(service, first, last)


@pytest.mark.parametrize(
    ("staked", "height", "reason"),
    [
        (supplier(), 15, None),
        (supplier(services=("other",)), 15, RejectionReason.WRONG_SERVICE),
        (supplier(services=()), 15, None),  # nothing is known of its services
        (supplier(services=(), history=(served("eth", 1, 0),)), 15, None),
        (supplier(services=(), history=(served("other", 1, 0),)), 15, RejectionReason.WRONG_SERVICE),
        (supplier(history=(served("eth", 15, 0),)), 14, RejectionReason.WRONG_SERVICE),
        (supplier(history=(served("eth", 15, 0),)), 15, None),
        (supplier(history=(served("eth", 1, 16),)), 15, None),
        (supplier(history=(served("eth", 1, 16),)), 16, RejectionReason.WRONG_SERVICE),
        (supplier(unstaked=20), 15, None),
        (supplier(unstaked=19), 15, RejectionReason.SUPPLIER_INACTIVE),
        (supplier(unstaked=30, services=("other",)), 15, RejectionReason.SUPPLIER_INACTIVE),
    ],
)
async def test_a_supplier_serves_what_its_stake_declares_at_the_height_that_is_known(staked, height, reason):
    found = supplier_rejection(staked, HEADER, height)
    assert (found and found.reason) is reason

    class Chain:
        async def supplier(self, _):
            return staked

        async def ask_every_node(self, *_):
            answer = supplier_pb.QueryGetSupplierResponse(supplier={"stake": {"denom": "upokt", "amount": "1"}})
            return {"node": NodeAnswer(answer.SerializeToString())}

        async def adopt(self, *_):
            return

    admission = Admission(Chain(), lambda: height, lambda: 0.0)
    request = RelayRequest(HEADER, b"", address("alice"), b"payload")
    if reason is None:
        await admission.check_supplier(request, HEADER, next(iter(RPC_NUMBERS)))
        return
    with pytest.raises(Rejected) as rejected:
        await admission.check_supplier(request, HEADER, next(iter(RPC_NUMBERS)))
    assert rejected.value.reason is reason


FAR = 10_000


@pytest.mark.parametrize(
    ("start", "end", "height", "plausible"),
    [
        (1, 2, 0, True), (0, 10, 0, False), (5, 5, 0, False), (1, 1 + FAR, 0, True), (1, 2 + FAR, 0, False),
        (10 + FAR, 20 + FAR, 10, True), (11 + FAR, 20 + FAR, 10, False), (11 + FAR, 20 + FAR, 0, True),
        (11, 20, 20 + FAR, True), (11, 20, 21 + FAR, False),
    ],
)  # fmt: skip
def test_session_heights_are_plausible_up_to_ten_thousand_blocks_away(start, end, height, plausible):
    header = replace(HEADER, session_start_block_height=start, session_end_block_height=end)
    assert (plausible_problem(header, height) is None) is plausible


async def no_answers(*_):
    return {}


class Known:
    """Contexts over a localnet at a height and time that the test sets, with the queries that they need."""

    def __init__(self, blocks=0):
        self.world, self.asked = World(), []
        self.chain = LocalChain(self.world.genesis())
        self.height, self.now, self.generation = 1, 0.0, 0
        self.contexts = SessionContexts(
            DirectChain(self.chain, self._ask), lambda: self.height, lambda: self.now, lambda: self.generation
        )
        self.to(1 + blocks)

    async def _ask(self, name):
        self.asked.append(name)

    def to(self, height):
        """Let the chain grow to a height."""
        while self.chain.height < height:
            self.chain.step()
        self.height = height

    def header(self, height):
        return hydrate(self.chain.state, self.chain.block_hash, self.world.application("eth"), "eth", height).header

    async def refused(self, header):
        try:
            await self.contexts.of(header)
        except Rejected as rejected:
            return rejected.reason
        return None

    async def queries(self, header):
        self.asked = []
        await self.contexts.of(header)
        return sorted(self.asked)


async def test_a_ring_counts_for_half_a_minute_and_until_an_application_or_account_changes():
    known = Known()
    header = known.header(1)
    first = await known.queries(header)
    assert {"GetSession", "Application"} < set(first)
    ring = sorted(name for name in first if name in ("Application", "Account"))
    known.now = 29.9
    assert await known.queries(header) == []
    known.now = 30.0
    assert await known.queries(header) == ring
    known.generation = 1
    assert await known.queries(header) == ring, "the miners' leader saw a record change"


async def test_the_ring_of_a_session_has_the_gateways_that_were_delegated_to_until_its_end(monkeypatch):
    known, ends = Known(blocks=4), []
    members = ring_queries.ring_addresses

    def noted(delegations, session_end):
        ends.append(session_end)
        return members(delegations, session_end)

    monkeypatch.setattr(ring_queries, "ring_addresses", noted)
    monkeypatch.setattr(session_context, "ring_addresses", noted)
    header = known.header(5)
    context = await known.contexts.of(header)
    assert isinstance(context.ring, ExpectedRing)
    assert await known.contexts.corrected(header, context) is None
    assert ends == [header.session_end_block_height] * 3, "once more, after every node was queried for its members"


async def test_a_refused_relay_has_every_node_queried_once_a_block_and_again_at_the_next():
    known = Known(blocks=2)
    header = known.header(3)
    context = await known.contexts.of(header)
    asked = []
    for height in (3, 3, 4, 4):
        known.to(height)
        known.asked = []
        assert await known.contexts.corrected(header, context) is None
        asked.append(len(known.asked))
    assert asked[0] > 0
    assert asked == [asked[0], 0, asked[0], 0]


async def test_an_address_whose_relays_all_nodes_refuse_has_them_queried_a_few_times_only():
    known = Known(blocks=2)
    header = known.header(3)
    context = await known.contexts.of(header)
    queried = 0
    for _ in range(100):
        known.height, known.asked = known.height + 1, []
        with suppress(Rejected):
            assert await known.contexts.corrected(header, context, "192.0.2.1") is None
        queried += bool(known.asked)
    assert 1 < queried < 20
    assert await known.contexts.corrected(header, context, "192.0.2.2") is None, "another address"


async def test_a_session_that_most_nodes_state_otherwise_replaces_the_one_that_was_known():
    known = Known(blocks=2)
    header = known.header(3)
    context = await known.contexts.of(header)
    wrong = replace(context.session, supplier_addresses=frozenset())
    known.contexts._sessions[session_context._key_of(header)] = (wrong, context.target_hash, context.windows)
    corrected = await known.contexts.corrected(header, replace(context, session=wrong))
    assert corrected is not None
    assert corrected.session == context.session


async def test_a_relay_that_one_answer_refuses_is_admitted_by_what_all_nodes_state():
    known = Known(blocks=2)
    header = known.header(3)
    admission = Admission(DirectChain(known.chain, known._ask), lambda: known.height, lambda: 0.0)
    context = await admission._contexts.of(header)
    (supplier_address, *_) = sorted(context.session.supplier_addresses)
    wrong = (replace(context.session, supplier_addresses=frozenset()), context.target_hash, context.windows)
    relay = known.world.request(header, supplier_address, b"{}")
    for confirm in (False, True):
        admission._contexts._sessions[session_context._key_of(header)] = wrong
        if confirm:
            assert (await admission.validate(relay, header)).header == header
        else:
            with pytest.raises(Rejected, match="does not belong"):
                await admission.validate(relay, header, confirm=False)


async def test_a_session_on_which_the_nodes_do_not_agree_is_queried_again():
    known = Known(blocks=2)
    header = known.header(3)
    context = await known.contexts.of(header)
    chain = known.contexts._chain
    ask_every_node = chain.ask_every_node

    async def two_answers(method, request, height=0):
        return await ask_every_node(method, request) | {"another": NodeAnswer(error=NotFound("no such session"))}

    async def dropped(method, request, raw):
        assert raw is None

    chain.ask_every_node, chain.adopt = two_answers, dropped
    with pytest.raises(Rejected):
        await known.contexts.corrected(header, context)
    chain.ask_every_node = ask_every_node
    assert "GetSession" in await known.queries(header)


@pytest.mark.parametrize("generation", [0, 1])
async def test_while_no_node_answers_a_known_session_is_served_whatever_relays_come(generation):
    known = Known(blocks=2)
    header = known.header(3)
    context = await known.contexts.of(header)

    async def away(_):
        raise ChainUnavailable("no node answers")

    known.contexts._chain._gate = away
    for known.now in (1.0, 100.0, 1000.0):
        known.generation += generation
        assert (await known.contexts.of(header)).ring == context.ring
        with pytest.raises(Rejected) as rejected:
            await known.contexts.corrected(header, context, "2001:db8::1")
        assert rejected.value.reason is RejectionReason.CHAIN_UNAVAILABLE
        assert (await known.contexts.of(header)).session == context.session


async def test_a_ring_that_a_node_denies_is_not_served_from_memory():
    known = Known(blocks=2)
    header = known.header(3)
    await known.contexts.of(header)

    async def denied(name):
        if name == "Application":
            raise NotFound("no such application")

    known.contexts._chain._gate, known.now = denied, 31.0
    for _ in range(2):
        assert await known.refused(header) is RejectionReason.CHAIN_UNAVAILABLE


async def test_relays_that_nodes_must_confirm_delay_no_other_session_and_are_limited_by_address():
    known = Known(blocks=2)
    header = known.header(3)
    context = await known.contexts.of(header)
    answered = asyncio.Event()

    async def hang(method, request, height=0):
        await answered.wait()
        return {}

    known.contexts._chain.ask_every_node = hang

    async def forged(number, sender):
        other = replace(header, application_address=address(f"app {number}"))
        try:
            await known.contexts.corrected(other, context, sender)
        except Rejected as rejected:
            return rejected.reason
        return None

    waiting = [asyncio.ensure_future(forged(number, "192.0.2.1")) for number in range(100)]
    for _ in range(100):
        await asyncio.sleep(0)
    refused = [task.result() for task in waiting if task.done()]
    assert refused == [RejectionReason.OVERLOADED] * 36, "64 wait, at most"
    known.contexts._sessions.clear()
    assert await known.refused(header) is None, "another session is read at once"
    answered.set()
    await asyncio.gather(*waiting)
    assert await forged(200, "192.0.2.1") is RejectionReason.OVERLOADED
    assert await forged(201, "192.0.2.2") is RejectionReason.CHAIN_UNAVAILABLE


async def test_the_next_session_is_served_as_soon_as_a_node_has_its_first_block_and_none_beyond():
    known = Known(blocks=9)
    assert known.height == 10, "the last block of a session"
    assert await known.refused(known.header(10)) is None
    known.to(11)
    following, later = known.header(11), replace(known.header(11), session_start_block_height=21)
    known.height = 10  # as this relayer knows it
    assert await known.refused(following) is None
    assert await known.refused(replace(later, session_end_block_height=30)) is RejectionReason.CHAIN_UNAVAILABLE


async def test_the_grid_is_queried_in_each_session_since_its_length_may_change():
    known = Known()
    for start in (1, 11, 21):
        known.to(start)
        # The params at the height, for the grid, and those at the session's start.
        assert (await known.queries(known.header(start))).count("ParamsAtHeight") == 2
        known.to(start + 5)
        assert await known.queries(known.header(start)) == []


async def test_only_the_sessions_of_the_chain_are_kept():
    known = Known(blocks=4)
    honest = known.header(5)
    known.height = 0  # without a block there is no grid that refuses what is invented
    for number in range(5):
        invented = replace(honest, session_start_block_height=2 + number)
        assert await known.refused(invented) is not None
    assert await known.refused(honest) is None
    assert set(known.contexts._sessions) == {session_context._key_of(honest)}


@pytest.mark.parametrize(("members", "cost"), [(1, 1.0), (2, 1.0), (3, 1.5), (40, 20.0)])
def test_a_large_ring_takes_turns_by_its_size(members, cost):
    assert verification_cost(members) == cost * QUANTUM


@pytest.mark.parametrize("members", [1, 3, 40])
async def test_a_request_waits_for_its_turn_with_the_cost_of_its_applications_ring(members):
    admission, turns = Admission(None, lambda: 1, lambda: 0.0), []

    class Turns:
        async def turn(self, *asked):
            turns.append(asked)
            raise Rejected(RejectionReason.OVERLOADED, "enough")

    async def of(header, client):
        return SimpleNamespace(ring=SimpleNamespace(size=members))

    admission._verifications, admission._contexts = Turns(), SimpleNamespace(of=of)
    with pytest.raises(Rejected):
        await admission.validate(RelayRequest(HEADER, b"", address("alice"), b"payload"), HEADER, "192.0.2.1")
    assert turns == [("192.0.2.1", verification_cost(members), HEADER.application_address)]


async def test_nodes_confirm_a_session_that_differs_and_are_not_asked_for_one_that_is_over_by_the_grid(monkeypatch):
    known, asked = Known(), []
    header = known.header(1)
    assert await known.refused(header) is None

    async def has_changed(self, asked_header, row, client):
        asked.append(asked_header.session_id)
        return False

    monkeypatch.setattr(SessionContexts, "_has_changed", has_changed)
    other = replace(header, session_id="cd" * 32)
    assert await known.refused(other) is RejectionReason.SESSION_MISMATCH
    assert asked == [other.session_id]
    known.height = 40
    monkeypatch.setattr(SessionContexts, "_grid_refuses", lambda self, given: True)
    assert await known.refused(header) is RejectionReason.SESSION_EXPIRED
    assert asked == [other.session_id], "the grid of sessions decides without them"
    monkeypatch.setattr(SessionContexts, "_grid_refuses", lambda self, given: False)
    assert await known.refused(header) is RejectionReason.SESSION_EXPIRED
    assert asked == [other.session_id, header.session_id]


@pytest.mark.parametrize("older", [True, False])
async def test_a_ring_is_waited_for_a_moment_only_while_an_older_one_is_known(monkeypatch, older):
    monkeypatch.setattr(session_context, "_RING_WAIT_SECONDS", 0.0)
    known, key = Known(), (address("app"), 10)
    fresh = SimpleNamespace(size=2)

    async def ring(self, given):
        for _ in range(5):
            await asyncio.sleep(0)
        return fresh

    monkeypatch.setattr(SessionContexts, "_ring", ring)
    if older:
        known.contexts._rings[key] = (-1.0, 0, "older")
    assert await known.contexts._current_ring(key) == ("older" if older else fresh)
    if older:
        assert known.contexts._known_ring(key) == "older", "for a while"
        known.now = 5.1
        assert known.contexts._known_ring(key) is None
