"""Find the layers of a quantised model again: their codes, their biases, and what they are in the float model."""

from typing import cast

from zc.errors import ZcError
from zc.ir.graph import Constant, Node, Tensor, describe
from zc.ir.model import Model
from zc.passes.quantize.codes import WeightCodes
from zc.passes.quantize.find_codes import stored_weight
from zc.passes.quantize.refuse import refusal
from zc.passes.quantize.weights import Coded
from zc.pipeline.base import Context
from zc.pipeline.registry import find

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def float_twin(model: Model, ctx: Context) -> Model:
    """The float model that a quantised one was made of: as the pass that quantised it knew it, else as it came in.

    ZcError when there is none.
    """
    if ctx.float_model is not None:
        return ctx.float_model
    if ctx.original is None or refusal(ctx.original) is not None:
        raise ZcError(
            f"{model.name}: there is no float model to compare with; quantise in the same pipeline, as in "
            "-p quantize:bias_correct=false,round,bias-correct"
        )
    twin = ctx.original.copy()
    find("clean")().run(twin, Context(ctx.target, seed=ctx.seed, threads=ctx.threads))
    return twin


def coded_layers(model: Model, original: Model, ctx: Context) -> tuple[list[Coded], list[tuple[str, str]]]:
    """The layers of the main graph with codes as weights, in its order, and those that cannot be told, with the reason.

    original: the float model; nodes are the same where their outputs are, or their names.
    """
    finder = _Finder(original, ctx.target.saturating_pairs)
    found: list[Coded] = []
    lost: list[tuple[str, str]] = []
    for node in model.nodes():
        weight = stored_weight(node) if node.op in LAYERS and node.standard else None
        if weight is None:
            continue
        one = finder.match(node, weight)
        if isinstance(one, str):
            lost.append((describe(node), one))
        else:
            found.append(one)
    return found, lost


class _Finder:
    def __init__(self, original: Model, exact_pairs: bool) -> None:
        self.exact_pairs = exact_pairs
        nodes = [n for n in original.nodes() if n.op in LAYERS]
        self.by_output = {n.outputs[0].name: n for n in nodes}
        names = [n.name for n in nodes]
        self.by_name = {n.name: n for n in nodes if n.name and names.count(n.name) == 1}

    def match(self, node: Node, weight: WeightCodes) -> Coded | str:
        """What a layer is in the float model, or why it cannot be told."""
        twin = self._twin(node)
        if twin is None or twin.op != node.op:
            return "it is not found in the float model"
        if not isinstance(twin.inputs[1], Constant) or tuple(twin.inputs[1].shape) != weight.shape:
            return "its weight has another shape in the float model"
        output, name, bias, scales = node.outputs[0], twin.outputs[0].name, *_bias(node)
        if node.op == "MatMul":
            sums = _sum(node), _sum(twin)
            if sums[0] is not None and sums[1] is not None:
                output, name, bias = sums[0][0].outputs[0], sums[1][0].outputs[0].name, sums[0][1]
        return Coded(
            node=node,
            where=describe(twin),
            weight=weight.codes,
            output=output,
            float_name=name,
            channel_axis=-1 if node.op == "MatMul" else 1,
            bias=bias,
            bias_scales=scales,
            raised=0,
            exact_pairs=self.exact_pairs,
        )

    def _twin(self, node: Node) -> Node | None:
        name = node.outputs[0].name
        return self.by_output.get(name) or self.by_output.get(name.removesuffix("_raw")) or self.by_name.get(node.name)


def _bias(node: Node) -> tuple[Constant | None, Constant | None]:
    """A bias that no other node reads, and the scales of its codes where it has codes."""
    if node.op == "MatMul" or len(node.inputs) < 3 or not node.inputs[2].name:
        return None, None
    bias = node.inputs[2]
    maker = bias.inputs[0] if len(bias.inputs) == 1 else None
    if maker is None:
        return _own(bias), None
    if maker.op != "DequantizeLinear" or len(bias.outputs) > 1 or len(maker.inputs) > 2:
        return None, None
    codes, scales = _own(maker.inputs[0]), _own(maker.inputs[1])
    return (codes, scales) if codes is not None and scales is not None else (None, None)


def _sum(node: Node) -> tuple[Node, Constant] | None:
    """The Add behind a MatMul and its constant, one number for each output."""
    value = node.outputs[0]
    add = value.outputs[0] if len(value.outputs) == 1 else None
    if add is None or add.op != "Add" or not cast(Node, add).standard:
        return None
    constant = _own(next((t for t in add.inputs if t is not value), value))
    size = node.inputs[1].shape[-1] if node.inputs[1].shape else None
    if constant is None or constant.size != size or (constant.shape and constant.shape[-1] != size):
        return None
    return cast(Node, add), constant


def _own(tensor: Tensor) -> Constant | None:
    return tensor if isinstance(tensor, Constant) and len(tensor.outputs) == 1 else None
