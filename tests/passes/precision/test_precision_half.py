"""`fp16` and `bf16`: what computes in half precision, what stays in float32 and why, and that the result runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from zc.backends.onnxruntime import TARGET
from zc.data import Samples, load_samples
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model, from_text, load
from zc.measure.tensor_error import sqnr
from zc.pipeline.base import Context, PassResult
from zc.pipeline.registry import find

HALVES = replace(TARGET, name="halves", half_ops={"bfloat16": frozenset({"MatMul", "Tanh"})})
HEAD = '<ir_version: 9, opset_import: ["" : 18]>'


def weights(count: int, seed: int = 0) -> str:
    return ", ".join(f"{v:.5f}" for v in np.random.default_rng(seed).standard_normal(count))


def net(behind: str, more: str = "") -> Model:
    return from_text(
        f"""{HEAD} g (float[N,3,6,6] x) => (float[N,4,4,4] y) <float[4,3,3,3] w = {{{weights(108)}}}{more}> {{
            c = Conv (x, w)
            {behind}
        }}"""
    )


def samples_of(tmp_path: Path, model: Model, scale: float = 1.0) -> Samples:
    rng = np.random.default_rng(1)
    shape = [d if isinstance(d, int) else 8 for d in model.inputs[0].shape or ()]
    np.savez(tmp_path / "x.npz", **{model.inputs[0].name: (rng.standard_normal(shape) * scale).astype(np.float32)})
    return load_samples(str(tmp_path / "x.npz"), model.inputs)


def convert(
    model: Model, samples: Samples | None = None, name: str = "fp16", target: Any = TARGET, **options: Any
) -> PassResult:
    result = find(name)(**options).run(model, Context(target, samples))
    onnx.checker.check_model(model.to_proto(), full_check=True)
    return result


def ops(model: Model) -> list[str]:
    return [n.op for n in model.graph.nodes]


def reasons(result: PassResult) -> str:
    return "\n".join(f"{n.where}: {n.what}" for n in result.notes if n.kind in ("declined", "warning"))


def agrees(before: Model, model: Model, samples: Samples, decibels: float) -> None:
    feed = next(samples.batches(4))
    want, got = Runner(before).run(feed), Runner(model).run(feed)
    for name, value in want.items():
        assert sqnr(got[name].astype(np.float32), value) > decibels


def test_products_compute_in_half_precision_and_sums_in_float32(tmp_path: Path) -> None:
    model = net("r = Relu (c)  y = Softmax <axis = 1> (r)")
    before, samples = model.copy(), samples_of(tmp_path, model)
    result = convert(model, samples)
    assert ops(model) == ["Cast", "Conv", "Relu", "Cast", "Softmax"]
    assert model.graph.nodes[1].inputs[1].dtype == np.float16
    assert model.graph.nodes[4].inputs[0].name == "r"
    assert "Softmax (1 node): stays in float32: it sums many numbers" in reasons(result)
    agrees(before, model, samples, 50)


def test_light_operators_between_float32_operators_stay_with_them(tmp_path: Path) -> None:
    model = net("s = Softmax <axis = 1> (c)  d = Add (s, s)  e = Tanh (d)  y = Softmax <axis = 1> (e)")
    result = convert(model, samples_of(tmp_path, model))
    assert ops(model) == ["Cast", "Conv", "Cast", "Softmax", "Add", "Tanh", "Softmax"]
    assert result.stats["in_float32_between"] == 2


def test_a_value_is_cast_once_for_all_its_readers(tmp_path: Path) -> None:
    model = net("s = Softmax <axis = 1> (c)  t = Softmax <axis = 2> (c)  u = Exp (c)  v = Add (s, t)  y = Add (u, v)")
    convert(model, samples_of(tmp_path, model))
    assert ops(model).count("Cast") == 2


def test_a_value_that_is_out_of_range_on_the_samples_makes_an_island(tmp_path: Path) -> None:
    model = net("m = Mul (c, k)  y = Div (m, k)", ", float k = {20000.0}")
    before, samples = model.copy(), samples_of(tmp_path, model)
    result = convert(model, samples)
    assert [n.op for n in model.graph.nodes if n.outputs[0].dtype == np.float16 and n.op != "Cast"] == ["Conv"]
    assert "value 'm' reaches" in reasons(result)
    agrees(before, model, samples, 50)


def test_a_value_that_vanishes_in_half_precision_makes_an_island(tmp_path: Path) -> None:
    model = net("y = Identity (c)")
    before, samples = model.copy(), samples_of(tmp_path, model, scale=1e-7)
    result = convert(model, samples)
    assert not result.changed
    assert "loses its digits" in reasons(result)
    agrees(before, model, samples, 100)


def test_a_constant_that_half_precision_cannot_hold_makes_an_island(tmp_path: Path) -> None:
    model = net("a = Abs (c)  e = Add (a, eps)  y = Div (c, e)", ", float eps = {1e-12}")
    result = convert(model, samples_of(tmp_path, model))
    assert "e: its constant 'eps' (1e-12) does not fit float16" in reasons(result)


def test_without_samples_the_user_hears_that_no_range_was_checked() -> None:
    result = convert(net("y = Relu (c)"))
    assert any(n.kind == "warning" and "no samples" in n.what for n in result.notes)


def test_the_user_hears_what_the_runtime_casts(tmp_path: Path) -> None:
    model = net("y = Relu (c)")
    result = convert(model, samples_of(tmp_path, model))
    assert any("no float16 kernel for 2 of its nodes" in n.what for n in result.notes if n.kind == "warning")


def test_nodes_and_operators_can_be_chosen(tmp_path: Path) -> None:
    model = net("r = Relu (c)  y = Softmax <axis = 1> (r)")
    samples = samples_of(tmp_path, model)
    chosen = model.copy()
    convert(chosen, samples, allow=("Softmax",))
    assert ops(chosen) == ["Cast", "Conv", "Relu", "Softmax", "Cast"]
    left = model.copy()
    result = convert(left, samples, skip=("c",))
    assert not result.changed
    assert "fp16:skip=c" in reasons(result)
    with pytest.raises(ZcError, match="allow=Conv: it is not blocked"):
        find("fp16")(allow=("Conv",))


@pytest.mark.parametrize(
    "behind", ["y = Relu (c)", "y = Softmax <axis = 1> (c)", "y = Relu (c)  z = Softmax <axis = 1> (y)"]
)
def test_inputs_and_outputs_in_half_precision(tmp_path: Path, behind: str) -> None:
    model = net(behind)
    before, samples = model.copy(), samples_of(tmp_path, model)
    convert(model, samples, keep_io=False)
    assert [(s.name, s.dtype) for s in (*model.inputs, *model.outputs)] == [("x", np.float16), ("y", np.float16)]
    agrees(before, model, samples, 50)


def test_an_input_that_both_sides_read(tmp_path: Path) -> None:
    model = from_text(
        f"""{HEAD} g (float[N,8] x) => (float[N,8] y) <float[8,8] w = {{{weights(64)}}}> {{
            m = MatMul (x, w)  e = Softmax (x)  y = Add (m, e)
        }}"""
    )
    before, samples = model.copy(), samples_of(tmp_path, model)
    convert(model, samples, keep_io=False)
    agrees(before, model, samples, 50)


def test_what_an_operator_wants_in_float32_stays_so(tmp_path: Path) -> None:
    model = from_text(
        f"""{HEAD} g (float[N,3,6,6] x) => (float[N,4,8,8] y)
        <float[4,3,3,3] w = {{{weights(108)}}}, float[4] scales = {{1.0, 1.0, 2.0, 2.0}}> {{
            c = Conv (x, w)
            y = Resize <mode = "nearest"> (c, , scales)
        }}"""
    )
    before, samples = model.copy(), samples_of(tmp_path, model)
    convert(model, samples)
    resize = next(n for n in model.graph.nodes if n.op == "Resize")
    assert (resize.inputs[0].dtype, resize.inputs[2].dtype) == (np.float16, np.float32)
    agrees(before, model, samples, 50)


def test_a_cast_to_float32_becomes_one_to_half_precision(tmp_path: Path) -> None:
    model = from_text(
        f"""{HEAD} g (int64[N,8] x) => (float[N,8] y) <float[8,8] w = {{{weights(64)}}}> {{
            f = Cast <to = 1> (x)  y = MatMul (f, w)
        }}"""
    )
    convert(model)
    assert ops(model) == ["Cast", "MatMul", "Cast"]
    assert model.graph.nodes[0].attrs["to"] == TensorProto.FLOAT16


BRANCHES = f"""{HEAD} g (bool b, float[N,8] x) => (float[N,8] y) <float[8,8] w = {{{weights(64)}}}> {{
    h = MatMul (x, w)
    y = If (b) <then_branch = t () => (float[N,8] p) {{ p = MatMul (h, w) }},
                else_branch = e () => (float[N,8] q) {{ q = Add (h, x) }}>
}}"""


@pytest.mark.parametrize("weights_only", [True, False])
def test_branches_read_what_half_precision_made(weights_only: bool) -> None:
    model = from_text(BRANCHES)
    before = model.copy()
    convert(model, weights_only=weights_only)
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    for taken in (True, False):
        feed = {"b": np.array(taken), "x": x}
        assert sqnr(Runner(model).run(feed)["y"], Runner(before).run(feed)["y"]) > 50


def test_weights_alone_take_half_the_bytes(tmp_path: Path) -> None:
    model = net("y = Relu (c)")
    before, samples = model.copy(), samples_of(tmp_path, model)
    result = convert(model, weights_only=True)
    assert ops(model) == ["Cast", "Conv", "Relu"]
    assert result.stats["bytes_after"] == result.stats["bytes_before"] / 2
    agrees(before, model, samples, 60)
    with pytest.raises(ZcError, match="keep_io"):
        find("fp16")(weights_only=True, keep_io=False)


def test_a_weight_out_of_range_is_stored_in_float32() -> None:
    model = from_text(BRANCHES.replace("{" + weights(64), "{1e6, " + weights(63)))
    result = convert(model, weights_only=True)
    assert not result.changed
    assert "w: stays in float32: it does not fit float16" in reasons(result)


def test_bfloat16_is_stored_where_there_are_no_kernels(tmp_path: Path) -> None:
    model = net("y = Relu (c)")
    before, samples = model.copy(), samples_of(tmp_path, model)
    result = convert(model, samples, "bf16")
    assert ops(model) == ["Cast", "Conv", "Relu"]
    assert any("no bfloat16 kernels" in n.what for n in result.notes)
    agrees(before, model, samples, 35)
    with pytest.raises(ZcError, match="no bfloat16 kernels"):
        convert(before, samples, "bf16", keep_io=False)


def test_bfloat16_computes_where_there_are_kernels(tmp_path: Path) -> None:
    model = from_text(
        f"""<ir_version: 9, opset_import: ["" : 9]>
        g (float[N,8] x) => (float[N,8] y) <float[8,8] w = {{{weights(64)}}}> {{
            m = MatMul (x, w)  y = Tanh (m)
        }}"""
    )
    result = convert(model, samples_of(tmp_path, model), "bf16", HALVES)
    assert ops(model) == ["Cast", "MatMul", "Tanh", "Cast"]
    assert model.opset == 13
    assert any("opset raised to 13" in n.what for n in result.notes)


def test_a_model_in_half_precision_is_left_with_one_line() -> None:
    model = net("y = Relu (c)")
    convert(model, keep_io=False)
    result = convert(model)
    assert not result.changed
    (note,) = result.notes
    assert "already float16" in note.what


def test_a_quantised_model_is_left_with_one_line() -> None:
    model = from_text(
        f"""{HEAD} g (float[N,8] x) => (float[N,8] y) {{
            q, s, z = DynamicQuantizeLinear (x)  y = DequantizeLinear (q, s, z)
        }}"""
    )
    result = convert(model)
    assert not result.changed
    assert "already quantised" in reasons(result)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        model = net("r = Relu (c)  y = Softmax <axis = 1> (r)")
        convert(model, samples_of(tmp_path, model))
        made.append(model.to_proto().SerializeToString(deterministic=True))
    assert made[0] == made[1]


FLOORS: dict[str, tuple[str, str, str, float, float]] = {
    "resnet20_cifar10": ("cifar10_test4k.npz", "imagenet", "0:64", 60, 42),
    "mobilenetv1_025_imagenet": ("imagenet500", "pm1 crop=224", "0:32", 35, 18),
    "minilm_l6_trim": ("minilm.npz", "", "0:32", 58, 38),
    "magika_standard_v3_3": ("magika.npz", "", "0:32", 60, 45),
}


@pytest.mark.real
@pytest.mark.parametrize("name", FLOORS)
def test_real_models_keep_their_outputs(shared: Path, name: str) -> None:
    data, prep, rows, half, brain = FLOORS[name]
    model = load(shared / "models" / f"{name}.onnx")
    samples = load_samples(str(shared / "data" / data), model.inputs, rows=rows, prep=prep or None)
    find("clean")().run(model, Context(TARGET, samples))
    run: Callable[[Model], np.ndarray] = lambda m: next(iter(Runner(m).run(next(samples.batches(16))).values()))  # noqa: E731
    want = run(model)
    for kind, floor in (("fp16", half), ("bf16", brain)):
        other = model.copy()
        convert(other, samples, kind)
        assert sqnr(run(other), want) > floor
        assert other.nbytes() < 0.53 * model.nbytes()
