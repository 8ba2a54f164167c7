"""A session: a quantised model, run in integers, with onnxruntime's calling convention."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zc.errors import ZcError, nearest
from zc.ir.graph import Array, Constant, describe
from zc.ir.model import Model, load
from zc.ir.shapes import infer_shapes
from zc.ir.spec import TensorSpec
from zc.runtime.crew import Crew
from zc.runtime.doubled import merge_doubled_pairs
from zc.runtime.islands import IslandRunner, cut_out
from zc.runtime.modes import in_fixed_point, rounding_of
from zc.runtime.plan import Plan, Setting
from zc.runtime.recognize import recognize
from zc.runtime.settle import settle_constants
from zc.runtime.types import code_types

PLANS = 8
"""Plans kept, for the shapes that were used last."""


@dataclass(frozen=True)
class FloatNode:
    """A node that runs in onnxruntime, in float, and why."""

    node: str
    op: str
    reason: str


class Session:
    """Runs a quantised model: bit for bit what onnxruntime's default level computes on x86, in our own kernels.

    Which options that onnxruntime has, `reference.session_options` says. What has no kernel on codes runs in
    onnxruntime (`float_nodes`).
    """

    def __init__(self, model: Model | str | Path, *, threads: int = 1, strict: bool = False, mode: str = "ort") -> None:
        """Read a model and recognise what it computes.

        threads: that share the work of every operation. strict: refuse a model of which a part would run in float.
        mode: how results become codes, one of `modes.Mode`.

        Raises:
            ZcError: no usable model, not quantised, a scale of zero, an unknown mode; if strict, nodes without a
                kernel on codes; in modes but `ort`, nodes without a rule.
        """
        rounding = rounding_of(mode)
        if threads < 1:
            raise ZcError(f"threads must be at least 1, got {threads}")
        self._model = model.copy() if isinstance(model, Model) else load(model)
        self.name = self._model.name
        infer_shapes(self._model)
        settle_constants(self._model)
        if rounding is None:
            merge_doubled_pairs(self._model)
        types = code_types(self._model)
        self.signed = np.dtype(np.int8) in types.values()
        """Has it int8 activations?"""
        recognized = recognize(self._model)
        self.inputs: tuple[TensorSpec, ...] = self._model.inputs
        self.outputs: tuple[TensorSpec, ...] = self._model.outputs
        self.float_nodes = tuple(
            FloatNode(describe(node), node.op, why)
            for island in recognized.islands
            for node, why in zip(island.nodes, island.reasons, strict=True)
            if node.op not in ("QuantizeLinear", "DequantizeLinear", "Constant")
        )
        if strict and recognized.islands:
            self._refuse()
        self.ops = recognized.ops if rounding is None else in_fixed_point(self.name, recognized.ops, rounding)
        tensors = self._model.graph.tensors()
        islands = {
            id(op): IslandRunner(
                cut_out(self._model, op.nodes, [tensors[n] for n in op.inputs], [tensors[n] for n in op.outputs]),
                threads,
                signed=self.signed,
            )
            for op in recognized.islands
        }
        self._setting = Setting(
            name=self.name,
            ops=self.ops,
            threads=threads,
            constants={n: t.values for n, t in tensors.items() if isinstance(t, Constant)},
            types=types,
            signed=frozenset(n for n, kind in types.items() if kind == np.int8),
            outputs=tuple(o.name for o in self.outputs),
            islands=islands,
            rounding=rounding,
            crew=Crew(threads - 1) if threads > 1 else None,
        )
        self._plans: OrderedDict[tuple[Any, ...], Plan] = OrderedDict()
        self._lock = threading.Lock()
        self._fitting: set[tuple[str, np.dtype[Any], tuple[int, ...]]] | None = None

    def _refuse(self) -> None:
        shown = "; ".join(f"{n.op} '{n.node}': {n.reason}" for n in self.float_nodes[:5])
        more = f"; and {len(self.float_nodes) - 5} more" if len(self.float_nodes) > 5 else ""
        raise ZcError(
            f"{self.name}: strict: {len(self.float_nodes)} nodes have no kernel on codes: {shown}{more}; "
            "quantise them too, or allow float islands"
        )

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, npt.ArrayLike]) -> list[Array]:
        """The outputs of these names (all of them, if None), as a list.

        Raises:
            ZcError: a name, shape or element type that the model does not have.
        """
        known = self._setting.outputs
        names = known if output_names is None else list(output_names)
        for name in names:
            if name not in known:
                raise ZcError(f"{self.name}: no output '{name}'{nearest(name, list(known))}; it has {', '.join(known)}")
        values = self.values(self._checked(feeds))
        return [values[name] for name in names]

    def values(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs and the values between islands, by name."""
        with self._lock:  # the arena belongs to one run at a time
            return self.plan({n: a.shape for n, a in arrays.items()}).run(arrays)

    def plan(self, shapes: Mapping[str, tuple[int, ...]]) -> Plan:
        """The plan for inputs of these shapes, made when it is first needed."""
        key = tuple(sorted(shapes.items()))
        if key not in self._plans:
            self._plans[key] = Plan(self._setting, shapes)
            if len(self._plans) > PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return self._plans[key]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Those in store, the last used last."""
        return tuple(self._plans.values())

    def _checked(self, feeds: Mapping[str, npt.ArrayLike]) -> Mapping[str, Array]:
        """The feeds as arrays that fit the model. What was checked before, by its types and shapes, is not again."""
        arrays = {name: array for name, array in feeds.items() if isinstance(array, np.ndarray)}
        kinds = {(name, array.dtype, array.shape) for name, array in arrays.items()}
        if len(arrays) == len(feeds) and kinds == self._fitting:
            return arrays
        checked = self._fitted(feeds)
        self._fitting = {(name, array.dtype, array.shape) for name, array in checked.items()}
        return checked

    def _fitted(self, feeds: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        known = [i.name for i in self.inputs]
        for name in feeds:
            if name not in known:
                raise ZcError(f"{self.name}: no input '{name}'{nearest(name, known)}; it has {', '.join(known)}")
        arrays: dict[str, Array] = {}
        symbols: dict[str, int] = {}
        for spec in self.inputs:
            if spec.name not in feeds:
                raise ZcError(f"{self.name}: input '{spec.name}' is not fed; it takes {spec}")
            array = np.asarray(feeds[spec.name])
            if spec.dtype is not None and array.dtype != spec.dtype:
                raise ZcError(
                    f"{self.name}: input '{spec.name}' takes {spec.dtype}, not {array.dtype}; convert it with "
                    f"array.astype('{spec.dtype}')"
                )
            fits = spec.shape is None or len(spec.shape) == array.ndim
            for want, have in zip(spec.shape or (), array.shape, strict=False):
                if isinstance(want, str):
                    fits &= symbols.setdefault(want, have) == have
                elif want is not None:
                    fits &= want == have
            if not fits:
                raise ZcError(f"{self.name}: input '{spec.name}' takes {spec}, not shape {list(array.shape)}")
            if array.size == 0:
                raise ZcError(f"{self.name}: input '{spec.name}' has shape {list(array.shape)}, which holds nothing")
            arrays[spec.name] = array
        return arrays
