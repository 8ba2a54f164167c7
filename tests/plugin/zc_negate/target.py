"""A place of deployment that an installed package brings along."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from zc.backends.base import Artifact, Backend
from zc.backends.rules import Rule, at_nodes
from zc.errors import ZcError
from zc.ir.files import write_atomically
from zc.ir.graph import describe
from zc.ir.model import Model
from zc.ir.text import print_model
from zc.pipeline.base import Context
from zc.target import Target


@dataclass(frozen=True)
class Listing(Backend):
    """A place that reads canonical text, of additions and convolutions alone."""

    name: ClassVar[str] = "listing"
    suffixes: ClassVar[tuple[str, ...]] = (".listing",)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "no-sub",
            "There is no Sub.",
            "the manual of the place, section 1",
            "run sub-to-add",
            at_nodes(lambda node: "it subtracts", "Sub"),
        ),
    )

    weights: Literal["hash", "shape"] = "hash"
    """What stands for weights."""

    @property
    def target(self) -> Target:
        return Target("listing", activations="int8", weighted_ops=frozenset({"Conv"}))

    def legalise(self, model: Model) -> str:
        return "sub-to-add"

    def emit(self, model: Model, path, ctx: Context) -> Artifact:
        strange = next((n for n in model.nodes() if n.op not in ("Add", "Conv", "Sub")), None)
        if strange is not None:
            raise ZcError(f"{model.name}: node '{describe(strange)}': listing has no form of {strange.op}")
        text = print_model(model, weights=self.weights).encode()
        write_atomically(path, lambda file: file.write(text))
        return Artifact(path, len(text), facts={"nodes": str(len(model.graph.nodes))})


BACKEND = Listing()
