"""Runs a model in onnxruntime on plain arrays: the truth that passes are verified and measured against."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort

from zc.errors import ZcError
from zc.ir.exact import AT_ODDS, EXACT, precise
from zc.ir.graph import Array
from zc.ir.model import PROTO_LIMIT, Model

Level = Literal["off", "basic", "all"]
_LEVELS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
Feeds = Mapping[str, Array]


class Runs(Protocol):
    """Anything that computes a model: a session of onnxruntime, or of another runtime."""

    @property
    def name(self) -> str:
        """How messages call it."""

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """All outputs by name."""


class Refused(ZcError):  # noqa: N818
    """Onnxruntime does not open the model: no samples can help."""


_SOURCE = re.compile(r"/onnxruntime_src/\S+:\d+ [^()]*\([^()]*\)(::<lambda\(\)>)?( const)? ?")
"""A place in onnxruntime's sources, `file:line signature`, as its messages hold it."""


class Runner:
    """A session on a model as it stands. Later edits of the model do not reach it."""

    def __init__(
        self,
        model: Model | str | Path,
        *,
        outputs: Sequence[str] | None = None,
        level: Level = "all",
        threads: int | None = None,
        save_optimized: Path | None = None,
        config: Mapping[str, str] | None = None,
        profile: Path | None = None,
        without: Sequence[str] = (),
        native: bool = False,
    ) -> None:
        """Open a session.

        outputs: names of the values to return, the model's outputs by default.
        level: graph optimisations of the session; int8 results depend on it.
        threads: within an operator; by default as many as there are cores.
        save_optimized: where onnxruntime shall write the graph that it really runs.
        profile: beginning of the path of a file for the times of its kernels; see `zc.measure.profile`.
        without: names of graph optimisers of onnxruntime that shall not run.
        native: with the integer kernels that a default session has on this processor, as for times and for what is
            saved or profiled; else a `Model` says the same on every one (`zc.ir.exact`), and a path what it says here.
        Refused with onnxruntime's reason when it does not accept the model.
        """

        def options(more: Mapping[str, str]) -> ort.SessionOptions:
            chosen = ort.SessionOptions()
            chosen.graph_optimization_level = _LEVELS[level]
            chosen.log_severity_level = 4
            chosen.inter_op_num_threads = 1
            if threads is not None:
                chosen.intra_op_num_threads = threads
            if save_optimized is not None:
                chosen.optimized_model_filepath = str(save_optimized)
            if profile is not None:
                chosen.enable_profiling, chosen.profile_file_prefix = True, str(profile)
            for key, value in {**(config or {}), **more}.items():
                chosen.add_session_config_entry(key, value)
            return chosen

        self.name = model.name if isinstance(model, Model) else str(model)
        as_is = native or save_optimized or profile or "session.qdqisint8allowed" in (config or {})
        exact = None
        if isinstance(model, Model) and not as_is:
            exact = self._exact(model, outputs, options(EXACT), without)
        self.session = exact or self._open(model, outputs, options({}), without)
        self.inputs = [i.name for i in self.session.get_inputs()]
        self._halves = {i.name for i in self.session.get_inputs() if i.type == "tensor(float16)"}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def _open(
        self,
        model: Model | str | Path,
        outputs: Sequence[str] | None,
        options: ort.SessionOptions,
        without: Sequence[str],
    ) -> ort.InferenceSession:
        try:
            with _Source(model, outputs) as source:
                return ort.InferenceSession(
                    source, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without) or None
                )
        except ZcError:
            raise
        except Exception as err:  # onnxruntime raises a dozen unrelated types
            raise Refused(f"{self.name}: onnxruntime does not run it: {reason(err)}") from err

    def _exact(
        self, model: Model, outputs: Sequence[str] | None, options: ort.SessionOptions, without: Sequence[str]
    ) -> ort.InferenceSession | None:
        """A session whose sums saturate nowhere; None where onnxruntime cannot make one."""
        apart = precise(model)
        for more in ((), AT_ODDS):
            with suppress(Refused):
                return self._open(apart, outputs, options, (*without, *more))
        return None

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """All outputs by name; float32 is rounded for inputs in float16. ZcError with onnxruntime's reason."""
        try:
            values = self.session.run(self.outputs, {k: self._fitting(k, feeds[k]) for k in self.inputs})
        except KeyError as err:
            raise ZcError(f"{self.name}: input {err} is not fed") from err
        except Exception as err:  # as above
            raise ZcError(f"{self.name}: onnxruntime fails on it: {reason(err)}") from err
        return dict(zip(self.outputs, values, strict=True))

    def _fitting(self, name: str, array: Array) -> Array:
        wide = name in self._halves and getattr(array, "dtype", None) == np.float32
        return array.astype(np.float16) if wide else array


