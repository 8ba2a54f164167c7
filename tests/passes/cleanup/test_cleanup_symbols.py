from hypothesis import given
from hypothesis import strategies as st

from zc.passes.cleanup import symbols
from zc.passes.cleanup.symbols import Poly, symbol

N, S = symbol("N"), symbol("S")

sizes = st.recursive(
    st.one_of(st.integers(-3, 9), st.sampled_from([N, S])),
    lambda inner: st.tuples(st.sampled_from(["add", "sub", "mul", "div", "mod", "smaller", "larger"]), inner, inner),
    max_leaves=6,
)


def build(tree):
    if isinstance(tree, tuple):
        return getattr(symbols, tree[0])(build(tree[1]), build(tree[2]))
    return tree


def value(tree, n, s):
    """The number that the expression has when N = n and S = s, by ONNX's rules; None where it has none."""
    if isinstance(tree, Poly):
        return n if tree == N else s
    if not isinstance(tree, tuple):
        return tree
    a, b = value(tree[1], n, s), value(tree[2], n, s)
    if a is None or b is None or (tree[0] in ("div", "mod") and b == 0):
        return None
    if tree[0] == "div":
        return int(a / b)
    return {"add": a + b, "sub": a - b, "mul": a * b, "mod": a % (b or 1), "smaller": min(a, b), "larger": max(a, b)}[
        tree[0]
    ]


@given(sizes, sizes, st.integers(1, 6), st.integers(1, 6))
def test_what_compares_equal_is_equal_for_all_sizes(left, right, n, s):
    a, b = build(left), build(right)
    x, y = value(left, n, s), value(right, n, s)
    if x is None or y is None:
        return
    for got, want in ((a, x), (b, y)):
        if isinstance(got, int):
            assert got == want
    verdict = symbols.equal(a, b)
    if verdict is not None:
        assert verdict == (x == y)


def test_the_same_size_in_two_forms_has_one_form():
    assert symbols.mul(symbols.add(N, 1), 4) == symbols.add(symbols.mul(4, N), 4)
    assert symbols.div(symbols.mul(N, symbols.mul(S, 8)), symbols.mul(S, 4)) == symbols.mul(N, 2)
    assert symbols.mod(symbols.mul(N, 6), 3) == 0


def test_a_rest_is_not_divided_away():
    half = symbols.div(N, 2)
    assert isinstance(half, Poly)
    assert symbols.mul(half, 2) != N
    assert half == symbols.div(N, 2)


def test_sizes_are_known_to_differ_only_where_the_signs_say_so():
    assert symbols.equal(symbols.add(N, 1), 0) is False
    assert symbols.equal(N, -1) is False
    assert symbols.equal(N, 1) is None
    assert symbols.equal(N, S) is None


def test_nested_expressions_do_not_grow_without_end():
    one = N
    for _ in range(20):
        one = symbols.smaller(symbols.mul(one, S), symbols.add(one, symbols.symbol("K")))
    assert one is None
