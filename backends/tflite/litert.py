"""Runs .tflite files in LiteRT on arrays as the ONNX model takes them."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zc.backends.tflite.layout import Layout, between, plain
from zc.errors import ZcError
from zc.ir.graph import Array

ENDS = "zc_ends"
"""Name of the metadata that says, by signature, how inputs and outputs hold the values of the model.

JSON with the order of ONNX's axes (`layout`) and the element type that the value has there (`type`).
"""

Kernels = Literal["xnnpack", "builtin", "reference"]
_RESOLVERS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


def interpreter_module() -> Any:
    """LiteRT's interpreter. ZcError where its package is not installed."""
    try:
        return importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        raise ZcError("running TFLite files needs the package ai-edge-litert; install zc[tflite]") from None


class LiteRtRunner:
    """A file in LiteRT. Inputs and outputs go by their names in a signature and lie as in ONNX."""

    def __init__(
        self, data: bytes | Path, *, kernels: Kernels = "xnnpack", threads: int = 1, signature: str | None = None
    ) -> None:
        """Open a file.

        kernels: those of the XNNPACK delegate, as by default; LiteRT's own; or its plain reference kernels.
        signature: which one to run; the first by default.
        ZcError with LiteRT's reason when it does not accept the file.
        """
        module = interpreter_module()
        self.name = data.name if isinstance(data, Path) else "the .tflite file"
        data = data.read_bytes() if isinstance(data, Path) else data
        resolver = getattr(module.OpResolverType, _RESOLVERS[kernels])
        try:
            self._interpreter = module.Interpreter(
                model_content=data, experimental_op_resolver_type=resolver, num_threads=threads
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as err:
            raise ZcError(f"LiteRT does not run the file: {_reason(err)}") from err
        signatures = self._interpreter.get_signature_list()
        if not signatures:
            raise ZcError(f"{self.name}: has no signature to call it by; whoever made it must add one")
        self.signature = signature or next(iter(signatures))
        if self.signature not in signatures:
            raise ZcError(f"no signature '{self.signature}' in the file; it has {', '.join(signatures)}")
        self._runner = self._interpreter.get_signature_runner(self.signature)
        ends = _ends(data).get(self.signature, {})
        self._inputs, self._outputs = ends.get("inputs", {}), ends.get("outputs", {})
        self.inputs: dict[str, Any] = dict(self._runner.get_input_details())
        self.outputs: dict[str, Any] = dict(self._runner.get_output_details())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name. Where an end of the file holds codes, numbers are rounded to them and back."""
        given = {name: self._given(name, detail, feeds[name]) for name, detail in self.inputs.items()}
        try:
            made = self._runner(**given)
        except (ValueError, RuntimeError) as err:
            raise ZcError(f"LiteRT fails on the file: {_reason(err)}") from err
        return {name: self._taken(name, detail, made[name]) for name, detail in self.outputs.items()}

    def ops(self) -> list[str]:
        """Names of the operators of the first subgraph that LiteRT really runs; DELEGATE is one of XNNPACK's parts."""
        return [one["op_name"] for one in self._interpreter._get_ops_details()]

    def _given(self, name: str, detail: Any, array: Array) -> Array:
        array = array.transpose(_layout(self._inputs, name, array.ndim)) if array.ndim else array
        scale, zero = detail["quantization"]
        kind = np.dtype(detail["dtype"])
        if scale and array.dtype.kind == "f":
            info = np.iinfo(kind)
            array = np.clip(np.rint(array / scale) + zero, info.min, info.max)
        return np.ascontiguousarray(array, kind).reshape(array.shape)

    def _taken(self, name: str, detail: Any, array: Array) -> Array:
        scale, zero = detail["quantization"]
        if scale and "float" in self._outputs.get(name, {}).get("type", "float32"):
            array = ((array.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)
        return array.transpose(between(_layout(self._outputs, name, array.ndim), plain(array.ndim)))


def _layout(ends: Mapping[str, Any], name: str, rank: int) -> Layout:
    return tuple(ends.get(name, {}).get("layout", plain(rank)))


def metadata(data: bytes) -> dict[str, bytes]:
    """The metadata buffers of a file, by name."""
    from zc.backends.tflite.flatbuffer import schema

    model = schema().Model.GetRootAsModel(data, 0)
    found = {}
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        raw = model.Buffers(entry.Buffer()).DataAsNumpy()
        found[entry.Name().decode()] = raw.tobytes() if isinstance(raw, np.ndarray) else b""
    return found


def _ends(data: bytes) -> dict[str, Any]:
    text = metadata(data).get(ENDS)
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def _reason(err: Exception) -> str:
    return " ".join(str(err).split())[:400]
