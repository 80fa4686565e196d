from hypothesis import given
from hypothesis import strategies as st

import slow_curve as slow
from pocket.protocol.crypto import curve

EDGES = [0, 1, 2, slow.N - 1, slow.N, slow.N + 1, slow.N + 5, 2**256 - 1, curve.P - slow.N]
SCALARS = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**256 - 1))
NONZERO = st.integers(1, slow.N - 1)


def both(k):
    return curve.multiply_base(k), slow.multiply(k, slow.G)


@given(SCALARS)
def test_base_multiplication_equals_the_slow_implementation(k):
    fast, reference = both(k)
    assert curve.encode_point(fast) == slow.encode(reference)


@given(SCALARS, NONZERO)
def test_point_multiplication_equals_the_slow_implementation(k, base):
    fast, reference = both(base)
    assert curve.encode_point(curve.multiply(k, fast)) == slow.encode(slow.multiply(k, reference))


@given(NONZERO, NONZERO)
def test_addition_equals_the_slow_implementation(a, b):
    (fast_a, slow_a), (fast_b, slow_b) = both(a), both(b)
    assert curve.encode_point(curve.add(fast_a, fast_b)) == slow.encode(slow.add(slow_a, slow_b))


@given(SCALARS, SCALARS, NONZERO)
def test_the_recovery_shortcut_equals_two_multiplications(s, c, base):
    fast, reference = both(base)
    expected = slow.add(slow.multiply(s, slow.G), slow.multiply(c, reference))
    assert curve.encode_point(curve.multiply_base_and_point(s, c, fast)) == slow.encode(expected)


def test_opposite_points_add_up_to_infinity():
    point = curve.multiply_base(7)
    assert curve.add(point, curve.multiply_base(slow.N - 7)) is None
    assert curve.multiply_base_and_point(slow.N - 7, 1, point) is None
    assert curve.encode_point(None) == curve.INFINITY_ENCODING
    assert curve.add(None, point) == point == curve.add(point, None)
    assert curve.multiply(3, None) is None


@given(st.binary(min_size=0, max_size=40))
def test_decoding_accepts_exactly_what_the_slow_implementation_accepts(data):
    try:
        accepted = curve.decode_point(data).encoded
    except curve.InvalidPoint:
        accepted = None
    reference = slow.decode(data)
    assert accepted == (None if reference is None else slow.encode(reference))


def test_a_point_equals_only_itself_and_shows_no_internals():
    one, two = curve.multiply_base(1), curve.multiply_base(2)
    assert one == curve.decode_point(one.encoded)
    assert one != two
    assert len({one, two, curve.multiply_base(1)}) == 2
    assert repr(one) == f"Point({one.encoded.hex()})"
