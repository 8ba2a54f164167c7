"""An ONNX graph as a torch module: the same numbers, with gradients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from zc.errors import ZcError
from zc.ir.edit import ancestors
from zc.ir.elements import dtype_of
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, describe
from zc.ir.model import Model
from zc.training.ops import OPS
from zc.training.ops.call import Call, Mode, NotTrained
from zc.training.ops.elementwise import as_tensor
from zc.training.roles import Left, Matrices, Role, find_roles
from zc.training.scales import learned_scales
from zc.training.units import units
from zc.training.weights import CodedWeight, FloatWeight, ScaleWeight, Weight

Choose = Callable[[str], bool]
Slot = int
_NOTHING: Slot = 0
"""The slot of an input that is left out; it always holds None."""


@dataclass(eq=False)
class _Step:
    """One node, ready to run."""

    node: Node
    call: Call
    function: Callable[..., Any] | None
    """None for If."""
    inputs: list[Slot]
    outputs: list[Slot]
    bodies: "tuple[_Block, ...]" = ()
    free: list[Slot] = field(default_factory=list)
    """What nothing reads any more."""


@dataclass(eq=False)
class _Block:
    """The nodes of a scope in order, and what it returns."""

    steps: list[_Step]
    outputs: list[Slot]


class GraphModule(torch.nn.Module):
    """A model that computes what onnxruntime computes, and whose weights can be trained.

    `weights` are the trained initializers under their ONNX names; `write` puts them back. Only what the wanted values
    depend on is run. Bodies of If run by their condition.
    """

    def __init__(
        self,
        model: Model,
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] | None = None,
        train: Choose | None = None,
        learn_scales: bool = False,
    ) -> None:
        """Compile the graph.

        inputs: inner values of the main graph that are fed too; what they come from is not run.
        outputs: names of the values to return, the model's outputs by default; inner values of the main graph too.
        train: which weights by name; all by default.
        learn_scales: train the scales of Q/DQ pairs too.

        Raises:
            ZcError: an operator (or a form of it) that there is no torch form of, with its node; no such value.
        """
        super().__init__()
        self.name = model.name
        self.mode = Mode()
        self.inputs = [spec.name for spec in model.inputs]
        self._slots: dict[int, Slot] = {}
        self._base: list[Any] = [None]
        self._away: torch.device | None = None
        values = _values(model)
        self.outputs = list(outputs) if outputs is not None else [o.name for o in model.outputs]
        missing = [name for name in (*inputs, *self.outputs) if name not in values]
        if missing:
            raise ZcError(f"{model.name}: has no value '{missing[0]}'")
        wanted = [values[name] for name in self.outputs]
        given = {t.name: t for t in model.graph.inputs} | {name: values[name] for name in inputs}
        self._fed = {name: self._slot(t) for name, t in given.items()}
        roles, self.left = find_roles(model)
        roles = [role for role in roles if train is None or train(role.constant.name)]
        self.weights: dict[str, Weight] = {}
        self._trained: list[tuple[Slot, Weight]] = []
        self._own = torch.nn.ParameterList()
        self._opset = model.opset
        self._moving = _running_statistics(model)
        self._block = self._compile(model.graph, ancestors(wanted, given.values()), wanted)
        used = [role for role in roles if id(role.read) in self._slots]
        scales = learned_scales(model) if learn_scales else []
        moved = {id(s.parameter) for s in scales if s.own and (train is None or train(s.name))}
        for scale in scales:  # those that hang on a trained one follow, whatever was chosen
            if id(scale.constant) in self._slots and any(id(p) in moved for p in scale.parameters):
                self._trained.append((self._slots[id(scale.constant)], scale))
                self._add(scale)
        for role in used:
            weight = self._weight(role)
            self._trained.append((self._slots[id(role.read)], weight))
            self._add(weight)
        for slot, _ in self._trained:
            self._base[slot] = None
        moving = {self._slots[key] for key in self._moving if key in self._slots}
        self._fold(self._block, moving | {slot for slot, _ in self._trained})
        self._last_uses()

    # ---- use

    def forward(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The wanted values by name. feeds: a tensor for each input of the model that has no default."""
        env = list(self._base)
        self._away = next((v.device for v in feeds.values() if v.device.type != "cpu"), None)
        for slot, weight in self._trained:
            env[slot] = weight.value()
        for name, value in feeds.items():
            env[self._fed[name]] = value
        self._run(self._block, env)
        return dict(zip(self.outputs, (env[slot] for slot in self._block.outputs), strict=True))

    def batch_statistics(self, on: bool) -> None:
        """Let BatchNormalization use the statistics of the batch and move its own, or (off) use its own."""
        self.mode.batch_statistics = on

    def double(self) -> "GraphModule":
        """Compute in float64."""
        self.mode.wide = True
        super().double()
        return self

    def trained(self, decays: bool) -> list[torch.nn.Parameter]:
        """The parameters of weights to which weight decay applies, or of the others; each once."""
        decaying = {id(w.parameter) for w in self.weights.values() if w.decays}
        return [p for p in self.parameters() if (id(p) in decaying) == decays]

    def unit_of(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """What a step of the parameter is measured in: its `units`; of a scale, which is a logarithm, 1."""
        if any(isinstance(w, ScaleWeight) for w in self.weights.values() if w.parameter is parameter):
            return torch.ones((), device=parameter.device)
        return units(parameter)

    def matrices(self) -> dict[torch.nn.Parameter, Matrices]:
        """The parameters that layers multiply with, as matrices; see `Role.matrices`."""
        return {w.parameter: w.matrices for w in self.weights.values() if w.matrices is not None}

    def moving(self) -> list[torch.Tensor]:
        """The statistics of BatchNormalization nodes, as they stand."""
        slots = (self._slots.get(key) for key in self._moving)
        return [self._base[slot] for slot in slots if slot is not None]

    def arrays(self) -> dict[str, Array]:
        """The trained weights, and statistics that moved, as the file stores them."""
        found = {name: weight.array() for name, weight in self.weights.items()}
        for constant in self._moving.values():
            slot = self._slots.get(id(constant))
            if slot is not None:
                found[constant.name] = self._base[slot].detach().cpu().numpy().astype(constant.dtype, copy=True)
        return found

    def write(self, model: Model) -> int:
        """Put the weights into initializers of these names; arrays that stayed equal are left. Their number."""
        arrays, changed = self.arrays(), 0
        for constant in model.constants():
            new = arrays.get(constant.name)
            if new is not None and new.tobytes() != constant.values.tobytes():
                constant.values = new
                changed += 1
        return changed

    # ---- making

    def _slot(self, tensor: Tensor | None) -> Slot:
        if tensor is None or (not tensor.name and not tensor.inputs and not isinstance(tensor, Constant)):
            return _NOTHING
        found = self._slots.get(id(tensor))
        if found is None:
            found = self._slots[id(tensor)] = len(self._base)
            self._base.append(None)
            if isinstance(tensor, Constant):
                self._base[found] = self._constant(tensor)
        return found

    def _constant(self, constant: Constant) -> Any:
        try:
            return as_tensor(constant.values)
        except NotTrained as err:
            raise ZcError(f"{self.name}: initializer '{constant.name}': {err}") from None

    def _compile(self, graph: Graph, wanted: set[int] | None, outputs: Sequence[Tensor]) -> _Block:
        steps = []
        for node in graph.nodes:
            if wanted is None or id(node) in wanted:
                steps.append(self._step(cast(Node, node)))
        return _Block(steps, [self._slot(t) for t in outputs])

    def _step(self, node: Node) -> _Step:
        key = node.op if node.standard else f"{node.domain}.{node.op}"
        bodies: tuple[_Block, ...] = ()
        if key == "If":
            branches = (node.attrs["then_branch"], node.attrs["else_branch"])
            bodies = tuple(self._compile(b, None, b.outputs) for b in branches)
        elif key not in OPS:
            hint = "; run the pass inline first" if not node.standard else ""
            raise ZcError(f"{self.name}: node '{describe(node)}': {key} cannot be trained: it has no torch form{hint}")
        attrs = {
            k: v.values if isinstance(v, Constant) else v for k, v in node.attrs.items() if not isinstance(v, Graph)
        }
        if key == "QuantizeLinear":
            attrs["code_type"] = _code_type(node)
        call = Call(node.op, attrs, self._opset, sum(bool(t.name) for t in node.outputs), self.mode)
        return _Step(
            node,
            call,
            OPS.get(key),
            [self._slot(t) for t in node.inputs],
            [self._slot(t) for t in node.outputs],
            bodies,
        )

    def _weight(self, role: Role) -> Weight:
        if role.kind == "weight":
            return FloatWeight(role)
        scale, zero = (self._reader(t) for t in (*role.reader.inputs[1:3], None)[:2])
        assert scale is not None
        return CodedWeight(role, scale, zero)

    def _reader(self, tensor: Tensor | None) -> Callable[[], torch.Tensor] | None:
        """Reads a constant as the graph sees it: trained, or as it is."""
        slot = self._slot(tensor)
        if slot == _NOTHING:
            return None
        learned = next((weight for at, weight in self._trained if at == slot), None)
        return learned.value if learned is not None else lambda: self._base[slot]

    def _add(self, weight: Weight) -> None:
        self.weights[weight.name] = weight
        follows = isinstance(weight, ScaleWeight) and not weight.own
        if not follows and all(weight.parameter is not known for known in self._own):
            self._own.append(weight.parameter)

    def _fold(self, block: _Block, changing: set[Slot]) -> None:
        """Compute once what depends on constants alone."""
        kept = []
        for step in block.steps:
            for body in step.bodies:
                self._fold(body, changing)
            known = all(s == _NOTHING or (s not in changing and self._base[s] is not None) for s in step.inputs)
            if step.bodies or not known:
                kept.append(step)
                continue
            with torch.no_grad():
                self._execute(step, self._base)
        block.steps = kept

    def _last_uses(self) -> None:
        """Note after which step each computed value can go."""
        keep = set(self._block.outputs)
        last: dict[Slot, _Step] = {}
        for step in self._block.steps:
            for slot in (*step.inputs, *step.outputs, *_read_in(step.bodies)):
                last[slot] = step
        made = {slot for step in self._block.steps for slot in step.outputs}
        for slot, step in last.items():
            if slot in made and slot not in keep and slot != _NOTHING:
                step.free.append(slot)

    # ---- running

    def _run(self, block: _Block, env: list[Any]) -> None:
        for step in block.steps:
            self._execute(step, env)
            for slot in step.free:
                env[slot] = None

    def _execute(self, step: _Step, env: list[Any]) -> None:
        if step.bodies:
            branch = step.bodies[0 if bool(env[step.inputs[0]]) else 1]
            self._run(branch, env)
            for slot, source in zip(step.outputs, branch.outputs, strict=True):
                env[slot] = env[source]
            return
        assert step.function is not None
        try:
            given = [env[slot] for slot in step.inputs]
            result = step.function(step.call, *(given if self._away is None else _brought(given)))
        except NotTrained as err:
            raise ZcError(
                f"{self.name}: node '{describe(step.node)}': cannot be trained: {err} has no torch form"
            ) from None
        if type(result) is tuple:
            for slot, value in zip(step.outputs, result, strict=False):
                env[slot] = value
        else:
            env[step.outputs[0]] = result
        env[_NOTHING] = None

    def _apply(self, fn: Any, recurse: bool = True) -> "GraphModule":
        """Move or cast constants too; sizes and single numbers stay on the host."""
        super()._apply(fn, recurse)
        moved = (torch.is_tensor(v) and v.is_floating_point() and v.dim() > 0 for v in self._base)
        self._base = [fn(v) if move else v for v, move in zip(self._base, moved, strict=True)]
        return self


def _brought(values: list[Any]) -> list[Any]:
    """Floats that were made on the host (fills, ranges), where they meet data on a device. Sizes and indices stay."""
    away = next((v.device for v in values if torch.is_tensor(v) and v.device.type != "cpu"), None)
    if away is None:
        return values
    made = (torch.is_tensor(v) and v.dim() > 0 and v.is_floating_point() for v in values)
    return [v.to(away) if move else v for v, move in zip(values, made, strict=True)]


def _values(model: Model) -> dict[str, Tensor]:
    """The values of the main graph by name."""
    found = {t.name: t for t in model.graph.inputs}
    found.update((t.name, t) for node in model.graph.nodes for t in node.outputs if t.name)
    found.update((t.name, t) for t in model.graph.outputs)
    return found


def _running_statistics(model: Model) -> dict[int, Constant]:
    """Means and variances of BatchNormalization, by id."""
    tensors = [
        t for scope in model.scopes() for n in scope.nodes if n.op == "BatchNormalization" for t in n.inputs[3:5]
    ]
    return {id(t): t for t in tensors if isinstance(t, Constant)}


def _read_in(bodies: Sequence[_Block]) -> list[Slot]:
    """Slots that bodies read; their own among them, which does no harm."""
    found: list[Slot] = []
    for body in bodies:
        found.extend(body.outputs)
        for step in body.steps:
            found.extend(step.inputs)
            found.extend(_read_in(step.bodies))
    return found


def _code_type(node: Node) -> str:
    """The element type that a QuantizeLinear puts out."""
    if len(node.inputs) > 2 and node.inputs[2].name and node.inputs[2].dtype is not None:
        return str(np.dtype(node.inputs[2].dtype).name)
    given = node.attrs.get("output_dtype")
    return str(dtype_of(int(given)).name) if given else "uint8"


__all__ = ["GraphModule", "Left", "Weight"]
