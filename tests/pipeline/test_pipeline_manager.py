import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest

from zc.data import synthesize
from zc.errors import CheckFailed, ZcError
from zc.execute import reason
from zc.ir.edit import Names
from zc.ir.graph import Node
from zc.ir.model import Model, from_text, load
from zc.pipeline.base import Context, Note, Pass, PassResult
from zc.pipeline.manager import PassFailed, PassRun, run_pipeline
from zc.pipeline.registry import register
from zc.pipeline.spec import Pipeline
from zc.target import Target

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y) <float[4] b = {1.0, 2.0, 3.0, 4.0}> {
    h = Add (x, b)
    y = Relu (h)
}"""


@register
@dataclass(frozen=True)
class Scale(Pass):
    """Multiplies the bias: the outputs move."""

    name: ClassVar[str] = "test-scale"
    by: float = 2.0

    def run(self, model: Model, ctx: Context) -> PassResult:
        bias = model.constants()[0]
        bias.values = (bias.values * self.by).astype(np.float32)
        return PassResult(changed=True, stats={"by": self.by}, notes=[Note("declined", "y", "is no weight")])


@register
@dataclass(frozen=True)
class Liar(Scale):
    """Says that it is exact, and is not."""

    name: ClassVar[str] = "test-liar"
    exact: ClassVar[bool] = True


@register
@dataclass(frozen=True)
class Crash(Pass):
    name: ClassVar[str] = "test-crash"
    requires: ClassVar[tuple[str, ...]] = ("test-scale",)
    at: int = 0

    def run(self, model: Model, ctx: Context) -> PassResult:
        raise IndexError("list index out of range")


@register
@dataclass(frozen=True)
class Refuse(Pass):
    name: ClassVar[str] = "test-refuse"

    def run(self, model: Model, ctx: Context) -> PassResult:
        raise ZcError("weight 'b' is not to my taste")


@register
@dataclass(frozen=True)
class Break(Pass):
    """Leaves a graph that is wrong in one of several ways."""

    name: ClassVar[str] = "test-break"
    how: str = "dangling"

    def run(self, model: Model, ctx: Context) -> PassResult:
        names = Names(model.graph)
        if self.how == "dangling":
            model.graph.nodes[1].inputs[0] = names.variable("nowhere")
        elif self.how == "unsorted":
            model.graph.nodes.reverse()
        elif self.how == "renamed":
            model.graph.outputs[0].name = "z"
        elif self.how == "unknown":
            model.graph.nodes[1].op = "Relo"
        return PassResult(changed=True)


@register
@dataclass(frozen=True)
class Plain(Pass):
    """Adds a node with plain onnx-graphsurgeon."""

    name: ClassVar[str] = "test-plain"
    exact: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        import onnx_graphsurgeon as gs

        relu = model.graph.nodes[1]
        middle = gs.Variable("middle", np.float32)
        model.graph.nodes.append(gs.Node("Identity", "id", {}, [relu.inputs[0]], [middle]))
        relu.inputs[0] = middle
        model.graph.toposort()
        return PassResult(changed=True)


def context() -> Context:
    return Context(Target("test"))


def test_a_lossy_pass_is_measured() -> None:
    report = run_pipeline(from_text(TEXT), "test-scale", context())
    (run,) = report.passes
    assert run.movement is not None
    assert run.movement.relative > 0.1
    assert report.total == run.movement
    assert (run.changed, run.stats, run.notes[0].what) == (True, {"by": 2.0}, "is no weight")


def test_an_exact_pass_that_moves_the_outputs_is_caught() -> None:
    with pytest.raises(CheckFailed, match=r"test-liar: output 'y' moved by .* the pass promises 1e-05"):
        run_pipeline(from_text(TEXT), "test-liar", context())


def test_an_exact_pass_that_keeps_them_is_not() -> None:
    report = run_pipeline(from_text(TEXT), "test-liar:by=1", context())
    assert report.passes[0].movement is not None
    assert report.passes[0].movement.relative == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("dangling", "nowhere"),
        ("unsorted", "h"),
        ("renamed", r"outputs were \['y'\] and are \['z'\]"),
        ("unknown", "Relo"),
    ],
)
def test_a_broken_graph_is_caught_and_the_pass_named(how: str, message: str) -> None:
    with pytest.raises(CheckFailed, match=rf"test-break: .*{message}"):
        run_pipeline(from_text(TEXT), f"test-break:how={how}", context(), verify="structure")


def test_plain_graphsurgeon_passes_work() -> None:
    model = from_text(TEXT)
    run_pipeline(model, "test-plain", context())
    assert all(type(n) is Node for n in model.graph.nodes)
    assert [n.op for n in model.graph.nodes] == ["Add", "Identity", "Relu"]


def test_a_crash_leaves_a_reproducer_with_its_command(tmp_path: Path) -> None:
    model = from_text(TEXT)
    ctx = Context(Target("test"), synthesize(model.inputs), seed=7)
    with pytest.raises(PassFailed, match="test-crash: IndexError: list index out of range") as caught:
        run_pipeline(model, "test-scale:by=3,test-crash:at=1,test-scale", ctx, reproducers=tmp_path)
    folder = caught.value.folder
    assert folder is not None
    # The model as it was before the pass: scaled by 3, then by what the crashing pass requires.
    assert load(folder / "model.onnx").constants()[0].values.tolist() == [6, 12, 18, 24]
    about = json.loads((folder / "about.json").read_text())
    assert about["pipeline"] == "test-crash:at=1,test-scale"
    assert "--seed 7" in caught.value.command
    assert "test-crash:at=1,test-scale" in (folder / "command.txt").read_text()


def test_a_refusal_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(ZcError, match="test-refuse: weight 'b' is not to my taste"):
        run_pipeline(from_text(TEXT), "test-refuse", context(), reproducers=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_hooks_see_each_pass_and_the_start_the_effective_pipeline() -> None:
    seen: list[str] = []

    def hook(run: PassRun, model: Model) -> None:
        seen.append(f"{run.index} {run.text} {len(model.graph.nodes)}")

    def started(steps: Pipeline) -> None:
        seen.append(str(steps))

    run_pipeline(from_text(TEXT), "test-scale,test-plain", context(), hooks=[hook], started=started)
    assert seen == ["test-scale,test-plain", "0 test-scale 2", "1 test-plain 3"]


def test_the_report_says_what_a_pass_chose() -> None:
    @register
    @dataclass(frozen=True)
    class Choosing(Pass):
        """Chooses its factor."""

        name: ClassVar[str] = "test-choosing"
        factor: float | Literal["auto"] = "auto"
        """Factor."""

        def run(self, model: Model, ctx: Context) -> PassResult:
            return PassResult(changed=False, chose=replace(self, factor=2.0))

    report = run_pipeline(from_text(TEXT), "test-choosing", context())
    assert report.pipeline == "test-choosing"
    assert report.effective == report.passes[0].text == "test-choosing:factor=2.0"


def test_an_invalid_model_is_refused_before_the_first_pass() -> None:
    model = from_text(TEXT)
    model.graph.nodes[1].op = "Relo"
    with pytest.raises(ZcError, match="Relo"):
        run_pipeline(model, "test-scale", context())


def test_a_pass_that_denies_its_edits_is_checked_all_the_same() -> None:
    @register
    @dataclass(frozen=True)
    class Denier(Pass):
        name: ClassVar[str] = "test-denier"
        exact: ClassVar[bool] = True

        def run(self, model: Model, ctx: Context) -> PassResult:
            model.graph.nodes[1].op = "Neg"
            return PassResult(changed=False)

    with pytest.raises(CheckFailed, match="test-denier: output 'y' moved"):
        run_pipeline(from_text(TEXT), "test-denier", context())


def test_unsorted_nodes_are_sorted_and_that_is_said() -> None:
    model = from_text(TEXT)
    model.graph.nodes.reverse()
    report = run_pipeline(model, "test-scale", context())
    assert [n.op for n in model.graph.nodes] == ["Add", "Relu"]
    assert any("they were sorted" in note.what for note in report.notes)


def test_missing_samples_are_said_loudly() -> None:
    @register
    @dataclass(frozen=True)
    class Hungry(Pass):
        name: ClassVar[str] = "test-hungry"

        def run(self, model: Model, ctx: Context) -> PassResult:
            return PassResult(changed=False, stats={"rows": ctx.need_samples(model).rows})

    report = run_pipeline(from_text(TEXT), "test-hungry", context())
    assert report.passes[0].stats["rows"] == 32
    assert any(n.kind == "warning" and "SYNTHETIC" in n.what for n in report.notes)


def test_an_output_that_the_proof_cannot_speak_of_is_named() -> None:
    model = from_text(TEXT)
    bias = model.constants()[0]
    bias.values = np.full(4, np.nan, np.float32)
    report = run_pipeline(model, "test-scale", context())
    assert any(n.kind == "warning" and n.where == "output 'y'" and "says nothing" in n.what for n in report.notes)


def test_synthetic_samples_follow_the_seed() -> None:
    rows = [next(Context(Target("test"), seed=s).need_samples(from_text(TEXT)).batches())["x"] for s in (0, 1)]
    assert not np.array_equal(*rows)


def test_a_model_that_nothing_can_be_drawn_for_names_the_way_out() -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (seq(float[2]) x) => (float[2] y) <int64 i = {0}> { y = SequenceAt (x, i) }""")
    with pytest.raises(ZcError, match="--verify structure"):
        run_pipeline(model, "test-scale", context())


