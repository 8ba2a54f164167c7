"""Predicted costs of onnxruntime's kernels: which kernel a node gets, and what the table makes of it."""

from pathlib import Path

import pytest

from zc.backends.onnxruntime import kernels
from zc.backends.onnxruntime.cost_table import COSTS
from zc.backends.onnxruntime.costs import Costs, conv_window
from zc.backends.onnxruntime.kernels import BLOCK, BLOCKED, CODES, LAST, PLAIN
from zc.execute import Runner
from zc.ir.model import Model, from_text, load
from zc.ir.shapes import infer_shapes, static_shape

CONV = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,{ic},{side},{side}] x) => (float[1,{oc},{out},{out}] y) <float[{oc},{depth},{k},{k}] w> {{
    y = Conv <group = {groups}, pads = [{p},{p},{p},{p}], strides = [{s},{s}]> (x, w)
}}"""


def conv(ic: int, oc: int, side: int = 8, k: int = 3, groups: int = 1, stride: int = 1) -> Model:
    values = ",".join(["1"] * (oc * ic // groups * k * k))
    text = CONV.format(
        ic=ic, oc=oc, depth=ic // groups, side=side, k=k, groups=groups, p=k // 2, s=stride, out=side // stride
    )
    model = from_text(text.replace("] w>", f"] w = {{{values}}}>"))
    infer_shapes(model)
    return model


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    node = model.graph.nodes[0]
    found = {t.name: static_shape(t) for t in (*node.inputs, *node.outputs)}
    return {name: shape for name, shape in found.items() if shape is not None}


def us(model: Model, integer: bool) -> float:
    step = Costs().step(model.nodes()[0], integer, [PLAIN], shapes(model))
    assert step is not None
    return step.us


# Input channels, output channels, groups: whole blocks, padded ones, and what goes without blocks.
CHANNELS = [
    *[(3, 8, 1), (12, 20, 1), (16, 7, 1), (18, 16, 1), (20, 16, 1), (32, 64, 1)],
    *[(8, 8, 8), (6, 6, 6), (20, 20, 20), (32, 64, 4), (64, 64, 4), (6, 12, 6)],
]


@pytest.mark.parametrize(("ic", "oc", "groups"), CHANNELS)
def test_onnxruntime_works_in_blocks_where_it_is_said_to(tmp_path: Path, ic: int, oc: int, groups: int) -> None:
    model = conv(ic, oc, groups=groups)
    Runner(model, save_optimized=tmp_path / "ran.onnx")
    ran = {n.op: n for n in load(tmp_path / "ran.onnx").graph.nodes}
    block = blocks_of_this_machine(tmp_path)
    window = conv_window(model.nodes()[0], shapes(model))
    if block == BLOCK:
        assert kernels.runs_blocked(window) == (ran["Conv"].domain == "com.microsoft.nchwc")
        assert ("ReorderInput" in ran) == (kernels.runs_blocked(window) and not kernels.reads_plain(window))
    assert kernels.runs_blocked(window) == (Costs().step(model.nodes()[0], False, [], shapes(model)).writes == BLOCKED)


def blocks_of_this_machine(folder: Path) -> int:
    """Channels of a block: what one filter is filled up to."""
    Runner(conv(3, 1), save_optimized=folder / "one.onnx")
    node = next(n for n in load(folder / "one.onnx").graph.nodes if n.op == "Conv")
    return int(node.inputs[1].shape[0])


def test_every_kernel_has_its_times() -> None:
    models = [conv(ic, oc, groups=groups) for ic, oc, groups in CHANNELS]
    windows = [conv_window(model.nodes()[0], shapes(model)) for model in models]
    named = {kernel(window)[0] for window in windows for kernel in (kernels.float_conv, kernels.integer_conv)}
    named |= {kernels.conversion(low, up, (1, 8, 4, 4))[0] for low in (BLOCKED, PLAIN, CODES) for up in (False, True)}
    named |= {kernels.elementwise(op, PLAIN, 8, 8)[0] for op in kernels.MEASURED}
    assert named <= set(COSTS)
    assert all(cost > 0 for costs in COSTS.values() for cost in costs.values())


def test_few_channels_do_not_pay_in_integers_and_many_do() -> None:
    stem, depthwise = conv(3, 8, side=224, stride=2), conv(8, 8, side=112, groups=8)
    assert us(stem, integer=True) > 1.5 * us(stem, integer=False)
    assert us(depthwise, integer=True) > 2 * us(depthwise, integer=False)
    for k in (1, 3):
        dense = conv(128, 128, side=14, k=k)
        assert us(dense, integer=True) < 0.6 * us(dense, integer=False)


def test_a_node_without_sizes_has_no_price() -> None:
    model = conv(16, 16)
    assert Costs().step(model.nodes()[0], False, [PLAIN], {"x": (1, 16, 8, 8)}) is None


def test_only_maps_have_blocks_or_channels_last() -> None:
    costs = Costs()
    assert costs.convert(BLOCKED, True, (1, 16, 8, 8)) > 0
    assert costs.convert(CODES, True, (1, 16, 8, 8)) > 0
    assert costs.convert(BLOCKED, True, (1, 16)) == costs.convert(CODES, False, (1, 16)) == 0
    assert costs.convert(PLAIN, True, (1, 16)) > 0


BEHIND = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,16,8,8] x) => (float[1,16,8,8] y) <float[16,16,1,1] w> {{
    c = Conv (x, w)
    {line}
}}"""


def behind(line: str, integer: bool) -> tuple[int, float]:
    """The form in which a node behind a convolution writes, and its time."""
    model = from_text(BEHIND.format(line=line).replace("] w>", "] w = {" + ",".join(["1"] * 256) + "}>"))
    node = model.nodes()[1]
    sizes = dict.fromkeys(("x", "c", "y"), (1, 16, 8, 8))
    step = Costs().step(node, integer, [LAST if integer else BLOCKED], sizes)
    assert step is not None
    return step.writes, step.us


def test_a_convolution_applies_relu_for_nothing_and_other_activations_cheaply() -> None:
    (form, relu), (_, clip), (_, erf) = (behind(f"y = {op} (c)", False) for op in ("Relu", "Clip", "Erf"))
    assert (form, relu) == (BLOCKED, 0)
    assert 0 < clip < erf


def test_operators_take_codes_as_they_come() -> None:
    assert behind("y = LeakyRelu (c)", True)[0] == LAST
    assert behind("y = MaxPool <kernel_shape = [1, 1]> (c)", True)[0] == LAST
    assert behind("y = Reshape (c, c)", True)[0] == CODES
