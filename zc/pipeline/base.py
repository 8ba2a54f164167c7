"""Pass, PassResult, Context: what a pass is, what it returns, what it may ask for."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from zc.data import Samples
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.measure.gate import Gate
from zc.target import Target
from zc.track import Track, untracked

Kind = Literal["declined", "warning", "info"]
Stat = int | float | str


@dataclass(frozen=True)
class Note:
    """One thing that the user must hear of a pass."""

    kind: Kind
    """declined: something was left as it was; warning: look at this; info: good to know."""
    where: str
    """The node, value, weight or option."""
    what: str
    """The reason, as a person reads it."""


@dataclass
class PassResult:
    """What a pass did."""

    changed: bool
    stats: dict[str, Stat] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    chose: "Pass | None" = None
    """The pass with what it chose where an option said auto. Run on the same model and samples it does the same."""

    def declined(self, where: str, why: str) -> None:
        """Note something that was left alone, and why."""
        self.notes.append(Note("declined", where, why))

    def warn(self, where: str, what: str) -> None:
        """Note something that the user should look at."""
        self.notes.append(Note("warning", where, what))

    def info(self, where: str, what: str) -> None:
        """Note something that is good to know."""
        self.notes.append(Note("info", where, what))


@dataclass
class Context:
    """What a pass may ask for beside the model."""

    target: Target
    samples: Samples | None = None
    """Calibration samples as the user gave them, or None."""
    seed: int = 0
    track: Track = untracked
    threads: int | None = None
    original: Model | None = None
    """The model as it came in."""
    float_model: Model | None = None
    """The model before a pass made codes of its numbers; that pass sets it, for passes that mend what rounding did."""
    gate: Gate | None = None
    """What the result of the pipeline must pass; a pass that can trade something for accuracy asks it."""
    moments: dict[str, tuple[Array, Array]] | None = None
    """By name of a value: mean and deviation of its channels, from statistics in the model as it came in. A pass that
    scales values scales these too."""
    loud: list[Note] = field(default_factory=list)
    """Notes that are not of one pass; the manager shows them once."""

    def need_samples(self, model: Model) -> Samples:
        """The user's samples, else synthetic ones made from the model's own statistics, which is said loudly."""
        if self.samples is None:
            from zc.pipeline.synthetic import synthetic_samples

            self.samples = synthetic_samples(model, seed=self.seed)
            self.loud.append(
                Note(
                    "warning",
                    "calibration",
                    f"no samples were given; {self.samples.origin}; give real ones with --calib",
                )
            )
        return self.samples


class Pass(ABC):
    """One step of a pipeline. Subclasses are frozen dataclasses whose fields are the options (see `zc.pipeline.spec`).

    A pass edits the model in place, never prints, and tells in its result what it left alone and why.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = False
    """Does it keep the numbers? Then the manager proves it on samples."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Pipeline text of passes to run before it unless they have just run."""
    keeps: ClassVar[tuple[str, ...]] = ()
    """Names of passes whose work it leaves as it is, so that they need not run again for those that require them."""
    uses_samples: ClassVar[bool] = False
    """Does it read calibration samples?"""
    signature: ClassVar[bool] = False
    """May it change the inputs and outputs of the model?"""

    @property
    def proven(self) -> bool:
        """Must the manager prove that the outputs stay? As the class says, unless an option gives exactness up."""
        return self.exact

    def rounds(self, following: "Pass | None") -> "tuple[Pass, ...] | None":
        """The passes that stand for this one and the one behind it, where they are one schedule; None: they are not."""
        return None

    def ready(self, ctx: Context) -> None:
        """ZcError when what it takes is missing, such as a package or samples. Asked before the first pass runs."""
        return  # most take the model alone

    @abstractmethod
    def run(self, model: Model, ctx: Context) -> PassResult:
        """Edit the model; say what was done and what not. ZcError when options or model make it impossible."""

    def options(self) -> dict[str, Any]:
        """The options by name."""
        assert dataclasses.is_dataclass(self)
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
