"""Groups as a person reads them: members, sizes, costs."""

from collections.abc import Callable

from zc.measure.cost import count
from zc.passes.prune.expense import macs_of_atoms
from zc.passes.prune.prune import analyse

NET = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,4,4] x) => (float[N,2,4,4] y)
<float[8,3,3,3] w1, float[8] b1, float[8,8,1,1] w2, float[16,8,1,1] w3, float[2,16,1,1] w4>
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    b = Conv (a, w2)
    c = Add (a, b)
    d = Conv (c, w3)
    y = Conv (d, w4)
}"""


def test_a_group_names_its_weights_axes_and_parameters(graph: Callable) -> None:
    groups = analyse(graph(NET)).groups
    assert [str(g) for g in groups] == [
        "a: 8 atoms, 60 parameters each: w1[0], b1[0], w2[0], w2[1], w3[1]",
        "d: 16 atoms, 10 parameters each: w3[0], w4[1]",
    ]
    assert groups[0].made_by == ("a", "b")


def test_the_cost_of_an_atom_is_what_its_nodes_lose(graph: Callable) -> None:
    model = graph(NET)
    groups = analyse(model)
    trunk, inner = macs_of_atoms(groups, count(model))
    assert trunk == 16 * (27 + 8 + 8 + 16)
    assert inner == 16 * (8 + 2)


def test_heads_are_atoms_as_wide_as_a_head(graph: Callable) -> None:
    model = graph("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,5,6] x) => (float[N,5,6] y)
        <float[6,12] wq, float[6,12] wk, float[6,12] wv, float[12,6] wo,
         int64[4] heads = {0, 0, 3, 4}, int64[3] flat = {0, 0, 12}>
        {
            q = MatMul (x, wq)
            k = MatMul (x, wk)
            v = MatMul (x, wv)
            qh = Reshape (q, heads)
            kh = Reshape (k, heads)
            vh = Reshape (v, heads)
            qt = Transpose <perm = [0, 2, 1, 3]> (qh)
            kt = Transpose <perm = [0, 2, 3, 1]> (kh)
            vt = Transpose <perm = [0, 2, 1, 3]> (vh)
            s = MatMul (qt, kt)
            p = Softmax (s)
            o = MatMul (p, vt)
            ot = Transpose <perm = [0, 2, 1, 3]> (o)
            f = Reshape (ot, flat)
            y = MatMul (f, wo)
        }""")
    (group,) = analyse(model).groups
    assert (group.size, group.width) == (3, 4)
    assert [(m.weight, m.axes) for m in group.members] == [("wq", (1,)), ("wk", (1,)), ("wv", (1,)), ("wo", (0,))]


def test_channels_that_lie_in_different_places_are_different_groups(graph: Callable) -> None:
    model = graph(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,4,4] x) => (float[N,2,4,4] y) <float[8,3,1,1] w1, float[2,3,1,1] w2, float[2,5,1,1] w3>
        {
            a = Conv (x, w1)
            l, r = Split <axis = 1> (a, sizes)
            u = Conv (l, w2)
            v = Conv (r, w3)
            y = Add (u, v)
        }""".replace("w3>", "w3, int64[2] sizes = {3, 5}>")
    )
    assert sorted(g.size for g in analyse(model).groups) == [3, 5]
