"""Which namespaces may not be deleted yet."""

from hypothesis import given
from hypothesis import strategies as st

from pocket_operator.controller.namespace_guard import protected_namespaces, with_own
from pocket_operator.resources import names


def subject(namespace, uid, *finalizers):
    return {"metadata": {"namespace": namespace, "name": uid, "uid": uid, "finalizers": list(finalizers)}}


def test_each_namespace_lists_what_is_protected_there():
    found = protected_namespaces(
        {
            "RelayMiner": [subject("a", "1", names.FINALIZER), subject("b", "2", "somebody/else")],
            "Supplier": [
                subject("a", "3", names.FINALIZER),
                subject("a", "4", "x", names.FINALIZER),
                subject("c", "5"),
            ],
        }
    )
    assert found == {"a": "1 RelayMiner and 2 Suppliers"}


def test_the_operators_own_namespace_is_protected_while_any_other_is():
    assert with_own({}, "own") == {}
    assert with_own({"a": "1 Supplier"}, "own") == {"a": "1 Supplier", "own": "the operator of a"}
    assert with_own({"own": "1 Supplier"}, "own") == {"own": "1 Supplier"}


SUBJECTS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=8)


@given(SUBJECTS)
def test_a_namespace_is_free_exactly_when_nothing_in_it_is_held_or_all_of_it_was_let_go(rows):
    made = [subject(space, str(at), *([names.FINALIZER] * kept)) for at, (space, kept, _) in enumerate(rows)]
    gone = frozenset(str(at) for at, (_, _, released) in enumerate(rows) if released)
    expected = {space for space, kept, released in rows if kept and not released}
    assert set(protected_namespaces({"Supplier": made}, gone)) == expected
