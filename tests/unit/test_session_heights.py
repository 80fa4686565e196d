"""Prices, difficulty, windows and members of a session are those of its start, whichever process queries them."""

import pytest

from background import running
from pocket.api.services import ServiceSpec
from pocket.chain.client import ChainClient
from pocket.chain.model import Account, Application, Difficulty, Session
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket.redis_store.budgets import ChargeResult
from pocket_miner.sessions.terms import ask_terms, ask_terms_of_every_node
from pocket_relayer.pipeline.metering import Meter
from pocket_relayer.pipeline.session_context import SessionContexts
from world import address, key

APPLICATION, SUPPLIER = address("app"), address("alice")
START, END, NOW = 101, 120, 125
HEADER = SessionHeader(APPLICATION, "eth", "session", START, END)
ELSEWHERE = 1000  # added to every number that is stated as of another height


class Chain:
    """A chain whose records were others at every height but the session's start."""

    def __init__(self):
        self.heights = {}

    def _at(self, what, height):
        self.heights.setdefault(what, set()).add(height)
        return 0 if height == START else ELSEWHERE

    async def shared_params(self, height=0):
        other = self._at("shared params", height)
        return SharedParams(
            num_blocks_per_session=20, compute_units_to_tokens_multiplier=3 + other, compute_unit_cost_granularity=1,
            claim_window_close_offset_blocks=40 + other,
        )  # fmt: skip

    async def compute_units_per_relay(self, service_id, height):
        return 7 + self._at("compute units", height)

    async def difficulty(self, service_id, height):
        return Difficulty(service_id, bytes([9 + (self._at("difficulty", height) > 0)]) * 32, 0)

    async def session(self, application_address, service_id, height):
        self._at("session", height)
        return Session(HEADER, 6, 20, 10**9, frozenset({SUPPLIER}))

    async def application(self, application_address):
        return Application(application_address, 10**6, ("eth",), (), {}, 0)

    async def account(self, account_address):
        return Account(account_address, 1, 0, key("app").public_key)

    async def num_suppliers_per_session(self):
        return 1

    decoded_by_node = ChainClient.decoded_by_node

    async def ask_every_node(self, method, request, height=0):
        fields = {field.name.lower(): value for field, value in request.ListFields()}
        stated = [value for name, value in fields.items() if name in ("height", "blockheight", "block_height")]
        self._at(method, stated[0] if stated else 0)
        return {}


class Charged:
    """Budgets that note the charge."""

    async def charge(self, charge):
        self.charge_made = charge
        return ChargeResult.CHARGED


@pytest.fixture
def chain():
    """Return a chain whose queries must all be as of the session's start."""
    made = Chain()
    yield made
    assert set().union(*made.heights.values()) == {START}


async def test_a_relay_is_charged_by_the_prices_at_its_sessions_start_and_until_after_its_claim_window(chain):
    budgets = Charged()
    service = ServiceSpec.model_validate({"id": "eth", "backends": {"jsonRpc": {"urls": ["http://b"]}}})
    await Meter(chain, budgets, None, lambda: NOW, block_seconds=60.0).charge(service, HEADER, SUPPLIER, b"request")
    charge = budgets.charge_made
    assert (charge.supplier, charge.session_id, charge.cost, charge.request_id) == (SUPPLIER, "session", 21, b"request")
    claim_close = Windows.after(END, SharedParams(claim_window_close_offset_blocks=40)).claim_close
    assert charge.keep_seconds > 60.0 * (claim_close - NOW), "else a budget and its replays begin again"
    assert charge.keep_seconds >= 6 * 3600, "also on a chain that halts for hours"
    assert charge.keep_seconds <= 24 * 3600, "else Redis keeps them for days"


async def test_a_relay_is_admitted_by_the_target_and_the_windows_at_its_sessions_start(chain):
    contexts = SessionContexts(chain, lambda: 0, lambda: 0.0)
    async with running(contexts.background) as ended:
        await contexts.of(HEADER)
        await ended()
        context = await contexts.of(HEADER)
    assert context.target_hash == bytes([9]) * 32
    assert context.windows == Windows.after(END, await chain.shared_params(START))
    assert context.session.header == HEADER


async def test_a_leaf_is_built_by_the_terms_at_its_sessions_start(chain):
    found = await ask_terms(chain, SUPPLIER, HEADER)
    assert (found.terms.compute_units_per_relay, found.terms.target_hash) == (7, bytes([9]) * 32)
    assert found.params == await chain.shared_params(START)


@pytest.mark.parametrize(
    ("height", "start", "number"), [(1, 1, 1), (10, 1, 1), (11, 11, 2), (103, 101, 11), (104, 104, 70), (114, 114, 71)]
)
def test_sessions_before_the_block_from_which_they_have_another_grid_are_those_of_the_first_one(height, start, number):
    params = SharedParams(num_blocks_per_session=10, session_grid_anchor_height=104, session_number_at_anchor=70)
    assert (params.session_start(height), params.session_number(height)) == (start, number)
    assert params.session_end(height) == start + 9


async def test_every_node_is_queried_for_the_terms_at_the_sessions_start(chain):
    await ask_terms_of_every_node(chain, SUPPLIER, HEADER)
    assert len(chain.heights) == 4
