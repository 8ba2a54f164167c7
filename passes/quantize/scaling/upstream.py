"""Which values are rounded to codes on the way to the one that a layer reads."""

from zc.ir.graph import Node, Tensor
from zc.passes.quantize.operators import data_inputs
from zc.passes.quantize.placement import place
from zc.passes.quantize.scaling.flow import Flow
from zc.target import Target

_SUMS = frozenset({"Add", "Sub", "Sum", "Concat"})
"""What passes the rounding of all its inputs on; a pool averages it away."""


class Rounding:
    """What a target would run in integers of a model, as far as it adds noise to what layers read."""

    def __init__(self, flow: Flow, target: Target) -> None:
        placement = place(flow.model.graph, target, lambda node: None)
        self._flow = flow
        self._sums = {id(n) for n in placement.integer if n.op in _SUMS}
        absorbed = [n for chain in placement.absorbed.values() for n in chain]
        self._passing = {id(n) for n in (*placement.transparent, *absorbed)}

    def before(self, value: Tensor) -> list[Tensor]:
        """The values whose rounding adds to that of `value`: what meets in a sum or a Concat that runs in integers.

        Conv -> a ---> Add -> Relu -> value          a and b are rounded, and then their sum
        ....... b -/
        """
        found: dict[int, Tensor] = {}
        stack = [value]
        while stack:
            for node in stack.pop().inputs:
                assert isinstance(node, Node)
                inputs: list[Tensor] = []
                if id(node) in self._sums:
                    inputs = [t for t in data_inputs(node) if id(t) in self._flow.layouts and id(t) not in found]
                    found.update({id(t): t for t in inputs})
                elif id(node) in self._passing:
                    inputs = [node.inputs[0]]
                stack += inputs
        found.pop(id(value), None)
        return list(found.values())
