"""A pass that an installed package brings along."""

from dataclasses import dataclass
from typing import ClassVar

from zc.ir.edit import Names
from zc.ir.graph import fixed_value
from zc.ir.model import Model
from zc.pipeline.base import Context, Pass, PassResult


@dataclass(frozen=True)
class SubToAdd(Pass):
    """Subtract a constant by adding its negative.

    before:  y = Sub(x, c)          after:  y = Add(x, -c)
    """

    name: ClassVar[str] = "sub-to-add"
    exact: ClassVar[bool] = True

    limit: int = 0
    """Rewrite at most this many; 0: all."""

    def run(self, model: Model, ctx: Context) -> PassResult:
        result, names = PassResult(changed=False, stats={"rewritten": 0}), Names(model.graph)
        for done, node in enumerate(model.nodes("Sub")):
            value = fixed_value(node.inputs[1], model.graph)
            if value is None:
                result.declined(node.name, "what it subtracts is no constant")
            elif not self.limit or done < self.limit:
                node.op, node.inputs[1] = "Add", names.constant(f"{node.inputs[1].name}_negated", -value)
                result.changed = True
                result.stats["rewritten"] = done + 1
        return result
