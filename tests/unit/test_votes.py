"""Values that decide over stake are confirmed by a second answer that no other one outweighs."""

from dataclasses import replace

from pocket.chain.votes import Votes
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.start_params import StartParams
from pocket_miner.sessions.tracked_session import TrackedSession


def test_two_nodes_or_one_node_at_two_blocks_confirm_a_value():
    one = Votes()
    assert one.best() is None
    one.add(7, {"a": "x"})
    assert one.best() == ("x", False)
    one.add(8, {"a": "x"})
    assert one.best() == ("x", True)
    two = Votes()
    two.add(7, {"a": "x", "b": "x"})
    assert two.best() == ("x", True)


def test_a_value_that_another_node_contradicts_is_not_confirmed_however_often_it_comes():
    votes = Votes()
    for height in range(7, 12):
        votes.add(height, {"a": "x", "b": "y"})
        assert votes.best()[1] is False
    votes.add(12, {"b": "y"})
    assert votes.best() == ("y", True)


def test_answers_of_long_ago_give_way_to_those_of_today():
    votes = Votes()
    for height in range(300):
        votes.add(height, {"a": "x" if height < 100 else "y"})
    assert votes.best() == ("y", True)
    assert len(votes.answers) < 100


async def test_a_cached_answer_that_a_node_contradicts_is_dropped_and_one_that_all_repeat_is_kept():
    class Nodes:
        def __init__(self, stated):
            self.stated, self.dropped = stated, []

        async def decoded_by_node(self, *_):
            return {"node": self.stated}

        async def adopt(self, method, request, raw):
            self.dropped.append((method.rsplit("/", 1)[-1], request.height, raw))

    known = SharedParams()
    for stated, dropped in ((known, []), (replace(known, num_blocks_per_session=7), [("ParamsAtHeight", 11, None)])):
        nodes = Nodes(stated)
        session = TrackedSession(SessionHeader("app", "eth", "session", 11, 20), params=known)
        await StartParams(nodes).confirm(session, 21)
        assert nodes.dropped == dropped


async def test_params_on_which_two_nodes_agree_replace_the_first_answer_and_others_do_not():
    class Nodes:
        def __init__(self, *stated):
            self.stated = stated

        async def decoded_by_node(self, *_):
            return dict(enumerate(self.stated))

        async def adopt(self, *_):
            pass

    first, right, third = (replace(SharedParams(), num_blocks_per_session=n) for n in (7, 10, 11))
    for stated, expected in (
        ((right, right), (right, True)), ((right, third), (first, False)), ((first, third), (first, False)),
        ((first, first, third), (first, True)), ((right,), (first, False)), ((), (first, False)),
    ):  # fmt: skip
        session = TrackedSession(SessionHeader("app", "eth", "session", 11, 20), params=first)
        await StartParams(Nodes(*stated)).confirm(session, 21)
        assert (session.params, session.params_confirmed) == expected, stated


async def test_the_windows_of_a_session_that_is_not_sealed_are_never_those_of_the_present():
    class Silent:
        async def decoded_by_node(self, *_):
            return {}

        async def shared_params(self):
            return SharedParams()

    sealed = SessionSeal("session", bytes(48), bytes(32), 21, 1)
    for seal, params in ((None, None), (sealed, SharedParams())):
        session = TrackedSession(SessionHeader("app", "eth", "session", 11, 20), seal=seal)
        await StartParams(Silent()).confirm(session, 21)
        assert (session.params, session.params_confirmed) == (params, False)


def test_one_wrong_node_of_three_changes_nothing():
    votes = Votes()
    votes.add(0, {"first": "wrong"})
    votes.add(7, {"a": "wrong", "b": "right", "c": "right"})
    assert votes.best()[1] is False
    votes.add(8, {"a": "wrong", "b": "right", "c": "right"})
    assert votes.best() == ("right", True)


def test_an_empty_answer_is_asked_for_again_at_once_and_answers_are_bounded():
    votes = Votes()
    votes.add(7, {})
    assert votes.asked_at == -1
    for height in range(1000):
        votes.add(height, {"a": "x", "b": "y"})
    assert len(votes.answers) == 64
