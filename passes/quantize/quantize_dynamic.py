"""The pass `quantize-dynamic`: int8 weights, activations quantised as they come. It needs no samples."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, cast

from zc.ir.edit import Editor, Names, sort_nodes
from zc.ir.graph import Node, Tensor, describe
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.passes.cleanup.operands import computing_scopes
from zc.passes.quantize.activations import SMALLEST
from zc.passes.quantize.check import still_float
from zc.passes.quantize.dynamic import DynamicWriter, drop_replaced, lstm_reason
from zc.passes.quantize.opset import raise_opset
from zc.passes.quantize.refuse import refusal
from zc.passes.quantize.select import float_filter
from zc.passes.quantize.sites import match_site
from zc.passes.quantize.tables import picks_rows, table_reason
from zc.passes.quantize.weights import Coded, WeightForm, WeightWriter
from zc.passes.quantize.workshop import KeepFloat
from zc.passes.tailor.idioms import recognise
from zc.passes.tailor.tailor import masked, sample_feeds, suit
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register
from zc.target import Target

OPSET = 13
"""DynamicQuantizeLinear came with 11, scales by channel for tables with 13."""

SMALLEST_LSTM = 65536
"""The same for an LSTM's recurrent weight, whose input is rounded at every step (128 hidden units: even)."""


@register
@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Let matrix products and LSTMs run in 8-bit integers, with the range of each activation taken when it is there.

    before:  x -> MatMul(w) -> Add(b) -> y
    after:   x -> DynamicQuantizeLinear -> MatMulInteger(w int8) -> Cast -> Mul(scales) -> Add(b) -> y

    For nets of matrix products: transformers, recurrent nets, heads. Weights become int8 with a scale for each output
    channel; products of the same value share its codes. No sample is needed, and ranges that differ from input to input
    are no trouble. Convolutions stay float: their dynamic kernel runs slower than the float one.
    """

    name: ClassVar[str] = "quantize-dynamic"
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    per_channel: bool = True
    """One weight scale for each output channel; false: one for the whole weight."""
    skip: tuple[str, ...] = ()
    """Nodes to leave in float: globs over node names, operators and output names."""
    only: tuple[str, ...] = ()
    """If given, the nodes to quantise; globs as for skip."""

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Quantise in place. Samples, if there are any, only tell which masks are worth bounding (see `tailor`)."""
        result = PassResult(changed=False)
        refused = refusal(model)
        if refused is not None:
            result.warn(*refused)
            return result
        keep_float = float_filter(model, self.skip, self.only, self.name)
        feeds, work = sample_feeds(ctx), model.copy()
        told = recognise(work, ctx, bold=True, feed=feeds[0] if feeds else None)
        if raise_opset(work, OPSET, "scales by channel"):
            told.info(model.name, f"opset raised to {OPSET}, the first with scales by channel")
        scores = masked(work, ctx.target, feeds)
        rewriting = _Rewriting(work, ctx.target, keep_float, self.per_channel, result)
        rewriting.run()
        coded = rewriting.coded
        if not coded and not rewriting.tables:
            result.warn(model.name, "nothing to quantise: no matrix product or LSTM that could run in integers")
            return result
        suit(work, ctx.target, scores, told)
        result.notes += told.notes
        unfused = still_float(work, coded, ctx.target)
        for one, runs in unfused:
            result.declined(one.where, f"onnxruntime does not fuse it into an int8 kernel (it runs {runs})")
        for one in coded:
            if one.raised:
                result.info(one.where, f"{one.raised} weight scales were raised so that int32 cannot overflow")
            if one.narrowed:
                what = "so that pairs of products cannot saturate 16 bits"
                result.info(one.where, f"{one.narrowed} weight scales were raised {what}")
        result.changed = True
        result.stats = {
            "products_in_integers": sum(one.node.op == "MatMulInteger" for one in coded) - len(unfused),
            "lstms_in_integers": sum(one.node.op == "DynamicQuantizeLSTM" for one in coded),
            "tables_in_integers": rewriting.tables,
            **told.stats,
            "bytes_before": model.nbytes(),
            "bytes_after": work.nbytes(),
        }
        model.take(work)
        return result


class _Rewriting:
    """Writes the nodes of all scopes but functions; says what it leaves."""

    def __init__(
        self, model: Model, target: Target, keep_float: KeepFloat, per_channel: bool, result: PassResult
    ) -> None:
        self.model, self.target, self.keep_float, self.per_channel = model, target, keep_float, per_channel
        self.result, self.names = result, Names(model.graph)
        self.coded: list[Coded] = []
        self.tables = 0
        self.left: Counter[str] = Counter()

    def run(self) -> None:
        """Rewrite in place."""
        infer_shapes(self.model)
        scopes, replaced = computing_scopes(self.model), list[Tensor]()
        for scope in scopes:
            sort_nodes(scope)
            editor = Editor(scope, self.names)
            form = WeightForm(per_channel=self.per_channel, exact_pairs=self.target.saturating_pairs)
            products, tables = DynamicWriter(editor, self.names, form), WeightWriter(editor, self.names, form)
            for node in [cast(Node, n) for n in scope.nodes]:
                if node.standard:
                    self._node(node, products, tables)
            replaced += [*products.replaced, *tables.replaced]
            editor.finish()
        drop_replaced(scopes, replaced)
        for op, count in sorted(self.left.items()):
            where = f"{op} ({count} node{'s'[: count > 1]})"
            self.result.declined(where, f"stays float: {self.target.float_dynamic_ops[op]}")

    def _node(self, node: Node, products: DynamicWriter, tables: WeightWriter) -> None:
        if node.op in self.target.float_dynamic_ops:
            self.left[node.op] += 1
        elif node.op in self.target.dynamic_ops:
            why = self._product(node, products)
            if why is not None:
                self.result.declined(describe(node), f"{node.op} stays float: {why}")
        elif picks_rows(node, self.model.graph, self.target):
            why = self.keep_float(node) or table_reason(node)
            if why is not None:
                self.result.declined(describe(node), f"{node.op} stays float: {why}")
            else:
                tables.lookup(node)
                self.tables += 1

    def _product(self, node: Node, writer: DynamicWriter) -> str | None:
        """Write a product or an LSTM, or give the reason why it stays float."""
        why = self.keep_float(node)
        if why is None and node.op == "LSTM":
            why = lstm_reason(node, self.model.graph) or _too_small(node.inputs[2], SMALLEST_LSTM)
            if why is None:
                self.coded.append(writer.lstm(node))
        elif why is None:
            site = match_site(node, self.model.graph, self.target)
            if isinstance(site, str):
                return site
            why = _too_small(site.weight, SMALLEST)
            if why is None:
                self.coded.append(writer.site(site))
        return why


def _too_small(weight: Tensor, smallest: int) -> str | None:
    size = math.prod(weight.shape)
    if size >= smallest:
        return None
    return f"its weight has {size} numbers; below {smallest} rounding its input costs more than it saves"
