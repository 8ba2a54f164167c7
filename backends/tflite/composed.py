"""Element-wise operators without a kernel of their own, written out in those that there are."""

from collections.abc import Callable
from functools import partial

import numpy as np

from zc.backends.tflite.broadcast import operands
from zc.backends.tflite.elementwise import Rule, emit_wide
from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Node, attribute


class Terms:
    """Arithmetic on tensors of one shape as expressions, with numbers as constants."""

    def __init__(self, lowering: Lowering, kind: np.dtype[np.generic]) -> None:
        self.lowering, self.kind = lowering, kind

    def _tensor(self, x: FlatTensor | float) -> FlatTensor:
        return x if isinstance(x, FlatTensor) else self.lowering.array(np.array(x, self.kind))

    def __call__(self, code: str, *given: FlatTensor | float) -> FlatTensor:
        """One kernel; the shape is that of the first tensor."""
        shape = next(x.shape for x in given if isinstance(x, FlatTensor))
        return self.lowering.apply(code, *map(self._tensor, given), shape=shape)


Formula = Callable[[Terms, FlatTensor, Node], FlatTensor]


def written_out(formula: Formula, lowering: Lowering, node: Node) -> None:
    """A rule for an operator on one value."""
    data = node.inputs[0]
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    if source.dtype.kind != "f":
        raise lowering.fail(f"it computes in {source.dtype}", "cast its input to float32")
    lowering.bind(node.outputs[0], formula(Terms(lowering, source.dtype), source, node), layout)


