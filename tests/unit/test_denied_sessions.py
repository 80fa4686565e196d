"""What a relayer makes of sessions that the grid of heights rules out or that nodes deny, and whom that limits."""

import asyncio

import pytest

from pocket.chain.model import Difficulty, Session
from pocket.errors import ChainQueryRejected, NotFound
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.session_context import SessionContexts, _grid_rejection
from world import address

GRID = SharedParams()
ANCHORED = SharedParams(session_grid_anchor_height=101)
MISMATCH, EXPIRED = RejectionReason.SESSION_MISMATCH, RejectionReason.SESSION_EXPIRED
UNAVAILABLE, OVERLOADED = RejectionReason.CHAIN_UNAVAILABLE, RejectionReason.OVERLOADED


def header(start=11, end=20, app="app"):
    return SessionHeader(address(app), "eth", "s", start, end)


@pytest.mark.parametrize(
    ("start", "end", "grid", "height", "reason"),
    [
        (11, 20, GRID, 15, None), (11, 20, GRID, 21, None), (11, 20, GRID, 22, EXPIRED), (12, 20, GRID, 15, MISMATCH),
        (11, 21, GRID, 15, MISMATCH), (1, 10, GRID, 5, None), (1, 11, GRID, 5, MISMATCH), (0, 11, GRID, 5, None),
        (31, 99, GRID, 25, None), (91, 200, ANCHORED, 95, None), (101, 200, ANCHORED, 105, MISMATCH),
        (101, 110, ANCHORED, 105, None),
    ],
)  # fmt: skip
def test_the_grid_rules_out_what_it_describes_and_nothing_before_it_or_of_the_next_session(
    start, end, grid, height, reason
):
    found = _grid_rejection(header(start, end), grid, 31, height)
    assert (None if found is None else found.reason) is reason


class Nodes:
    """Nodes that deny what the test says, or have the session that is asked for."""

    def __init__(self):
        self.error, self.asked, self.height = None, [], 15
        self.contexts = SessionContexts(self, lambda: self.height, lambda: 0.0)

    async def session(self, application, service, height):
        self.asked.append((application, height))
        if self.error is not None:
            raise self.error
        return Session(SessionHeader(application, service, "s", 11, 20), 2, 10, 10**9, frozenset())

    async def shared_params(self, height=0):
        return GRID

    async def difficulty(self, service, height):
        return Difficulty(service, BASE_TARGET, 0)

    async def application(self, address):
        raise NotFound("no ring is needed here")

    async def ask_every_node(self, method, request, height=0):
        return {}

    def outcome(self, of=None, client=""):
        try:
            asyncio.run(self.contexts.of(of or header(), client))
        except Rejected as rejected:
            return rejected.reason
        return None


@pytest.mark.parametrize("kind", [NotFound, ChainQueryRejected])
def test_a_denial_is_final_for_a_block_once_two_nodes_or_two_blocks_state_it(kind):
    nodes = Nodes()
    nodes.error = kind("no", nodes=("one",))
    assert [nodes.outcome(), nodes.outcome(), len(nodes.asked)] == [UNAVAILABLE, UNAVAILABLE, 1]
    nodes.height = 16
    assert [nodes.outcome(), nodes.outcome(), len(nodes.asked)] == [MISMATCH, MISMATCH, 2]
    several = Nodes()
    several.error = kind("no", nodes=("one", "two"))
    assert [several.outcome(), several.outcome(), len(several.asked)] == [MISMATCH, MISMATCH, 1]


def test_a_denial_is_none_while_a_healthy_node_has_not_answered():
    nodes = Nodes()
    nodes.error = NotFound("no", nodes=("one", "two"), unanswered=("three",))
    assert [nodes.outcome(), nodes.outcome(), len(nodes.asked)] == [UNAVAILABLE, UNAVAILABLE, 2]


def test_an_address_that_asks_in_vain_is_limited_but_for_applications_whose_sessions_exist():
    nodes = Nodes()
    nodes.outcome(header(app="served"), "192.0.2.1")
    nodes.error = NotFound("no", nodes=("one", "two"))
    found = [nodes.outcome(header(app=f"app {number}"), "192.0.2.1") for number in range(70)]
    assert found == [MISMATCH] * 64 + [OVERLOADED] * 6
    assert len(nodes.asked) == 65, "no node is asked beyond the limit"
    assert nodes.outcome(header(app="another"), "192.0.2.2") is MISMATCH
    nodes.contexts._sessions.clear()
    nodes.error = None
    assert nodes.outcome(header(app="served"), "192.0.2.1") is not OVERLOADED