def opened(source: Model | str | Path | Runs, threads: int | None = None, native: bool = False) -> Runs:
    """A session on a model; what runs already, as it is. native: as of `Runner`."""
    return Runner(source, threads=threads, native=native) if isinstance(source, Model | str | Path) else source


class _Source:
    """Gives what a session takes: bytes, or the path of a temporary file when the model is too big for one message."""

    def __init__(self, model: Model | str | Path, outputs: Sequence[str] | None) -> None:
        self.model, self.wanted = model, outputs
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Any:
        if not isinstance(self.model, Model):
            return str(self.model)
        if self.model.nbytes() < PROTO_LIMIT:
            return self.model.to_proto(outputs=self.wanted).SerializeToString()
        self.folder = tempfile.TemporaryDirectory(prefix="zc-")
        path = Path(self.folder.name) / "model.onnx"
        if self.wanted is not None:
            raise ZcError(f"{self.model.name}: over 2 GB; inner values cannot be read out")
        self.model.save(path, external=True)
        return str(path)

    def __exit__(self, *_: object) -> None:
        if self.folder is not None:
            with suppress(OSError):
                self.folder.cleanup()


def reason(err: Exception) -> str:
    """Onnxruntime's message as one line, without its file names and codes."""
    text = " ".join(str(err).split())
    for mark in ("[ONNXRuntimeError] : ",):
        text = text.rpartition(mark)[2]
    parts = text.split(" : ", 2)
    text = parts[-1] if len(parts) == 3 and parts[0].isdigit() else text
    return _SOURCE.sub("", text)[:400]


def held_bytes(value: Any) -> int:
    """Bytes that a value of a run takes, with all that a sequence or map holds; 0 for an absent optional."""
    if isinstance(value, dict):
        return sum(map(held_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(held_bytes, value))
    return int(getattr(value, "nbytes", 0))


def float_pairs(got: Any, want: Any) -> Iterator[tuple[Array, Array]]:
    """The float arrays of two runs' values that can be subtracted, flat and in double precision, finite in both.

    Of a sequence, its elements. Left out: other types, and arrays of other sizes (how many boxes a detector finds may
    hang on rounding).
    """
    if isinstance(want, list) and isinstance(got, list):
        for one, other in zip(got, want, strict=False):
            yield from float_pairs(one, other)
    elif isinstance(want, np.ndarray) and want.dtype.kind == "f" and got.shape == want.shape:
        fine = np.isfinite(want) & np.isfinite(got)
        yield got[fine].astype(np.float64), want[fine].astype(np.float64)


def relative_error(got: Any, want: Any) -> float:
    """Max |got - want| / max |want| over finite values; infinite where shape, type, NaN or Inf disagree.

    Arrays that are not numbers are compared for equality: 0 or infinite. Sequences are compared by element; the largest
    error counts. Other outputs (maps, absent optionals) are compared for equality.
    """
    if isinstance(want, list) and isinstance(got, list) and len(got) == len(want):
        return max((relative_error(g, w) for g, w in zip(got, want, strict=True)), default=0.0)
    if not isinstance(want, np.ndarray) or not isinstance(got, np.ndarray):
        return 0.0 if type(got) is type(want) and not isinstance(want, list) and got == want else float("inf")
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf")
    if got.dtype.kind not in "fiub" and got.dtype.kind != "V":
        return 0.0 if np.array_equal(got, want) else float("inf")
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(finite, np.isfinite(a)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / max(np.abs(b[finite]).max(), 1e-30))
