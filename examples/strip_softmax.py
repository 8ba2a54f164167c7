"""A pass of one's own: `zc opt model.onnx --plugin examples/strip_softmax.py -p strip-softmax -o logits.onnx`."""

from dataclasses import dataclass
from typing import ClassVar

from zc.ir.edit import Editor, Names, detach
from zc.ir.model import Model
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class StripSoftmax(Pass):
    """Let the model return logits: drop the Softmax that makes an output.

    before:  x -> Gemm -> Softmax -> probs
    after:   x -> Gemm -> probs
    """

    name: ClassVar[str] = "strip-softmax"

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Drop each Softmax whose output the model returns; inner ones stay, with the reason."""
        result, editor = PassResult(changed=False), Editor(model.graph, Names(model.graph))
        for node in model.nodes("Softmax"):
            why = None if editor.is_output(node.outputs[0]) else "its output is used inside the model"
            why = why or editor.forward(node.outputs[0], node.inputs[0])
            if why:
                result.declined(node.name, why)
            else:
                detach(node)
                result.changed = True
        editor.finish()
        return result