def test_the_report_is_plain_data() -> None:
    report = run_pipeline(from_text(TEXT), "test-scale", context())
    assert json.loads(json.dumps(report.to_json()))["passes"][0]["name"] == "test-scale"


def test_structure_alone_is_offered_where_it_is_samples_that_are_missing() -> None:
    ranked = from_text(TEXT)
    ranked.graph.inputs[0].shape = None
    with pytest.raises(ZcError, match=r"unknown rank.*--verify structure"):
        run_pipeline(ranked, "test-scale", Context(Target("t")))
    magic = from_text(TEXT.replace('"" : 17', '"" : 17, "my.ops" : 1').replace("Relu", "my.ops.Magic"))
    with pytest.raises(ZcError, match=r"does not run it: .*Magic") as refused:  # nor would it run what is written
        run_pipeline(magic, "test-scale", Context(Target("t")))
    assert "--verify" not in str(refused.value)


def test_places_in_the_sources_of_onnxruntime_are_left_out() -> None:
    said = (
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Name:'r' Status Message: /onnxruntime_src/a/helper.h:91 "
        "onnxruntime::Helper::Helper(const onnxruntime::TensorShape&, bool) sizes differ"
    )
    assert reason(RuntimeError(said)) == "Name:'r' Status Message: sizes differ"
