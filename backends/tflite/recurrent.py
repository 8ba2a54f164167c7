"""LSTM, GRU and RNN, written out step by step.

LiteRT has a kernel for a whole LSTM (UNIDIRECTIONAL_SEQUENCE_LSTM), but it keeps its state from one call to the next;
in ONNX every call begins anew. Written out, a file is a function of its inputs, and XNNPACK runs the steps. What does
not hang on the step before, the product with the input weights, is one product over all steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from zc.backends.tflite.elementwise import Rule
from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Array, Node, Tensor, attribute

STEPS = 512
"""Most steps that are written out."""

_KERNELS = {"sigmoid": "LOGISTIC", "tanh": "TANH", "relu": "RELU"}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}

State = tuple[FlatTensor | None, FlatTensor | None]
"""Output and cell; None is zero."""


@dataclass(frozen=True)
class Cell:
    """One direction of a node."""

    lowering: Lowering
    node: Node
    recurrent: Array
    """float32[gates * hidden, hidden]."""
    bias: Array
    """float32[gates * hidden] of the recurrent product."""
    kernels: tuple[str, ...]
    """Of the activations."""

    @property
    def hidden(self) -> int:
        """Numbers in the state."""
        return int(self.recurrent.shape[1])

    def step(self, given: FlatTensor, state: State) -> State:
        """The state after a step; given: float32[N, gates * hidden], the product with the input weights."""
        return {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.node.op](given, state)

    def _do(self, code: str, *given: FlatTensor) -> FlatTensor:
        return self.lowering.apply(code, *given)

    def _product(self, state: FlatTensor, rows: slice, biased: bool) -> FlatTensor:
        weight = self.recurrent[rows]
        bias = self.bias[rows] if biased else np.zeros(len(weight), np.float32)
        parts = [self.lowering.array(one, "recurrent") for one in (weight, bias)]
        return self.lowering.apply("FULLY_CONNECTED", state, *parts, shape=(state.shape[0], len(weight)))

    def _gates(self, value: FlatTensor, count: int) -> list[FlatTensor]:
        axis = self.lowering.array(np.array(1, np.int32), "axis")
        outs = [self.lowering.like(value, (value.shape[0], self.hidden)) for _ in range(count)]
        self.lowering.op("SPLIT", [axis, value], outs, numSplits=count)
        return outs

    def _lstm(self, given: FlatTensor, state: State) -> State:
        before, cell = state
        everything = slice(0, len(self.recurrent))
        total = given if before is None else self._do("ADD", given, self._product(before, everything, biased=False))
        entry, exit_, forget, fresh = self._gates(total, 4)
        gate, squash, last = self.kernels
        new = self._do("MUL", self._do(gate, entry), self._do(squash, fresh))
        if cell is not None:
            new = self._do("ADD", new, self._do("MUL", self._do(gate, forget), cell))
        return self._do("MUL", self._do(gate, exit_), self._do(last, new)), new

    def _gru(self, given: FlatTensor, state: State) -> State:
        before, size = state[0], self.hidden
        keep, reset, fresh = self._gates(given, 3)
        gate, squash = self.kernels
        late = bool(attribute(self.node, "linear_before_reset", 0))
        rest = slice(2 * size, 3 * size)
        if before is not None:
            both = self._gates(self._product(before, slice(0, 2 * size), biased=False), 2)
            keep, reset = (self._do("ADD", a, b) for a, b in zip((keep, reset), both, strict=True))
        reset = self._do(gate, reset)
        if late and before is not None:
            fresh = self._do("ADD", fresh, self._do("MUL", reset, self._product(before, rest, biased=True)))
        elif late:
            fresh = self._do("ADD", fresh, self._do("MUL", reset, self.lowering.array(self.bias[rest], "bias")))
        elif before is not None:
            fresh = self._do("ADD", fresh, self._product(self._do("MUL", reset, before), rest, biased=False))
        fresh, keep = self._do(squash, fresh), self._do(gate, keep)
        new = self._do("SUB", fresh, self._do("MUL", keep, fresh))
        if before is not None:
            new = self._do("ADD", new, self._do("MUL", keep, before))
        return new, None

    def _rnn(self, given: FlatTensor, state: State) -> State:
        before = state[0]
        everything = slice(0, len(self.recurrent))
        total = given if before is None else self._do("ADD", given, self._product(before, everything, biased=False))
        return self._do(self.kernels[0], total), None


def recurrent(lowering: Lowering, node: Node) -> None:
    """LSTM, GRU or RNN in either direction or both."""
    _refuse(lowering, node)
    first = bool(attribute(node, "layout", 0))
    data = node.inputs[0]
    source = lowering.read(data, (1, 0, 2) if first else (0, 1, 2))
    steps = source.shape[0]
    if steps < 0:
        raise lowering.open_size("an open number of steps")
    if steps > STEPS:
        raise lowering.fail(f"{steps} steps; at most {STEPS} are written out", "run it on shorter pieces")
    direction = attribute(node, "direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    rows, ends, cells = [], [], []
    for i in range(count):
        backward = direction == "reverse" or i == 1
        states = _direction(lowering, node, source, i, backward)
        outs = [cast(FlatTensor, state[0]) for state in states]
        ends.append(outs[0 if backward else -1])
        cells.append(states[0 if backward else -1][1])
        shape = (steps, *outs[0].shape)
        stacked = lowering.apply("PACK", *outs, shape=shape, valuesCount=steps, axis=0)
        rows.append(lowering.reshape(stacked, (steps, 1, *outs[0].shape)))
    _bind(lowering, node, 0, rows, 1, (1, 2, 0, 3) if first else (0, 1, 2, 3))
    state = (1, 0, 2) if first else (0, 1, 2)
    flat = [lowering.reshape(one, (1, *one.shape)) for one in ends]
    _bind(lowering, node, 1, flat, 0, state)
    if node.op == "LSTM":
        held = [lowering.reshape(one, (1, *one.shape)) for one in cells if one is not None]
        _bind(lowering, node, 2, held, 0, state)


def _refuse(lowering: Lowering, node: Node) -> None:
    if "clip" in node.attrs or attribute(node, "input_forget", 0):
        raise lowering.fail("clip or input_forget")
    lengths = node.inputs[4] if len(node.inputs) > 4 and node.inputs[4].name else None
    if lengths is not None:
        values = lowering.constant(lengths)
        if values is None or (values != lowering.sizes(node.inputs[0])[0]).any():
            raise lowering.fail("rows of differing length", "pad them to one")
    if len(node.inputs) > 7 and node.inputs[7].name:
        raise lowering.fail("peepholes")


def _direction(lowering: Lowering, node: Node, source: FlatTensor, index: int, backward: bool) -> list[State]:
    """The states after each step, in the order of time."""
    weight, inner, bias = (_weights(lowering, node, position, index) for position in (1, 2, 3))
    assert weight is not None
    assert inner is not None
    half = len(weight)
    both = np.zeros(2 * half, np.float32) if bias is None else bias
    outer, own = both[:half], both[half:]
    size = inner.shape[1]
    # The recurrent bias stands with the input's, but where GRU's reset gate comes between.
    late = node.op == "GRU" and bool(attribute(node, "linear_before_reset", 0))
    merged = outer + np.where(np.arange(half) < (2 * size if late else half), own, 0)
    given = lowering.apply(
        "FULLY_CONNECTED",
        source,
        lowering.array(weight, "weight"),
        lowering.array(merged.astype(np.float32), "bias"),
        shape=(*source.shape[:2], half),
        keepNumDims=True,
    )
    names = attribute(node, "activations", _DEFAULTS[node.op] * 2)
    each = len(_DEFAULTS[node.op])
    kernels = tuple(_KERNELS.get(name.lower(), "") for name in names[index * each : (index + 1) * each])
    if "" in kernels:
        raise lowering.fail(f"activations {', '.join(names)}; written out are sigmoid, tanh and relu")
    cell = Cell(lowering, node, inner, own, kernels)
    parts = [lowering.like(given, given.shape[1:]) for _ in range(source.shape[0])]
    lowering.op("UNPACK", [given], parts, num=len(parts), axis=0)
    state: State = (_initial(lowering, node, 5, index), _initial(lowering, node, 6, index))
    states: list[State] = []
    for part in parts[::-1] if backward else parts:
        state = cell.step(part, state)
        states.append(state)
    return states[::-1] if backward else states


def _weights(lowering: Lowering, node: Node, position: int, index: int) -> Array | None:
    if len(node.inputs) <= position or not node.inputs[position].name:
        return None
    values = lowering.constant(node.inputs[position])
    if values is None:
        raise lowering.fail("weights computed at run time", "make them initializers")
    return np.asarray(values[index], np.float32)


def _initial(lowering: Lowering, node: Node, position: int, index: int) -> FlatTensor | None:
    """A state to begin with; None for zero."""
    if len(node.inputs) <= position or not node.inputs[position].name:
        return None
    tensor = node.inputs[position]
    values = lowering.constant(tensor) if lowering.known(tensor) else None
    if values is not None and not values.any():
        return None
    states = lowering.read(tensor, (1, 0, 2) if attribute(node, "layout", 0) else (0, 1, 2))
    shape = states.shape[1:]
    if states.shape[0] == 1:
        return lowering.reshape(states, shape)
    ends = [lowering.integers([one, 0, 0]) for one in (index, index + 1)]
    steps = lowering.integers([1, 1, 1])
    part = lowering.apply("STRIDED_SLICE", states, *ends, steps, shape=(1, *shape), beginMask=6, endMask=6)
    return lowering.reshape(part, shape)


def _bind(
    lowering: Lowering, node: Node, position: int, parts: Sequence[FlatTensor], axis: int, layout: tuple[int, ...]
) -> None:
    """Bind an output to its directions side by side."""
    if len(node.outputs) <= position or not node.outputs[position].name:
        return
    out: Tensor = node.outputs[position]
    if len(parts) == 1:
        lowering.bind(out, parts[0], layout)
        return
    shape = list(parts[0].shape)
    shape[axis] = len(parts)
    lowering.bind(out, lowering.apply("CONCATENATION", *parts, shape=tuple(shape), axis=axis), layout)


RULES: dict[str, Rule] = dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent)
