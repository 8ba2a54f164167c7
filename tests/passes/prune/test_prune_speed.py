"""Time as a goal: what the clock predicts of narrower nets, which widths pay, and how a measured goal is reached."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.ir.model import Model
from zc.measure.profile import Kernel
from zc.measure.timings import Timings
from zc.passes.prune.apply import remove
from zc.passes.prune.groups import Groups
from zc.passes.prune.prune import Prune, analyse
from zc.passes.prune.ranking import Ranking
from zc.passes.prune.select import Limits, kept
from zc.passes.prune.speed.clock import PROFILED, Clock
from zc.passes.prune.speed.goal import reach
from zc.passes.prune.speed.latency import read_latency
from zc.passes.prune.speed.search import fastest_for_its_loss
from zc.passes.prune.speed.sizes import Sizes
from zc.passes.prune.speed.widths import what_pays
from zc.pipeline.base import Context, PassResult

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
NET = (
    HEAD
    + """
g (float[N,3,16,16] x) => (float[N,5] y)
<float[64,3,3,3] w0, float[64] b0, float[64,64,3,3] w1, float[64] b1, float[64,64,3,3] w2, float[64,1,3,3] w4,
 float[32,64,1,1] w5, float[5,96] w6, float[5] b6>
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    t = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (t, w1, b1)
    d = Relu (c)
    e = Conv <pads = [1, 1, 1, 1]> (d, w2)
    f = Add (e, t)
    i = Conv <group = 64, pads = [1, 1, 1, 1]> (f, w4)
    j = Conv (f, w5)
    k = Concat <axis = 1> (i, j)
    l = GlobalAveragePool (k)
    m = Flatten (l)
    y = Gemm <transB = 1> (m, w6, b6)
}"""
)
HEADS = (
    HEAD
    + """
