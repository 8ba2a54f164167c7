"""The pass `smooth`: outliers of activations move into the weights of the matrix products that read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.edit import Editor, Names, detach
from zc.ir.graph import Constant, Node, Tensor
from zc.ir.model import Model
from zc.passes.quantize.equalize import open_flow, put_in, tell_choices, tell_pinned, where_to_look
from zc.passes.quantize.scaling.flow import Flow, Reader
from zc.passes.quantize.scaling.observe import channel_extremes
from zc.passes.quantize.scaling.plan import ALPHAS, Plan, make_plan, wanted_values
from zc.passes.quantize.trial import Source
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

PRODUCTS = frozenset({"MatMul", "Gemm"})


@register
@dataclass(frozen=True)
class Smooth(Pass):
    """Divide the channels of an activation by factors, and multiply the rows of the weights that read it by them.

    before:  LayerNormalization(scale, bias)         -> x -> MatMul(w)
    after:   LayerNormalization(scale / s, bias / s) -> x -> MatMul(s * w)      s = max|x|**alpha / max|w|**(1 - alpha)

    A few channels of a transformer's activations are many times larger than the others, which share their scale and so
    are lost in 8 bits; weights have no such channels and can take some of it. Whatever stands before the product and
    takes a factor for each channel gives way: a normalisation (also one written out in single operators), a product by
    constants, an embedding, another matrix product, values that attention weighs. Where nothing does, insert=true puts
    a Mul there, if that halves the error. The numbers stay what they are.
    (Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models, 2023.)
    """

    name: ClassVar[str] = "smooth"
    exact: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    keeps: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    alpha: float | Literal["auto"] = "auto"
    """How much of the outliers moves: 0 none, 1 all; auto: what measures best behind each value, which may be none."""
    insert: bool = False
    """Put a Mul where nothing before the product takes the factors; it costs a pass over the activation."""
    per_channel: bool = True
    """Will weights get a scale for each output channel? It tells what rounding costs."""
    skip: tuple[str, ...] = ()
    """Nodes whose inputs and outputs keep their scale: globs over node names, operators and output names."""

    def __post_init__(self) -> None:
        if self.alpha != "auto" and not 0 <= self.alpha <= 1:
            raise ZcError(f"alpha is {self.alpha:g}; give 0 to 1, or auto")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Smooth the model in place. ZcError when the samples do not run or a pattern matches nothing."""
        result = PassResult(changed=False)
        flow = open_flow(model, skip=self.skip)
        inserted = _insert(flow, self.skip) if self.insert else []
        if inserted:
            flow = open_flow(model, skip=self.skip)
        tell_pinned(result, flow, PRODUCTS)
        plan = _plan(flow, where_to_look(model, ctx), ctx, self.alpha, self.per_channel, inserted)
        tell_choices(result, plan.choices)
        result.stats["constants_scaled"] = put_in(flow, plan.factors, ctx)
        result.stats["operators_inserted"] = _drop_idle(model, inserted)
        result.changed = result.stats["constants_scaled"] != 0
        return result


def smooth(
    model: Model,
    samples: Samples,
    ctx: Context,
    *,
    alpha: float | Literal["auto"] = "auto",
    insert: bool = False,
    per_channel: bool = True,
) -> Plan:
    """Move outliers of activations into weights, in place; what was chosen for each value. See `Smooth`."""
    flow = open_flow(model)
    inserted = _insert(flow, ()) if insert else []
    flow = open_flow(model) if inserted else flow
    plan = _plan(flow, Source(model, samples), ctx, alpha, per_channel, inserted)
    put_in(flow, plan.factors, ctx)
    _drop_idle(model, inserted)
    return plan


def _plan(
    flow: Flow,
    source: Source,
    ctx: Context,
    alpha: float | Literal["auto"],
    per_channel: bool,
    inserted: Sequence[Node],
) -> Plan:
    values = wanted_values(flow, ctx)
    if not values:
        return Plan(np.ones(flow.labels.count), [])
    layouts = {name: flow.of(tensor) for name, tensor in values.items()}
    return make_plan(
        flow,
        channel_extremes(source, layouts, ctx),
        ALPHAS if alpha == "auto" else (alpha,),
        source if alpha == "auto" else None,
        ctx,
        by_row=per_channel and ctx.target.per_channel,
        ops=PRODUCTS,
        costly=frozenset(n.outputs[0].name for n in inserted),
    )


def _insert(flow: Flow, skip: Sequence[str]) -> list[Node]:
    """Put Mul by ones between products and the values that they read and that take no factor."""
    model = flow.model
    names = Names(model.graph)
    editor = Editor(model.graph, names)
    by_value: dict[int, tuple[Tensor, list[Reader]]] = {}
    for reader in flow.readers:
        if reader.edit.node.op in PRODUCTS and flow.pinned(reader.layout) and not _left_out(flow, reader, skip):
            by_value.setdefault(id(reader.value), (reader.value, []))[1].append(reader)
    added = []
    for value, readers in by_value.values():
        width = max(readers[0].taken.shape)
        scale = names.constant(f"{value.name}_smooth", np.ones(width, readers[0].edit.node.inputs[1].dtype))
        out = names.variable(f"{value.name}_smoothed", like=value)
        added.append(editor.add(Node("Mul", names.take(f"{value.name}_Mul"), {}, [value, scale], [out])))
        for reader in readers:
            reader.edit.node.inputs[0] = out
    editor.finish()
    return added


def _left_out(flow: Flow, reader: Reader, skip: Sequence[str]) -> bool:
    reasons = flow.labels.reasons
    found = int(flow.labels.reason(reader.layout).min())
    return bool(skip) and reasons[found].endswith("the option skip")


def _drop_idle(model: Model, inserted: Sequence[Node]) -> int:
    """Take out the inserted products that multiply by ones; how many stay."""
    editor = Editor(model.graph, Names(model.graph))
    stay = 0
    for node in inserted:
        scale = node.inputs[1]
        assert isinstance(scale, Constant)  # it was made here
        if (scale.values == 1).all():
            editor.forward(node.outputs[0], node.inputs[0])
            detach(node)
        else:
            stay += 1
    editor.finish()
    return stay
