"""LSTM, GRU and RNN, step by step, as ONNX defines them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from zc.training.ops.call import Call, NotTrained, Op, Tensor

Activation = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""(what the input adds to the gates, state) -> state; the first part of the state is what is put out."""
_ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softsign": torch.nn.functional.softsign,
    "softplus": torch.nn.functional.softplus,
    "affine": lambda x: x,
    "hardsigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),
}


@dataclass(frozen=True, eq=False)
class _Direction:
    """The weights and activations of one direction."""

    weight: Tensor
    """[gates * H, input]"""
    recurrent: Tensor
    """[gates * H, H]"""
    bias: Tensor
    """[2 * gates * H]: of the input, then of the state."""
    peepholes: Tensor | None
    functions: tuple[Activation, ...]


def _lstm_step(one: _Direction) -> Step:
    f, g, h = one.functions
    size = one.recurrent.shape[1]
    peep = (None,) * 3 if one.peepholes is None else one.peepholes.split(size)  # i, o, f
    state_bias = one.bias[4 * size :]

    def step(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, cell = state
        i, o, forget, c = (x + hidden @ one.recurrent.t() + state_bias).split(size, 1)
        i = f(i if peep[0] is None else i + peep[0] * cell)
        forget = f(forget if peep[2] is None else forget + peep[2] * cell)
        cell = forget * cell + i * g(c)
        o = f(o if peep[1] is None else o + peep[1] * cell)
        return o * h(cell), cell

    return step


def _gru_step(one: _Direction, linear_before_reset: bool) -> Step:
    f, g = one.functions
    size = one.recurrent.shape[1]
    state_bias = one.bias[3 * size :]
    gates, last = one.recurrent[: 2 * size], one.recurrent[2 * size :]
    bias, last_bias = state_bias[: 2 * size], state_bias[2 * size :]

    def step(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = state[0]
        z, r = f(x[:, : 2 * size] + hidden @ gates.t() + bias).split(size, 1)
        if linear_before_reset:
            new = g(x[:, 2 * size :] + r * (hidden @ last.t() + last_bias))
        else:
            new = g(x[:, 2 * size :] + (r * hidden) @ last.t() + last_bias)
        return ((1 - z) * new + z * hidden,)

    return step


def _rnn_step(one: _Direction) -> Step:
    state_bias = one.bias[one.recurrent.shape[1] :]

    def step(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (one.functions[0](x + state[0] @ one.recurrent.t() + state_bias),)

    return step


_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULT = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


def _run(
    step: Step, one: _Direction, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All steps of x [T, B, input]: outputs [T, B, H] and the last state. Rows that ended keep their state."""
    gates = one.weight.shape[0]
    seen = x @ one.weight.t() + one.bias[:gates]
    outs = []
    for t in range(x.shape[0]):
        new = step(seen[t], state)
        if lengths is not None:
            live = (t < lengths)[:, None]
            state = tuple(torch.where(live, n, s) for n, s in zip(new, state, strict=True))
            outs.append(torch.where(live, new[0], torch.zeros_like(new[0])))
        else:
            state = new
            outs.append(new[0])
    return torch.stack(outs), state


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The steps in reverse order, of each row those that it has."""
    if lengths is None:
        return x.flip(0)
    at = torch.arange(x.shape[0], device=x.device)[:, None]
    index = torch.where(at < lengths, lengths - 1 - at, at)
    return x[index, torch.arange(x.shape[1], device=x.device)[None]]


def _recurrent(call: Call, x: Tensor, weight: Tensor, recurrent: Tensor, *rest: Tensor | None) -> tuple[Tensor, ...]:
    bias, lengths, hidden, cell, peepholes = [*rest, *[None] * 5][:5]
    if call.get("clip") is not None or call.get("input_forget", 0):
        raise NotTrained(f"{call.op} with clip or input_forget")
    if call.get("activation_alpha") or call.get("activation_beta"):
        raise NotTrained(f"{call.op} with parameters of activations")
    batch_first = bool(call.get("layout", 0))
    x = x.transpose(0, 1) if batch_first else x
    directions, size = recurrent.shape[0], recurrent.shape[2]
    lengths = None if lengths is None else lengths.to(x.device)
    start = [s.transpose(0, 1) if s is not None and batch_first else s for s in (hidden, cell)]
    zeros = x.new_zeros(x.shape[1], size)
    outs, lasts = [], []
    for d in range(directions):
        back = call.get("direction", "forward") == "reverse" or d == 1
        one = _Direction(
            weight[d],
            recurrent[d],
            x.new_zeros(2 * _GATES[call.op] * size) if bias is None else bias[d],
            None if peepholes is None else peepholes[d],
            _functions(call, d),
        )
        steps = {"LSTM": _lstm_step, "RNN": _rnn_step}
        step = _gru_step(one, bool(call.get("linear_before_reset", 0))) if call.op == "GRU" else steps[call.op](one)
        state = tuple(zeros if s is None else s[d] for s in start[: 2 if call.op == "LSTM" else 1])
        y, last = _run(step, one, _reversed(x, lengths) if back else x, state, lengths)
        outs.append(_reversed(y, lengths) if back else y)
        lasts.append(last)
    y = torch.stack(outs, 1)  # [T, D, B, H]
    ends = [torch.stack([last[i] for last in lasts]) for i in range(len(lasts[0]))]
    if batch_first:
        return (y.permute(2, 0, 1, 3), *(e.transpose(0, 1) for e in ends))
    return (y, *ends)


def _functions(call: Call, direction: int) -> tuple[Activation, ...]:
    default = _DEFAULT[call.op]
    names: Sequence[str] = [str(n).lower() for n in call.get("activations") or default * 2]
    mine = names[direction * len(default) : (direction + 1) * len(default)]
    unknown = [n for n in mine if n not in _ACTIVATIONS]
    if unknown:
        raise NotTrained(f"{call.op} with activation {unknown[0]}")
    return tuple(_ACTIVATIONS[n] for n in mine)


OPS: dict[str, Op] = {"GRU": _recurrent, "LSTM": _recurrent, "RNN": _recurrent}
