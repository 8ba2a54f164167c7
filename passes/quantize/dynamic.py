"""Write matrix products that quantise what they read when they run: the range is that of the data at hand.

    before:  x -> MatMul(w) -> Add(b) -> y
    after:   x -> DynamicQuantizeLinear -> x_q, s, z
             MatMulInteger(x_q, w_q, z) -> Cast -> Mul(s * w_scale) -> Add(b) -> y

onnxruntime fuses this into one kernel, bias included: DynamicQuantizeMatMul, or MatMulIntegerToFloat where several
products read the same codes. No samples are needed and no outlier is clipped; a pass over x for its range is the price.
An LSTM becomes DynamicQuantizeLSTM, which does the same inside.
"""

from typing import cast

import numpy as np

from zc.ir.edit import Editor, Names, detach
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, Variable, describe, fixed_value
from zc.passes.quantize.scheme import quantize_weight, weight_scales
from zc.passes.quantize.sites import Site
from zc.passes.quantize.weights import Coded, WeightForm, as_loaded, site_scales

VENDOR = "com.microsoft"
"""The domain of onnxruntime's own operators."""


class DynamicWriter:
    """Writes the products of one scope. `replaced` are the float tensors that they leave."""

    def __init__(self, editor: Editor, names: Names, form: WeightForm) -> None:
        self.editor, self.names, self.form = editor, names, form
        self.replaced: list[Tensor] = []
        self._codes: dict[int, tuple[Variable, Variable, Variable]] = {}
        self._weights: dict[tuple[int, float, int, int, bool], tuple[Constant, Tensor, Constant, int, int]] = {}

    # ---- matrix products

    def site(self, site: Site) -> Coded:
        """Write a Gemm or MatMul; a bias that is added behind a MatMul becomes part of the kernel."""
        node, where, name = site.node, describe(site.node), site.output.name
        form = self.form.of(where)
        weight, read, scales, raised, narrowed = self._weight(site, form)
        codes, scale, zero = self._quantize(site.source)
        channels = weight.shape[1]
        self.replaced += [t for t in node.inputs[1:] if t.name]
        output, bias = node.outputs[0], self._bias_behind(node, channels) if not site.takes_bias else None
        if site.bias is not None:
            bias = self._bias(node, site.bias)
        sums, numbers = (
            self._like(output, f"{name}_{what}", t) for what, t in (("sum", "int32"), ("float", "float32"))
        )
        both = Variable(self.names.take(f"{name}_scale"), np.float32, list(scales.shape))
        scaled = output if site.bias is None else self._like(output, f"{name}_scaled", "float32")
        self._become_product(node, [codes, read, zero], sums)
        self._add("Cast", {"to": 1}, [sums], numbers)
        self._add("Mul", {}, [scale, scales], both)
        self._add("Mul", {}, [numbers, both], scaled)
        if site.bias is not None:
            assert bias is not None
            self._add("Add", {}, [scaled, bias], output)
        elif bias is not None:
            output = output.outputs[0].outputs[0]
        return Coded(node, where, weight, output, output.name, -1, bias, None, raised, narrowed, form.exact_pairs)

    def _weight(self, site: Site, form: WeightForm) -> tuple[Constant, Tensor, Constant, int, int]:
        """Codes [inputs, outputs], as they are read, their scales, and how many were raised: for int32, for pairs."""
        key = (id(site.weight), site.factor, site.axis, form.limit, form.per_channel)
        if key not in self._weights:
            values, axis = site.weight_values(), form.axis(site)
            scales, raised, narrowed = site_scales(site, form, None, 1.0)
            found = quantize_weight(values, scales, axis, form.limit)
            stored = found if site.axis == 1 else np.ascontiguousarray(found.T)
            codes = self.names.constant(f"{site.weight.name}_q", stored)
            scale = self.names.constant(f"{site.weight.name}_scale", scales if axis is not None else scales.reshape(()))
            self._weights[key] = codes, as_loaded(codes, form, self.editor), scale, raised, narrowed
        return self._weights[key]

    def _quantize(self, value: Tensor) -> tuple[Variable, Variable, Variable]:
        """Codes, scale and zero point of a value, computed once for all that read it."""
        if id(value) not in self._codes:
            outs = (
                self._like(value, f"{value.name}_q", "uint8"),
                Variable(self.names.take(f"{value.name}_q_scale"), np.float32, []),
                Variable(self.names.take(f"{value.name}_q_zero_point"), np.uint8, []),
            )
            name = self.names.take(f"{value.name}_DynamicQuantizeLinear")
            self.editor.add(Node("DynamicQuantizeLinear", name, {}, [value], list(outs)))
            self._codes[id(value)] = outs
        return self._codes[id(value)]

    def _become_product(self, node: Node, inputs: list[Tensor], output: Tensor) -> None:
        node.op = "MatMulInteger"
        node.attrs.clear()
        node.inputs[:] = inputs
        node.outputs[:] = [output]

    def _bias(self, node: Node, values: Array) -> Constant:
        given = node.inputs[2].name if len(node.inputs) > 2 and node.inputs[2].name else f"{node.name}_bias"
        return self.names.constant(f"{given}_float", np.ascontiguousarray(values))

    def _bias_behind(self, node: Node, channels: int) -> Constant | None:
        """The constant of the Add behind a MatMul as one of its own, of one dimension, which the kernel takes in."""
        add = self.editor.sole_use(node.outputs[0])
        if not isinstance(add, Node) or add.op != "Add" or not add.standard or not self.editor.local(add):
            return None
        position = 0 if add.inputs[1] is node.outputs[0] else 1
        given = add.inputs[position]
        values = fixed_value(given, self.editor.graph)
        if values is None or values.dtype != np.float32 or values.size != channels or values.shape[-1:] != (channels,):
            return None
        if values.ndim > 1 and (add.outputs[0].shape is None or values.ndim > len(add.outputs[0].shape)):
            return None
        if node.outputs[0].shape is None or len(node.outputs[0].shape) < values.ndim:
            return None  # the sum has more dimensions than the product
        own = self.names.constant(f"{given.name}_float", values.reshape(channels))
        self.replaced.append(given)
        add.inputs[:] = [node.outputs[0], own]
        return own

    def _like(self, tensor: Tensor, stem: str, dtype: str) -> Variable:
        shape = None if tensor.shape is None else list(tensor.shape)
        return Variable(self.names.take(stem), np.dtype(dtype), shape)

    def _add(self, op: str, attrs: dict[str, int], inputs: list[Tensor], output: Tensor) -> None:
        self.editor.add(Node(op, self.names.take(f"{output.name}_{op}"), attrs, inputs, [output]))

    # ---- LSTM

    def lstm(self, node: Node) -> Coded:
        """Write an LSTM whose weights `lstm_reason` accepts."""
        where = describe(node)
        parts: list[tuple[Constant, Constant, Constant]] = []
        for tensor in node.inputs[1:3]:
            values = cast(Array, fixed_value(tensor))  # [directions, 4 * hidden, inputs]
            flat = values.reshape(-1, values.shape[2])
            axis = 0 if self.form.per_channel else None
            scales = weight_scales(flat, axis)
            codes = quantize_weight(flat, scales, axis)
            shape = values.shape[:2] if axis is not None else values.shape[:1]
            turned = np.ascontiguousarray(codes.reshape(values.shape).transpose(0, 2, 1))
            parts.append(
                (
                    self.names.constant(f"{tensor.name}_q", turned),
                    self.names.constant(f"{tensor.name}_scale", np.resize(scales, shape)),
                    self.names.constant(f"{tensor.name}_zero_point", np.zeros(shape, np.int8)),
                )
            )
        (w, w_scale, w_zero), (r, r_scale, r_zero) = parts
        self.replaced += node.inputs[1:3]
        rest = [*node.inputs[3:8], *(Variable("") for _ in range(8 - len(node.inputs)))]
        node.inputs[:] = [node.inputs[0], w, r, *rest, w_scale, w_zero, r_scale, r_zero]
        node.op, node.domain = "DynamicQuantizeLSTM", VENDOR
        node.attrs.pop("layout", None)
        return Coded(node, where, w, node.outputs[0], node.outputs[0].name, -1, None, None, 0)


def lstm_reason(node: Node, scope: Graph) -> str | None:
    """Why an LSTM has no dynamic form, or None."""
    weights = [fixed_value(t, scope) for t in node.inputs[1:3]]
    if any(w is None for w in weights):
        return "its weights are not constant"
    if any(w.dtype != np.float32 or not np.isfinite(w).all() or not w.size for w in weights if w is not None):
        return "its weights are not finite float32"
    if node.attrs.get("layout", 0):
        return "its batch comes first (layout), which the int8 kernel does not know"
    if node.attrs.get("input_forget", 0):
        return "its input and forget gates are coupled"
    return None


def drop_replaced(scopes: list[Graph], replaced: list[Tensor]) -> None:
    """Forget the float constants that nothing reads any more."""
    gone = {id(t) for t in replaced if not t.outputs}
    for scope in scopes:
        scope.declared = [c for c in scope.declared if id(c) not in gone]
    for tensor in replaced:
        if not tensor.outputs and tensor.inputs and tensor.inputs[0].op == "Constant":
            detach(tensor.inputs[0])