g (float[2,8,32] x) => (float[2,8,4] y)
<float[32,64] wq, float[32,64] wk, float[64,4] wo, int64[4] s = {0, 8, 4, 16}, int64[3] r = {0, 8, -1}>
{
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    q4 = Reshape (q, s)
    k4 = Reshape (k, s)
    h = Add (q4, k4)
    t = Transpose <perm = [0, 2, 1, 3]> (h)
    u = Softmax (t)
    v = Transpose <perm = [0, 2, 1, 3]> (u)
    w = Reshape (v, r)
    y = MatMul (w, wo)
}"""
)


def ready(model: Model) -> Groups:
    return analyse(model.copy())


def clock(groups: Groups, timings: Timings | None = None) -> Clock:
    assert TARGET.costs is not None
    return Clock(groups, TARGET.costs, None, timings or Timings())


@pytest.mark.parametrize("text", [NET, HEADS], ids=["convolutions", "heads"])
def test_sizes_are_those_of_the_cut_model(graph: Callable, text: str) -> None:
    model = graph(text)
    groups = ready(model)
    sizes = Sizes(groups, None)
    lost = [len(np.unique(g.rows)) * max(g.size // len(np.unique(g.rows)) // 4, 1) for g in groups.groups]
    gone = np.concatenate(
        [
            np.concatenate([g.atoms[g.rows == row][: n // len(np.unique(g.rows))] for row in np.unique(g.rows)])
            for g, n in zip(groups.groups, lost, strict=True)
        ]
    )
    sizes.left = np.array([1 - n / g.size for g, n in zip(groups.groups, lost, strict=True)])
    cut = model.copy()
    remove(cut, analyse(cut), np.sort(gone))
    for node in cut.graph.nodes:
        for tensor in (*node.inputs, *node.outputs):
            shape = tuple(1 if d == "N" else d for d in tensor.shape)
            if tensor.name not in ("s", "r"):
                assert sizes[tensor.name] == shape, tensor.name


def test_what_a_group_saves_alone_is_what_the_whole_saves(graph: Callable) -> None:
    groups = ready(graph(NET))
    one = clock(groups)
    whole = one.total()
    for number in range(len(groups.groups)):
        for share in (0.25, 0.5, 0.9):
            saved = one.part(number) - one.part(number, share)
            left = np.ones(len(groups.groups))
            left[number] = share
            other = clock(groups)
            other.at(left)
            assert whole - other.total() == pytest.approx(saved, abs=1e-6)


def test_widths_that_fill_the_blocks_of_the_kernels_pay(graph: Callable) -> None:
    groups = ready(graph(NET))
    found = what_pays(groups.groups, clock(groups))
    inner = found[int(next(g for g in groups.groups if g.name == "c").atoms[0])]
    assert all(inner[width] < 0.5 for width in (16, 32, 48, 64))
    assert all(inner[width] > 0.8 for width in (36, 44, 60))
    assert inner[63] > 2  # no longer in blocks: slower than all 64


def test_by_default_what_is_left_fills_blocks(graph: Callable) -> None:
    model = graph(NET)
    Prune(ratio=0.3).run(model, Context(TARGET))
    widths = [int(c.shape[0]) for c in model.constants() if len(c.shape) == 4]
    assert widths[:4] == [48, 48, 48, 48]
    model = graph(NET)
    Prune(ratio=0.3, round_to=1).run(model, Context(TARGET))
    assert [int(c.shape[0]) for c in model.constants() if len(c.shape) == 4] == [45, 45, 45, 45, 23]


def test_a_goal_between_the_blocks_is_reached_all_the_same(graph: Callable) -> None:
    model = graph(NET)
    result = Prune(macs=0.87).run(model, Context(TARGET))
    assert float(result.stats["macs_ratio"]) == pytest.approx(0.87, rel=0.021)


def test_no_width_that_pays_is_near_enough(graph: Callable) -> None:
    group = next(g for g in ready(graph(NET)).groups if g.name == "c")
    limits = Limits(0.5, 1, 1, {int(group.atoms[0]): {8: 0.0, 30: 0.2, 64: 0.0}})
    assert kept(group, 1, limits) == 30


def test_the_clock_shows_what_was_measured(graph: Callable) -> None:
    groups = ready(graph(NET))
    one = clock(groups)
    kernels = [kernel("a", 50.0), kernel("d_nchwc", 200.0), kernel("f_nchwc", 180.0), kernel("Concat", 20.0, "Concat")]
    one.learn([*kernels, kernel("y", 9.0, "Gemm"), kernel("ReorderOutput", 11.0, "ReorderOutput")])
    assert one.total() == pytest.approx(50 + 200 + 180 + 20 + 9 + 11 - 6 * PROFILED, rel=1e-3)
    again = clock(groups, Timings(one.timings.times))
    again.recall(one.others)
    assert again.total() == one.total()


def kernel(name: str, us: float, op: str = "Conv") -> Kernel:
    return Kernel(name, op, "", {}, (), (), us)


def test_groups_that_cost_little_and_save_much_go_first(graph: Callable) -> None:
    groups = ready(graph(NET))
    cheap = next(i for i, g in enumerate(groups.groups) if g.name == "c")

    def ranked(number: int) -> Ranking:
        atoms = groups.groups[number].atoms
        scale = 0.01 if number == cheap else 1.0
        return Ranking(atoms[:, None], scale * (np.arange(len(atoms) + 1) / len(atoms)) ** 2)

    rankings = [ranked(i) for i in range(len(groups.groups))]
    one = clock(groups)
    goal = 0.75 * one.total()
    lost = fastest_for_its_loss(groups.groups, rankings, Limits(0, 1, 1), one, goal)
    assert one.total() == pytest.approx(goal, rel=0.05)
    assert lost[cheap] > 0
    assert lost[[i for i in range(len(lost)) if i != cheap]].sum() == 0


class FakeWatch:
    """A machine on which a cut takes more than the clock shows."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def ratio(self, cut: float) -> float:
        return 0.2 + 0.8 * cut

    def teach(self, clock: object, cut: object) -> None:
        pass


