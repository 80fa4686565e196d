"""Values that decide over stake are confirmed by a second answer that no other one outweighs."""

from pocket.chain.votes import Votes


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
