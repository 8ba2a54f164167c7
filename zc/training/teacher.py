"""The teacher of a distillation: a model that is only asked, so it runs where asking costs least."""

from collections.abc import Sequence

import torch

from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model
from zc.training.devices import as_image, gains_by_bfloat16
from zc.training.graph import GraphModule
from zc.training.ops.call import Tensor

_CODES = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_QUIET = {"session.intra_op.allow_spinning": "0"}
"""Threads that wait for the next batch would take time from the student's."""


class Teacher:
    """Inner values and outputs of a frozen model, by name. Called as a `GraphModule` is.

    On a processor without bfloat16 onnxruntime runs it: fused, in layouts of its own, it takes 0.4 to 0.6 of the time
    that torch takes. Where torch trains in bfloat16 its own half costs less; codes and gradients are torch's too.
    """

    def __init__(self, model: Model, outputs: Sequence[str]) -> None:
        """outputs: names of the values to return. ZcError: a node has no torch form."""
        self.model, self.outputs = model, list(outputs)
        self.module = GraphModule(model, outputs=self.outputs, train=lambda name: False)
        self._session: Runner | None = None

    def place(self, device: torch.device, *, sloped: bool) -> None:
        """Settle where it runs from now on. sloped: are its gradients by the input wanted?"""
        self.module.to(device)
        coded = any(node.op in _CODES for scope in self.model.scopes() for node in scope.nodes)
        if device.type != "cpu" or sloped or coded or gains_by_bfloat16(device):
            self._session = None
            return
        try:
            threads = torch.get_num_threads()
            self._session = Runner(self.model, outputs=self.outputs, threads=threads, config=_QUIET)
        except ZcError:  # torch can ask for more, such as inputs as values
            self._session = None

    @property
    def in_session(self) -> bool:
        """Does onnxruntime run it?"""
        return self._session is not None

    def __call__(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        """The values for a batch; without gradients where onnxruntime runs it."""
        if self._session is None:
            return dict(self.module(feeds))
        values = self._session.run({name: feed.numpy() for name, feed in feeds.items()})
        return {name: as_image(torch.from_numpy(value)) for name, value in values.items()}