@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_a_clock_that_is_wrong_is_corrected_by_what_was_measured(graph: Callable, share: float) -> None:
    groups = ready(graph(NET))
    one = clock(groups)
    steps = np.array([g.size for g in groups.groups])
    rankings = [Ranking(g.atoms[:, None], np.linspace(0, 1, g.size + 1)) for g in groups.groups]
    one.at(np.ones(len(steps)))
    whole = one.total()

    def plan(goal: float) -> np.ndarray:
        return fastest_for_its_loss(groups.groups, rankings, Limits(0, 1, 1), one, goal)

    def shown(lost: np.ndarray) -> float:
        one.at(1 - lost / steps)
        return one.total() / whole

    found = reach(share, one, FakeWatch(graph(NET)), plan, steps, shown)  # type: ignore[arg-type]
    assert found.ratio == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("given", [0, -1, 1.5, "5", "fast", "5s", "0ms", "1.2.3", ""])
def test_latencies_that_cannot_be_meant(given: float | str) -> None:
    with pytest.raises(ZcError, match="must be a share of the original's time"):
        Prune(latency=given)


def test_latencies_are_shares_or_milliseconds() -> None:
    assert str(read_latency(0.6)) == "latency=0.6"
    assert str(read_latency("2.5ms")) == "latency=2.5ms"


def prune(model: Model, **options: object) -> PassResult:
    return Prune(**options).run(model, Context(TARGET))  # type: ignore[arg-type]


def test_from_the_same_timings_the_same_file_follows(graph: Callable, tmp_path: Path) -> None:
    file = str(tmp_path / "times.json")
    first, second = graph(NET), graph(NET)
    result = prune(first, latency=0.6, timings=file, best_effort=True)
    assert result.changed
    assert float(result.stats["latency_ms_after"]) < float(result.stats["latency_ms_before"])
    held = Path(file).read_text()
    prune(second, latency=0.6, timings=file, best_effort=True)
    assert Path(file).read_text() == held
    assert first.weights_digest() == second.weights_digest()


def test_a_latency_out_of_reach_says_how_far_it_gets(graph: Callable) -> None:
    model = graph(NET)
    before = model.weights_digest()
    with pytest.raises(ZcError, match=r"latency=0.01: it gets to 0\.\d+ of the original's .* ms.*best_effort"):
        prune(model, latency=0.01, skip=("c", "e"))
    assert model.weights_digest() == before


def test_a_target_without_kernel_times_has_no_latency(graph: Callable) -> None:
    from zc.target import Target

    with pytest.raises(ZcError, match="target test has no table of kernel times; state macs or params"):
        Prune(latency=0.5).run(graph(NET), Context(Target("test")))


def test_times_of_another_machine_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    times = Timings()
    times.put("Conv 1x3", 12.34567)
    times.save(str(file))
    assert Timings.load(str(file)).get("Conv 1x3") == 12.35
    held = json.loads(file.read_text())
    file.write_text(json.dumps({**held, "measured_on": "another processor"}))
    with pytest.raises(ZcError, match="measured on another processor"):
        Timings.load(str(file))
    file.write_text("[]")
    with pytest.raises(ZcError, match="not a file of measured times"):
        Timings.load(str(file))


def test_times_by_the_table_stand_in_the_result_and_a_slower_one_is_said(graph: Callable) -> None:
    result = prune(graph(NET), ratio=0.3)
    assert 0 < float(result.stats["table_ms_after"]) < float(result.stats["table_ms_before"])
    result = prune(graph(NET), ratio=0.02, round_to=1)
    assert float(result.stats["table_ms_after"]) > float(result.stats["table_ms_before"])
    assert any(n.kind == "warning" and "round_to=auto takes those that pay" in n.what for n in result.notes)