def _softplus(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    """max(x, 0) + log(1 + exp(-|x|)): exp cannot overflow."""
    small = do("EXP", do("NEG", do("ABS", x)))
    return do("ADD", do("RELU", x), do("LOG", do("ADD", small, 1.0)))


def _erf(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    """Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: wrong by at most 1.5e-7."""
    size = do("ABS", x)
    t = do("DIV", do("ADD", do("MUL", size, 0.0), 1.0), do("ADD", do("MUL", size, 0.3275911), 1.0))
    series = do("MUL", t, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = do("MUL", do("ADD", series, factor), t)
    rest = do("MUL", series, do("EXP", do("NEG", do("MUL", x, x))))
    return do("MUL", do("SIGN", x), do("ADD", do("NEG", rest), 1.0))


def _exponential_below(do: Terms, x: FlatTensor, alpha: float, width: float) -> FlatTensor:
    """max(x, 0) + alpha * (exp(min(x, 0) / width) - 1)."""
    low = do("MUL", do("MINIMUM", x, 0.0), 1.0 / width)
    return do("ADD", do("RELU", x), do("MUL", do("SUB", do("EXP", low), 1.0), alpha))


def _elu(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    alpha = float(attribute(node, "alpha", 1.0))
    return do("ELU", x) if alpha == 1.0 else _exponential_below(do, x, alpha, 1.0)


def _selu(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    alpha = float(attribute(node, "alpha", 1.67326319217681884765625))
    return do("MUL", _exponential_below(do, x, alpha, 1.0), float(attribute(node, "gamma", 1.05070102214813232421875)))


def _celu(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    alpha = float(attribute(node, "alpha", 1.0))
    return _exponential_below(do, x, alpha, alpha)


def _hard_sigmoid(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    line = do("ADD", do("MUL", x, float(attribute(node, "alpha", 0.2))), float(attribute(node, "beta", 0.5)))
    return do("MINIMUM", do("MAXIMUM", line, 0.0), 1.0)


def _root_beside(do: Terms, x: FlatTensor, code: str) -> FlatTensor:
    """sqrt(x*x + 1), or with SUB sqrt(1 - x*x)."""
    square = do("MUL", x, x)
    return do("SQRT", do("ADD", square, 1.0) if code == "ADD" else do("ADD", do("NEG", square), 1.0))


def _atan2(do: Terms, y: FlatTensor | float, x: FlatTensor | float) -> FlatTensor:
    """ATAN2, which broadcasts nothing."""
    like = y if isinstance(y, FlatTensor) else x
    assert isinstance(like, FlatTensor)
    both = [one if isinstance(one, FlatTensor) else do("ADD", do("MUL", like, 0.0), one) for one in (y, x)]
    return do("ATAN2", *both)


def _half_difference(do: Terms, x: FlatTensor, sign: str) -> FlatTensor:
    """(exp(x) + exp(-x)) / 2, or with SUB the difference."""
    return do("MUL", do(sign, do("EXP", x), do("EXP", do("NEG", x))), 0.5)


def _asinh(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    size = do("ABS", x)
    return do("MUL", do("SIGN", x), do("LOG", do("ADD", size, _root_beside(do, x, "ADD"))))


def _acosh(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    return do("LOG", do("ADD", x, do("SQRT", do("SUB", do("MUL", x, x), 1.0))))


def _atanh(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    return do("MUL", do("LOG", do("DIV", do("ADD", x, 1.0), do("ADD", do("NEG", x), 1.0))), 0.5)


def _shrink(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    """X - bias above lambd, x + bias below -lambd, else 0."""
    edge, bias = float(attribute(node, "lambd", 0.5)), float(attribute(node, "bias", 0.0))
    outside = do.lowering.apply("GREATER", do("ABS", x), do.lowering.array(np.array(edge, np.float32)), dtype=np.bool_)
    moved = do("SUB", x, do("MUL", do("SIGN", x), bias))
    return do.lowering.apply("SELECT_V2", outside, moved, do("MUL", x, 0.0), dtype=np.float32)


def _thresholded(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    edge = do.lowering.array(np.array(float(attribute(node, "alpha", 1.0)), np.float32))
    above = do.lowering.apply("GREATER", x, edge, dtype=np.bool_)
    return do.lowering.apply("SELECT_V2", above, x, do("MUL", x, 0.0), dtype=np.float32)


def _tested(code: str, lowering: Lowering, node: Node) -> None:
    """IsNaN and IsInf as comparisons."""
    data, out = node.inputs[0], node.outputs[0]
    layout = lowering.layout(data)
    x = lowering.read(data, layout)
    made = lowering.out(out, layout)
    if code == "nan":
        lowering.op("NOT_EQUAL", [x, x], [made])
        return
    up, down = bool(attribute(node, "detect_positive", 1)), bool(attribute(node, "detect_negative", 1))
    if not (up or down):
        raise lowering.fail("it detects nothing")
    value = lowering.apply("ABS", x) if up and down else x
    infinite = lowering.array(np.array(np.inf if up else -np.inf, np.float32))
    lowering.op("EQUAL", [value, infinite], [made])


def _swish(do: Terms, x: FlatTensor, node: Node) -> FlatTensor:
    alpha = float(attribute(node, "alpha", 1.0))
    return do("MUL", x, do("LOGISTIC", x if alpha == 1.0 else do("MUL", x, alpha)))


def _shift(lowering: Lowering, node: Node) -> None:
    """BitShift of unsigned numbers; to the left by constants, as a product."""
    layout, both = operands(lowering, node.inputs, node.outputs[0])
    if both[0].dtype.kind != "u":
        raise lowering.fail(f"a shift of {both[0].dtype}; that of negative numbers is not defined")
    if attribute(node, "direction", "") == "RIGHT":
        emit_wide(lowering, "RIGHT_SHIFT", both, lowering.out(node.outputs[0], layout))
        return
    if both[1].data is None:
        raise lowering.fail("to the left by numbers computed at run time", "make them an initializer")
    powers = lowering.array(np.left_shift(np.ones((), both[1].dtype), both[1].data), "powers")
    emit_wide(lowering, "MUL", [both[0], powers], lowering.out(node.outputs[0], layout))


FORMULAS: dict[str, Formula] = {
    "Reciprocal": lambda do, x, node: do("DIV", do("ADD", do("MUL", x, 0.0), 1.0), x),
    "Softplus": _softplus,
    "Softsign": lambda do, x, node: do("DIV", x, do("ADD", do("ABS", x), 1.0)),
    "Mish": lambda do, x, node: do("MUL", x, do("TANH", _softplus(do, x, node))),
    "Swish": _swish,
    "Erf": _erf,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "HardSigmoid": _hard_sigmoid,
    "Shrink": _shrink,
    "ThresholdedRelu": _thresholded,
    "Tan": lambda do, x, node: do("DIV", do("SIN", x), do("COS", x)),
    "Asin": lambda do, x, node: _atan2(do, x, _root_beside(do, x, "SUB")),
    "Acos": lambda do, x, node: _atan2(do, _root_beside(do, x, "SUB"), x),
    "Atan": lambda do, x, node: _atan2(do, x, 1.0),
    "Sinh": lambda do, x, node: _half_difference(do, x, "SUB"),
    "Cosh": lambda do, x, node: _half_difference(do, x, "ADD"),
    "Asinh": _asinh,
    "Acosh": _acosh,
    "Atanh": _atanh,
}

RULES: dict[str, Rule] = {
    **{op: partial(written_out, formula) for op, formula in FORMULAS.items()},
    "IsNaN": partial(_tested, "nan"),
    "IsInf": partial(_tested, "inf"),
    "BitShift": _shift,
}
