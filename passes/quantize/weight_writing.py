"""From float weights to stored codes: written first in a form that any runtime computes, refined, then as wanted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import numpy as np

from zc.data import Samples
from zc.ir.edit import Editor, Names
from zc.ir.graph import Constant, Node, describe
from zc.ir.model import Model
from zc.passes.layers.layers import find_layers
from zc.passes.quantize.codes import WeightCodes
from zc.passes.quantize.dynamic import drop_replaced
from zc.passes.quantize.find_codes import weight_codes
from zc.passes.quantize.form import Rounding
from zc.passes.quantize.refine import Refined, refine
from zc.passes.quantize.weight_rows import RowCodes, code_rows
from zc.passes.quantize.weight_sites import WeightSite
from zc.passes.quantize.weight_store import Store, StoredForm, Written, nbits_block, to_nbits, unwrite
from zc.passes.quantize.weights import Coded
from zc.pipeline.base import Context

FEW_ROWS = 8
"""Rows of activations up to which MatMulNBits beats the float kernel: 0.3 of its time for one, 0.6 to 0.8 for eight."""


class Writing:
    """The weights of a model on their way into codes."""

    def __init__(
        self, model: Model, ctx: Context, sites: Sequence[WeightSite], bits: int, block: int, symmetric: bool
    ) -> None:
        """Write every weight as nearest codes behind Cast and Mul; float weights that nothing reads any more go."""
        self.model, self.ctx, self.sites = model, ctx, sites
        self.names = Names(model.graph)
        self.editors = {id(site.scope): Editor(site.scope, self.names) for site in sites}
        layers = find_layers(model, spreading=True)[0] if ctx.samples is not None else []
        self.layers = {id(one.node): one for one in layers}
        self.rows: list[RowCodes] = []
        self.written: list[Written] = []
        for site in sites:
            layout = site.layout
            rows = code_rows(layout.to_rows(site.weight.values), bits, block if layout.blocks else 0, symmetric)
            written = Store(self.editors[id(site.scope)], site.weight.name, layout).multiply(rows)
            for node, position in site.uses:
                node.inputs[position] = written.real
            self.rows.append(rows)
            self.written.append(written)
        drop_replaced(list(model.scopes()), [site.weight for site in sites])
        self._finish_edits()

    def refine(self, original: Model, samples: Samples, rounding: Rounding, bias: bool) -> Refined:
        """Choose the codes of layers of the main graph for what they say, and correct biases; see `refine`."""
        codes = {
            id(node): written.codes
            for site, written in zip(self.sites, self.written, strict=True)
            for node, position in site.uses
            if position == 1
        }
        order = [cast(Node, n) for n in self.model.graph.nodes if id(n) in codes]
        coded = [self._coded(node, codes[id(node)], bias) for node in order]
        return refine(self.model, original, coded, samples, self.ctx, rounding=rounding, bias=bias)

    def _coded(self, node: Node, codes: Constant, bias: bool) -> Coded:
        layer, output = self.layers.get(id(node)), node.outputs[0]
        constant = None
        if layer is not None:
            if bias and layer.bias is None and layer.may_shift:
                layer.set_offset(np.zeros(layer.channels, np.float32), self.names)
            output, constant = layer.end, layer.bias
        axis = -1 if node.op == "MatMul" else 1
        return Coded(node, describe(node), codes, output, output.name, axis, constant, None, 0)

    def finish(self, form: StoredForm | Literal["auto"], packed: bool) -> Counter[StoredForm]:
        """Write every weight in its form; how many there are of each. packed: in types of 4 bits where codes have 4."""
        counts: Counter[StoredForm] = Counter()
        for site, rows, written in zip(self.sites, self.rows, self.written, strict=True):
            editor = self.editors[id(site.scope)]
            chosen = self._form(site, rows, form)
            counts[chosen] += 1
            if chosen == "multiply" and not (packed and rows.bits == 4):
                continue
            rows = self._refined(site, rows)
            unwrite(written)
            store = Store(editor, site.weight.name, site.layout)
            if chosen == "multiply":
                store.multiply(rows, written.real, packed)
            elif chosen == "dequantize":
                store.dequantize(rows, written.real, packed)
            else:
                shared: dict[str, Constant] = {}
                for node, _ in site.uses:
                    to_nbits(node, rows, editor, site.weight.name, shared)
        self._finish_edits()
        return counts

    def _form(self, site: WeightSite, rows: RowCodes, wanted: StoredForm | Literal["auto"]) -> StoredForm:
        target = self.ctx.target
        packs = rows.bits in target.nbits and site.is_product and nbits_block(rows) is not None
        usual: StoredForm = "dequantize" if target.folds_dequantize else "multiply"
        if wanted == "nbits":
            return "nbits" if packs else usual
        if wanted != "auto":
            return wanted
        positions = site.positions() if packs else None
        return "nbits" if positions is not None and positions <= FEW_ROWS else usual

    def _refined(self, site: WeightSite, rows: RowCodes) -> RowCodes:
        """The codes and scales as they stand in the graph now."""
        node, position = site.uses[0]
        found = weight_codes(node, position) if len(site.uses) == 1 else "shared, so nothing changed it"
        return rows if isinstance(found, str) else rows_of_codes(found, site, rows)

    def _finish_edits(self) -> None:
        for editor in self.editors.values():
            editor.finish()


def rows_of_codes(found: WeightCodes, site: WeightSite, rows: RowCodes) -> RowCodes:
    """Codes and scales of a weight, as rows; zero points stay."""
    layout = site.layout
    codes = rows.codes.copy()
    codes[:, : rows.inputs] = layout.to_rows(found.weight_codes())
    scale = layout.to_rows(found.spread(found.scale.values))[:, :: rows.block]
    return replace(rows, codes=codes, scale=scale.astype(np.float32))
