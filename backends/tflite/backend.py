"""TensorFlow Lite as a place of deployment."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from zc.backends.base import Artifact, Backend, Engine, Prediction, prepare, refuse
from zc.backends.rules import Violation
from zc.backends.tflite.emit import SIGNATURE, Flat, TfliteOptions, bundle, flatten
from zc.backends.tflite.flatbuffer import schema
from zc.backends.tflite.forms import Form
from zc.backends.tflite.legalise import PASSES
from zc.backends.tflite.litert import LiteRtRunner
from zc.backends.tflite.prediction import predict, refusals
from zc.backends.tflite.proof import prove
from zc.backends.tflite.targets import TARGET, WHOLE
from zc.errors import ZcError
from zc.ir.files import write_atomically
from zc.ir.model import Model, load
from zc.pipeline.base import Context, Note
from zc.target import Target

_STAYS = frozenset({"no-form", "open-size", "dimensions"})
"""Rules that a model which breaks them breaks after every pass as well."""


@dataclass(frozen=True)
class Tflite(Backend):
    """TensorFlow Lite (LiteRT): phones, boards, anything with a LiteRT runtime. A float model is written in float, a
    quantised one in int8 (or int16 activations and int8 weights).
    """

    name: ClassVar[str] = "tflite"
    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)

    form: Form = "float32"
    """Weights that are float: as they are; float16 for half the size; or dynamic: int8, with kernels that round
    activations when they run."""
    io: Literal["float", "int8"] = "float"
    """Inputs and outputs of a quantised model: numbers, or the codes themselves."""
    whole: bool = False
    """Let `quantize` put everything into integers that has an int8 kernel, likelihoods too, as microcontrollers need
    it; io=int8 asks for that by itself."""
    order: Literal["nhwc", "onnx"] = "nhwc"
    """Images at inputs and outputs: channels last, as LiteRT computes, or in ONNX's order behind a transpose."""
    signature: str = SIGNATURE
    """Name of the signature by which runtimes call the file."""
    also: tuple[str, ...] = ()
    """Further models in the same file, each under a signature of its own, as decode@decoder.onnx+embed@embed.onnx;
    equal weights are stored once."""

    def __post_init__(self) -> None:
        for one in self.also:
            name, found, path = one.partition("@")
            if not (name and found and path) or name == self.signature:
                raise ZcError(f"also={one}: expected NAME@MODEL.onnx, of a name other than '{self.signature}'")

    @property
    def target(self) -> Target:
        """What has an int8 kernel; with everything in integers, that too which gains nothing by it."""
        return WHOLE if self.whole or self.io == "int8" else TARGET

    def legalise(self, model: Model) -> str:
        """Clean-up, and GELU in one node."""
        return ",".join(PASSES)

    def require(self, path: Path) -> None:
        """The schema of TFLite files is in the package of their runtime."""
        if path.suffix in self.suffixes:
            schema()

    def foresee(self, model: Model, path: Path) -> None:
        """Operators without a form, and sizes that must be known: passes change neither."""
        if path.suffix in self.suffixes:
            refuse(self, model, [one for one in self.check(model) if one.rule in _STAYS])

    def flat(self, model: Model) -> Flat:
        """The graph of the file for a legalised model."""
        return flatten(model, TfliteOptions(self.form, self.io, self.order, {}, self.signature))

    def emit(self, model: Model, path: Path, ctx: Context) -> Artifact:
        """Write the file after it was run in LiteRT and its outputs compared with the model's."""
        flat = self.flat(model)
        others = {name: self._another(file, ctx) for name, _, file in (one.partition("@") for one in self.also)}
        about = {name: text.encode() for name, text in sorted(model.metadata.items())}
        data = bundle({self.signature: flat, **{name: self.flat(other) for name, other in others.items()}}, about)
        exact = self.form == "float32"
        facts, notes = prove(model, data, self.signature, ctx, exact=exact)
        for name, other in others.items():
            notes += prove(other, data, name, replace(ctx, samples=None), exact=exact)[1]
        write_atomically(path, lambda file: file.write(data))
        counts = Counter(op.code for op in flat.graph.ops)
        facts["operators"] = str(sum(counts.values()))
        facts["transposes"] = str(counts["TRANSPOSE"])
        notes += [Note("info", path.name, what) for what in flat.notes]
        return Artifact(path, len(data), tuple(notes), facts)

    def _another(self, file: str, ctx: Context) -> Model:
        """A further model of the file, legalised."""
        model = load(file)
        prepare(self, model, replace(ctx, samples=None))
        return model

    def check(self, model: Model) -> list[Violation]:
        """Every node that has no form in the file."""
        return refusals(model)

    def predict(self, model: Model) -> Prediction:
        """Read from the graph of the file."""
        return predict(model, self.flat(model).graph)

    def engine(self, path: Path, threads: int | None = None) -> Engine:
        """LiteRT with the XNNPACK delegate."""
        return LiteRtRunner(path, threads=threads or 1)


BACKEND = Tflite()
