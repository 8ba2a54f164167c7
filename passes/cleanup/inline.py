"""inline: the functions of a model dissolve into the nodes that they stand for."""

from dataclasses import dataclass
from typing import ClassVar

from onnx import inliner

from zc.errors import ZcError
from zc.ir.model import Model
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class Inline(Pass):
    """Replace calls of the model's own functions by the nodes of the functions (onnx.inliner).

    before:  y = my.gelu(x);   function my.gelu(a) { b = Erf(a); ... return c }
    after:   b = Erf(x); ...; y = c
    """

    name: ClassVar[str] = "inline"
    exact: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Inline all calls; declines functions whose operator sets differ from the model's."""
        return inline(model)


def inline(model: Model) -> PassResult:
    """Inline what can be. See `Inline`."""
    before = len(model.graph.functions)
    if not before:
        return PassResult(False)
    try:
        proto = inliner.inline_local_functions(model.to_proto())
        flat = Model.from_proto(proto, model.path)
    except (ZcError, RuntimeError, ValueError) as err:
        result = PassResult(False)
        result.declined(model.name, f"its functions stay: {' '.join(str(err).split())}")
        return result
    flat.notes = model.notes
    left = list(flat.graph.functions)
    result = PassResult(len(left) < before, {"functions": before - len(left)} if len(left) < before else {})
    for function in left:
        result.declined(f"{function.domain}::{function.name}", "it uses operator sets of other versions than the model")
    if result.changed:
        model.take(flat)
    return result
