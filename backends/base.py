"""Backend: a place of deployment as a value. What it can run, what must be done first, how its file is written, and
what of a model it does not take.

    @dataclass(frozen=True)
    class Board(Backend):                                  # its docstring is what `zc targets board` shows
        name: ClassVar[str] = "board"
        suffixes: ClassVar[tuple[str, ...]] = (".board",)

        io: Literal["float", "int8"] = "float"             # `--target board:io=int8`; a string below it is its help

        @property
        def target(self) -> Target: ...
        def emit(self, model: Model, path: Path, ctx: Context) -> Artifact: ...

    BACKEND = Board()                                      # named by an entry point of the group `zc.targets`

The fields are the options of the place, as those of a pass are: typed, checked, printed back.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from zc.backends.rules import Rule, Violation, find_violations
from zc.errors import ZcError
from zc.execute import Feeds
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.pipeline.base import Context, Note
from zc.pipeline.manager import Verify, run_pipeline
from zc.pipeline.provenance import extend
from zc.target import Target


@dataclass(frozen=True)
class Artifact:
    """What an emitter wrote."""

    path: Path
    """The file or folder."""
    bytes: int
    """All files together."""
    notes: tuple[Note, ...] = ()
    """What the user must hear of it: what was left float, what the place wants of whoever loads it."""
    facts: dict[str, str] = field(default_factory=dict)
    """Figures and settings, by name, as a person reads them."""


@dataclass(frozen=True)
class Prediction:
    """How a place will run a model, read from the graph."""

    integer: tuple[str, ...] = ()
    """Nodes that run in integers."""
    fused: tuple[tuple[str, str], ...] = ()
    """Nodes that vanish into another, and that other."""
    floats: tuple[tuple[str, str], ...] = ()
    """Nodes that stay float, and why."""


class Engine(Protocol):
    """Something that runs a written artifact."""

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """All outputs of one feed, by the names of the source model, in its layout and, dequantised, in float."""


@dataclass(frozen=True)
class NamedEngine:
    """An engine under a name, as measures want it."""

    name: str
    engine: Engine

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """See `Engine`."""
        return self.engine.run(feeds)


class NotHere(ZcError):  # noqa: N818
    """An artifact does not run on this machine; the message says why."""


class Backend(ABC):
    """A place of deployment. Subclasses are frozen dataclasses whose fields are options. All methods leave files and
    models that they were not asked to change as they are, and print nothing.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Endings of the files (or folders) that `emit` writes; an output with one of them implies this place."""
    folders: ClassVar[tuple[str, ...]] = ()
    """Those of them that are folders."""
    usual: ClassVar[str] = "quantize"
    """Pipeline text that makes most of the place."""
    rules: ClassVar[tuple[Rule, ...]] = ()
    """What a model must keep to run there."""

    @property
    @abstractmethod
    def target(self) -> Target:
        """What passes ask: which operators have kernels, in which types."""

    def legalise(self, model: Model) -> str:
        """Pipeline text of the passes that a model needs before it can be written for this place; may be empty."""
        return ""

    @property
    def here(self) -> bool:
        """Is onnxruntime on this machine such a place, so that the time of an .onnx says something?"""
        return False

    @property
    def proof(self) -> Verify:
        """How what `legalise` names is checked: `structure` where onnxruntime cannot run the result here."""
        return "numeric"

    def require(self, path: Path) -> None:
        """ZcError when a package is missing that it takes to write a file of that name: asked before any work."""
        return

    def foresee(self, model: Model, path: Path) -> None:
        """ZcError for what `emit` would refuse and no pass mends: said before the passes run, which may take long."""
        return

    @abstractmethod
    def emit(self, model: Model, path: Path, ctx: Context) -> Artifact:
        """Write a legalised model, whole or not at all. ZcError names the node that the place has no form for."""

    def told(self, model: Model, name: str) -> tuple[Note, ...]:
        """What a user of this machine should know of a model that is about to be written under a name."""
        return ()

    def check(self, model: Model) -> list[Violation]:
        """The rules that a model breaks, errors first, in graph order."""
        looked = model.copy()
        infer_shapes(looked)  # rules ask for shapes and types that files need not hold
        return find_violations(self.rules, looked)

    def predict(self, model: Model) -> Prediction:
        """What will run in integers, what fuses and what stays float."""
        return Prediction()

    def engine(self, path: Path, threads: int | None = None) -> Engine:
        """A session on an artifact. NotHere with the reason where this machine cannot run it."""
        raise NotHere(f"{path}: {self.name} does not run on this machine")

    def stand_in(self, path: Path, threads: int | None = None) -> Engine:
        """Where `engine` does not run: something that computes the same numbers here, so that accuracy is predicted.

        Its time says nothing. NotHere where there is no such thing.
        """
        raise NotHere(f"{path}: nothing here computes what {self.name} would")


def prepare(backend: Backend, model: Model, ctx: Context) -> list[Note]:
    """Legalise a model in place and refuse what the rules forbid; what the passes noted.

    ZcError with the first rule that is broken (and how many are).
    """
    notes: list[Note] = []
    steps = backend.legalise(model)
    if steps:
        report = run_pipeline(model, steps, ctx, verify=backend.proof)
        extend(model, report.effective)
        notes = [*report.notes, *(note for run in report.passes for note in run.notes)]
    refuse(backend, model, backend.check(model))
    return notes


def refuse(backend: Backend, model: Model, found: Sequence[Violation]) -> None:
    """ZcError with the first rule that is broken so that the place refuses the model, and how many are."""
    broken = [one for one in found if one.severity == "error"]
    if broken:
        more = f"; and {len(broken) - 1} more, which `zc check --target {backend.name}` lists" if broken[1:] else ""
        raise ZcError(f"{model.name}: {broken[0].line}{more}")


def deliver(backend: Backend, model: Model, path: Path, ctx: Context) -> tuple[Artifact, Sequence[Note]]:
    """Prepare a model in place and write it; the artifact, and what the passes noted.

    ZcError as `prepare` and `Backend.emit` have it; nothing is written then.
    """
    notes = prepare(backend, model, ctx)
    return backend.emit(model, path, ctx), notes
