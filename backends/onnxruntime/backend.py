"""ONNX Runtime as a place of deployment.

It writes the .onnx that a session optimises when it loads it, or an .ort that holds the graph as optimised already.
"""

import platform
import tempfile
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from zc.backends.base import Artifact, Backend, Engine, NotHere, Prediction
from zc.backends.onnxruntime import arm, cpu, cuda
from zc.backends.onnxruntime.advice import RULES, X86_RULES, saturates_told, session_wishes, wishes_told
from zc.backends.onnxruntime.ortfile import canonical
from zc.backends.onnxruntime.prediction import blocked_convolutions, predict
from zc.backends.rules import Rule
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.files import write_atomically
from zc.ir.model import Model
from zc.ir.quantised import is_quantised
from zc.pipeline.base import Context, Note
from zc.target import Target

_ORT_LIMIT = 2**31 - 1
"""Bytes of an .ort file: offsets of flatbuffers are 32 bits."""


class OnnxRuntime(Backend):
    """What the places that run ONNX Runtime share."""

    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".ort")
    rules: ClassVar[tuple[Rule, ...]] = RULES

    def emit(self, model: Model, path: Path, ctx: Context) -> Artifact:
        """Write an .onnx that a session was seen to open, or an .ort; what the session wants is in `facts`."""
        wishes = session_wishes(model, self.target)
        if path.suffix == ".ort":
            self._emit_ort(model, path)
        else:
            Runner(model, level="basic", config=wishes)
            model.save(path)
        notes = (*wishes_told(path.name, wishes), *self.told(model, path.name))
        if path.suffix == ".ort":
            notes += self._slower_than_onnx(model, path.name)
        facts = {"session": " ".join(f"{k}={v}" for k, v in wishes.items()) or "default", **_optimised(model, self)}
        size = sum(f.stat().st_size for f in (path, path.with_name(f"{path.name}.data")) if f.is_file())
        return Artifact(path, size, notes, facts)

    def _emit_ort(self, model: Model, path: Path) -> None:
        if model.nbytes() > _ORT_LIMIT:
            raise ZcError(
                f"{path}: the weights take {model.nbytes():,} bytes and an .ort file holds 2 GiB; write .onnx"
            )
        with tempfile.TemporaryDirectory(prefix="zc-") as folder:
            saved = Path(folder) / "model.ort"
            config = {**session_wishes(model, self.target), "session.save_model_format": "ORT"}
            Runner(model, save_optimized=saved, config=config, without=self._unwanted())
            saved.write_bytes(canonical(saved.read_bytes()))
            Runner(saved)  # what does not open is not handed over
            write_atomically(path, lambda file: file.write(saved.read_bytes()))

    def told(self, model: Model, name: str) -> tuple[Note, ...]:
        """See `Backend.told`."""
        return saturates_told(model, name, self.target)

    def _slower_than_onnx(self, model: Model, name: str) -> tuple[Note, ...]:
        """What an .onnx gets from the session that loads it and an .ort of this place does not hold."""
        return ()

    @abstractmethod
    def _unwanted(self) -> tuple[str, ...]:
        """Optimizers of onnxruntime that must not shape an .ort."""

    def predict(self, model: Model) -> Prediction:
        """What the optimised graph of a default session on this machine's processor says."""
        return predict(model, self.target)

    def engine(self, path: Path, threads: int | None = None) -> Engine:
        """A session with the options that the target names."""
        return Runner(path, threads=threads, config=self.target.session)


