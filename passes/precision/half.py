"""What `fp16` and `bf16` share: options, and the way from plan to result."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from zc.errors import ZcError, nearest
from zc.execute import Runner
from zc.ir.edit import Names, sort_nodes
from zc.ir.model import Model, load
from zc.ir.quantised import is_quantised
from zc.ir.shapes import infer_shapes
from zc.passes.precision.blocked import BLOCKED
from zc.passes.precision.convert import Converter
from zc.passes.precision.kinds import Kind
from zc.passes.precision.plan import HEAVY, plan
from zc.passes.precision.ranges import largest_magnitudes
from zc.passes.precision.storage import store
from zc.passes.quantize.opset import raise_opset
from zc.passes.quantize.refuse import refusal
from zc.passes.quantize.select import float_filter
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.verify import require_same_signature, signature

OPSET = 13
"""The first operator set in which most operators have bfloat16."""

QDQ_OPSETS = {"float16": 19, "bfloat16": 22}
"""The first in which scales have, and DequantizeLinear puts out, half precision; with bfloat16 in Conv too."""


@dataclass(frozen=True)
class HalfPrecision(Pass):
    """The base of `fp16` and `bf16`."""

    kind: ClassVar[Kind]
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True
    signature: ClassVar[bool] = True

    weights_only: bool = False
    """Store weights in half precision and compute in float32: half the file, the speed of float everywhere."""
    keep_io: bool = True
    """Inputs and outputs stay in float32; false: they become half precision too."""
    skip: tuple[str, ...] = ()
    """Nodes to leave in float32: globs over node names, operators and output names."""
    only: tuple[str, ...] = ()
    """If given, the nodes to convert; globs as for skip."""
    allow: tuple[str, ...] = ()
    """Operators to convert although they stay in float32 by default, because half precision is a risk for them."""

    def __post_init__(self) -> None:
        for op in self.allow:
            if op not in BLOCKED:
                raise ZcError(f"allow={op}: it is not blocked{nearest(op, sorted(BLOCKED))}")
        if self.weights_only and not self.keep_io:
            raise ZcError("weights_only=true computes in float32, so inputs and outputs stay: leave out keep_io=false")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Convert the model in place. ZcError for a pattern that matches nothing."""
        result = PassResult(changed=False)
        codes = "DequantizeLinear" in self.allow  # what is not in codes is to be converted around them
        refused = None if codes else refusal(model)
        if refused is not None:
            where, why = refused
            result.warn(where, why.replace("the weights are", "the weights are already"))
            return result
        then, before = signature(model), model.nbytes()
        infer_shapes(model)
        if self.weights_only or not self._computes(ctx, result, model):
            self._store(model, result)
        else:
            self._convert(model, ctx, result)
        if self.keep_io:
            require_same_signature(then, model, self.name)
        if result.changed:
            result.stats |= {"bytes_before": before, "bytes_after": model.nbytes()}
        return result

    def _computes(self, ctx: Context, result: PassResult, model: Model) -> bool:
        """Can the target compute products in this type, by kernels of its own or by casting?"""
        name = self.kind.name
        if name in ctx.target.casts_half or HEAVY & ctx.target.half_ops.get(name, frozenset()) - {"Gather"}:
            return True
        if not self.keep_io:
            raise ZcError(f"{ctx.target.name} has no {name} kernels for products, so inputs and outputs stay float32")
        result.info(
            model.name,
            f"{ctx.target.name} has no {name} kernels for products: weights are stored in {name} and computed "
            "with in float32, as with weights_only=true",
        )
        return False

    def _store(self, model: Model, result: PassResult) -> None:
        stored, left = store(model, self.kind)
        for where, why in left:
            result.declined(where, why)
        if not stored:
            result.declined(model.name, "no float32 weight to store in half precision")
        result.changed = bool(stored)
        result.stats = {"weights_stored": stored}

    def _convert(self, model: Model, ctx: Context, result: PassResult) -> None:
        keep_float = float_filter(model, self.skip, self.only, self.name)
        if self.kind.name == "bfloat16" and raise_opset(model, OPSET, "bfloat16"):
            result.info(model.name, f"opset raised to {OPSET}, the first with bfloat16 in most operators")
        lowest = QDQ_OPSETS[self.kind.name] if "DequantizeLinear" in self.allow and is_quantised(model) else 0
        if raise_opset(model, lowest, f"{self.kind.name} in Q/DQ"):
            result.info(model.name, f"opset raised to {lowest}, the first with {self.kind.name} in Q/DQ and Conv")
        infer_shapes(model)
        sort_nodes(model.graph)
        decided = plan(
            model.graph, self.kind, ctx.target, keep_float, frozenset(self.allow), self._ranges(model, ctx, result)
        )
        for where, why in decided.reasons:
            result.declined(where, why)
        if not decided.half and self.keep_io:
            result.declined(model.name, "nothing to convert: no operator could compute in half precision")
            return
        converter = Converter(model.graph, Names(model.graph), self.kind)
        converter.run(decided)
        if not self.keep_io:
            converter.open_ends()
        sort_nodes(model.graph)
        infer_shapes(model)
        casts = sum(
            n.op == "Cast" and self.kind.dtype in (n.inputs[0].dtype, n.outputs[0].dtype) for n in model.nodes()
        )
        result.changed = True
        result.stats = {
            "in_half_precision": len(decided.half),
            "in_float32_between": decided.between,
            "casts": casts,
        }
        self._tell_runtime(model, ctx, result)

    def _ranges(self, model: Model, ctx: Context, result: PassResult) -> Mapping[str, float]:
        if ctx.samples is None:
            result.warn("ranges", f"no samples were given: no value is checked against {self.kind.name}'s range")
            return {}
        return largest_magnitudes(model, ctx.samples, ctx)

    def _tell_runtime(self, model: Model, ctx: Context, result: PassResult) -> None:
        """Warn where the runtime casts around what it has no kernels for, with the number."""
        native = ctx.target.half_ops.get(self.kind.name, frozenset())
        without = sum(
            n.op not in native and any(t.dtype == self.kind.dtype for t in (*n.inputs, *n.outputs))
            for n in model.nodes()
        )
        if not without or self.kind.name not in ctx.target.casts_half:
            return
        with tempfile.TemporaryDirectory(prefix="zc-") as folder:
            path = Path(folder) / "optimized.onnx"
            Runner(model, save_optimized=path)
            casts = sum(n.op == "Cast" for n in load(path).graph.nodes)
        result.warn(
            model.name,
            f"{ctx.target.name} has no {self.kind.name} kernel for {without} of its nodes and computes them in float32 "
            f"with {casts} casts, which takes longer than float32; weights_only=true does without",
        )
