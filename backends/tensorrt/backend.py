"""TensorRT as a place of deployment: a folder with the model and what builds an engine of it."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from zc.backends.base import Artifact, Backend, Engine, Prediction
from zc.backends.folder import write_folder
from zc.backends.rules import Rule
from zc.backends.tensorrt import build as builder
from zc.backends.tensorrt import engine as trt
from zc.backends.tensorrt.calibration import cache_text
from zc.backends.tensorrt.prediction import predict
from zc.backends.tensorrt.profiles import Profile, make_profiles, read_dims
from zc.backends.tensorrt.rules import RULES
from zc.backends.tensorrt.scripts import script
from zc.backends.tensorrt.sparsity import sparse_layers
from zc.backends.tensorrt.target import TARGET
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.files import write_atomically
from zc.ir.model import Model
from zc.ir.quantised import is_quantised
from zc.pipeline.base import Context, Note
from zc.pipeline.manager import Verify
from zc.target import Target

VERSIONS = (10, 11)
"""Major versions of TensorRT that scripts are written for."""

BUILT = ("model.plan", "timing.cache", "layers.json")
"""What a build leaves in the folder."""

_HALF = {"float16": "fp16", "bfloat16": "bf16"}
_ALSO = "allow=QuantizeLinear+DequantizeLinear"
"""The type of a scale is the type of the arithmetic behind it."""


@dataclass(frozen=True)
class TensorRT(Backend):
    """NVIDIA TensorRT 10 and 11: a folder with the strongly typed Q/DQ model and what builds an engine of it.

    OUT.trt/model.onnx, build-10.sh and build-11.sh (trtexec), build.py (the same in Python), manifest.json (hashes,
    profiles, settings). Where TensorRT and a GPU are at hand, model.plan too. The ending .onnx writes the model alone.
    """

    name: ClassVar[str] = "tensorrt"
    suffixes: ClassVar[tuple[str, ...]] = (".trt", ".onnx")
    folders: ClassVar[tuple[str, ...]] = (".trt",)
    rules: ClassVar[tuple[Rule, ...]] = RULES

    rest: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of what is not quantised. Half of it takes half the time; values beyond its reach stay float32, if samples
    show them."""
    dims: tuple[str, ...] = ()
    """Sizes of open dimensions, as N/1/8/32+S/16/128/512: least, usual and largest; one without a name is INPUT.AXIS.
    An open first dimension is 1, 8, 32 by default."""
    level: int = 3
    """Effort of the builder, 0 to 5: higher takes longer to build and may run faster."""
    calibration: bool = False
    """Also write calibration.cache, which TensorRT up to 10 takes with the float model (trtexec --int8 --calib)."""

    def __post_init__(self) -> None:
        read_dims(self.dims)
        if not 0 <= self.level <= 5:
            raise ZcError(f"level is {self.level}; give 0 to 5")

    @property
    def target(self) -> Target:
        """One for all GPUs."""
        return TARGET

    def legalise(self, model: Model) -> str:
        """Half precision for what is not quantised, where that is asked for."""
        return f"{_HALF[self.rest]}:{_ALSO}" if self.rest in _HALF else ""

    @property
    def proof(self) -> Verify:
        """Onnxruntime has no kernels for bfloat16 on a CPU."""
        return "structure" if self.rest == "bfloat16" else "numeric"

    def foresee(self, model: Model, path: Path) -> None:
        """Open dimensions without sizes."""
        if path.suffix in self.folders:
            make_profiles(model, read_dims(self.dims))

    def emit(self, model: Model, path: Path, ctx: Context) -> Artifact:
        """Write the folder, whole or not at all. ZcError for an open dimension without sizes."""
        if path.suffix == ".onnx":
            model.save(path)
            return Artifact(path, path.stat().st_size)
        profiles = make_profiles(model, read_dims(self.dims))
        if self.calibration and not is_quantised(model):
            raise ZcError(f"{model.name}: has no scales to write a calibration cache of; quantise it first")
        sparse, total = sparse_layers(model)
        settings = {
            "level": self.level,
            "sparse": bool(sparse),
            "profiles": [asdict(p) for p in profiles],
            "rest": self.rest,
        }
        about = {"target": self.name, "model": _about(model), "tensorrt": settings}
        fill = partial(self._fill, model=model, profiles=profiles, sparse=bool(sparse))
        size = write_folder(path, about, fill, later=BUILT, keep=("timing.cache",))
        notes = [Note("info", path.name, _sparse_text(sparse, total))] if total else []
        facts = {"profiles": "; ".join(map(_profile_text, profiles)) or "fixed shapes"}
        why = trt.missing()
        if why is None:
            facts |= self._build(path)
        else:
            notes.append(
                Note("info", path.name, f"{why}: build the engine where it runs, with build-11.sh or build.py")
            )
        return Artifact(path, size, tuple(notes), facts)

    def _fill(self, folder: Path, model: Model, profiles: Sequence[Profile], sparse: bool) -> None:
        model.save(folder / "model.onnx")
        for major in VERSIONS:
            file = folder / f"build-{major}.sh"
            text = script(major, profiles, level=self.level, sparse=sparse)
            write_atomically(file, lambda out, text=text: out.write(text.encode()))  # type: ignore[misc]
            file.chmod(0o755)
        source = Path(builder.__file__).read_bytes()
        write_atomically(folder / "build.py", lambda out: out.write(source))
        if self.calibration:
            cache = cache_text(model).encode()
            write_atomically(folder / "calibration.cache", lambda out: out.write(cache))

    def _build(self, path: Path) -> dict[str, str]:
        start = time.perf_counter()
        made = trt.build_engine(path)
        seconds = time.perf_counter() - start
        return {"engine": f"TensorRT {made['tensorrt']}, {made['bytes']:,} bytes, built in {seconds:.0f} s"}

    def predict(self, model: Model) -> Prediction:
        """What the rules of placement let fuse."""
        return predict(model)

    def engine(self, path: Path, threads: int | None = None) -> Engine:
        """The engine of a folder, built if it is not yet there. NotHere without TensorRT or a GPU."""
        return trt.TensorRTEngine(path)

    def stand_in(self, path: Path, threads: int | None = None) -> Engine:
        """The same arithmetic in float by onnxruntime, every Q/DQ as it stands."""
        return Runner(path / "model.onnx" if path.is_dir() else path, threads=threads, level="basic")


BACKEND = TensorRT()


def _about(model: Model) -> dict[str, Any]:
    """What the manifest says of the model."""
    made = {key: value for key, value in sorted(model.metadata.items()) if key.startswith("zc.")}
    return {
        "inputs": [str(spec) for spec in model.inputs],
        "outputs": [str(spec) for spec in model.outputs],
        "opset": model.opset,
        **made,
    }


def _profile_text(one: Profile) -> str:
    return f"{one.name} {'x'.join(map(str, one.least))} to {'x'.join(map(str, one.largest))}"


def _sparse_text(sparse: int, total: int) -> str:
    if not sparse:
        return f"none of {total} layers is 2:4 sparse; the pass sparsify makes them so, for up to twice the speed there"
    return f"{sparse} of {total} layers are 2:4 sparse: engines are built with sparse kernels"