@dataclass(frozen=True)
class OnnxRuntimeCpu(OnnxRuntime):
    """ONNX Runtime on x86-64: uint8 activations and int8 weights, float where that is faster."""

    name: ClassVar[str] = "ort-cpu"
    rules: ClassVar[tuple[Rule, ...]] = X86_RULES

    cpu: Literal["vnni", "avx2", "auto"] = "vnni"
    """Kind of processor: with an exact int8 dot product (vnni), or weights that are exact without one (avx2); auto:
    this machine's."""
    blocked: bool = False
    """In an .ort: lay float convolutions out in blocks as this machine's kernels want them. Faster, but the file then
    runs well only on processors like this one."""

    @property
    def target(self) -> Target:
        """By the kind of processor."""
        return cpu.for_cpu(self.cpu)

    @property
    def here(self) -> bool:
        """It stands for any processor that is not ARM."""
        return True

    def _slower_than_onnx(self, model: Model, name: str) -> tuple[Note, ...]:
        """An .ort is not optimised again when it is loaded, and blocks of channels are of a size of the processor's."""
        count = 0 if self.blocked else blocked_convolutions(model)
        if not count:
            return ()
        what = (
            f"{count} float convolutions keep the plain layout, which any processor runs, in about twice the time of "
            "the .onnx; --target ort-cpu:blocked lays them out for processors like this machine's, and only for those"
        )
        return (Note("warning", name, what),)

    def _unwanted(self) -> tuple[str, ...]:
        return () if self.blocked else ("NchwcTransformer",)


@dataclass(frozen=True)
class OnnxRuntimeArm(OnnxRuntime):
    """ONNX Runtime on 64-bit ARM: int8 activations and weights."""

    name: ClassVar[str] = "ort-arm"

    @property
    def target(self) -> Target:
        """One for all processors."""
        return arm.TARGET

    @property
    def here(self) -> bool:
        """Is the processor ARM?"""
        return platform.machine().lower() in {"arm64", "aarch64"}

    def engine(self, path: Path, threads: int | None = None) -> Engine:
        """A session. NotHere on another processor: there it computes the same, but its time says nothing."""
        if not self.here:
            raise NotHere(f"{path}: this machine's processor is {platform.machine()}, not ARM")
        return super().engine(path, threads)

    def stand_in(self, path: Path, threads: int | None = None) -> Engine:
        """The same session on this machine's processor."""
        return super().engine(path, threads)

    def _unwanted(self) -> tuple[str, ...]:
        return ("NchwcTransformer",)


@dataclass(frozen=True)
class OnnxRuntimeCuda(OnnxRuntime):
    """ONNX Runtime on an NVIDIA GPU: half precision; int8 belongs to TensorRT."""

    name: ClassVar[str] = "ort-cuda"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    usual: ClassVar[str] = "fp16"

    @property
    def target(self) -> Target:
        """One for all GPUs."""
        return cuda.TARGET

    def _unwanted(self) -> tuple[str, ...]:
        return ()

    def emit(self, model: Model, path: Path, ctx: Context) -> Artifact:
        """Write an .onnx: what an .ort holds is fixed for the processor that made it."""
        if path.suffix == ".ort":
            raise ZcError(f"{path}: an .ort holds the graph as the CPU wants it; for {self.name} write .onnx")
        return super().emit(model, path, ctx)

    def predict(self, model: Model) -> Prediction:
        """Nothing here knows what CUDA fuses."""
        return Prediction()

    def engine(self, path: Path, threads: int | None = None) -> Engine:
        """NotHere: this needs onnxruntime-gpu and a GPU."""
        raise NotHere(f"{path}: onnxruntime has no CUDA provider on this machine")

    def stand_in(self, path: Path, threads: int | None = None) -> Engine:
        """The same graph on the CPU."""
        return Runner(path, threads=threads)


def _optimised(model: Model, backend: Backend) -> dict[str, str]:
    """How many layers got int8 kernels, read from the graph that a session makes of a quantised model."""
    if not is_quantised(model):
        return {}
    found = backend.predict(model)
    if not found.integer and not found.floats:
        return {}
    return {"layers in integers": f"{len(found.integer)} of {len(found.integer) + len(found.floats)}"}


CPU = OnnxRuntimeCpu()
ARM = OnnxRuntimeArm()
CUDA = OnnxRuntimeCuda()
