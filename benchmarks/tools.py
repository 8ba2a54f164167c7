"""One quantiser on one model, in a process of its own: how long it takes, and the memory that it needs at most.

    python benchmarks/tools.py TOOL MODEL.onnx SAMPLES.npz OUT.onnx
    python benchmarks/tools.py --installed

Runs in the interpreter that has the tool; of zc only the tool `zc` is imported. SAMPLES.npz holds an array for each
input, the rows on the axis that `axes.json` beside it names (null: fed as it is). The last line of the output is JSON.
Every tool runs with its defaults, for an x86 processor where it asks for the device.
"""

import contextlib
import importlib.metadata
import json
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Feed = dict[str, Any]
Tool = Callable[[Path, "Rows", Path], None]


class Rows:
    """Calibration samples as feeds of one row; iterated as often as wanted, and a reader as onnxruntime has it."""

    def __init__(self, path: Path) -> None:
        """path: SAMPLES.npz, with `axes.json` beside it."""
        self.path = path
        self.axes: dict[str, int | None] = json.loads((path.parent / "axes.json").read_text())
        self._next = iter(self)

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """The samples; read when they are first asked for."""
        with np.load(self.path) as file:
            return {name: file[name] for name in self.axes}

    def __iter__(self) -> Iterator[Feed]:
        """Feeds of one row each."""
        batched = [name for name, axis in self.axes.items() if axis is not None]
        for row in range(len(self.arrays[batched[0]])):
            yield {name: self._feed(name, row) for name in self.axes}

    def _feed(self, name: str, row: int) -> Any:
        axis, array = self.axes[name], self.arrays[name]
        return array if axis is None else np.expand_dims(array[row], axis)

    def get_next(self) -> Feed | None:
        """The next feed, or None after the last."""
        return next(self._next, None)

    def rewind(self) -> None:
        """Begin again with the first row."""
        self._next = iter(self)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Some tools read parts; all rows are given to all."""


def zc(model: Path, rows: Rows, out: Path) -> None:
    """`zc opt -p quantize` with samples and no other option."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    command = ["opt", str(model), "-p", "quantize", "--calib", str(rows.path), "-o", str(out), "--no-bench"]
    sys.argv = ["zc", *command, "--json", str(out.with_suffix(".json"))]
    try:
        runpy.run_module("zc", run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"exit {stop.code}") from None


def ort_static(method: str) -> Tool:
    """U8S8, Q/DQ, per channel, after the preprocessing that onnxruntime advises."""

    def quantise(model: Path, rows: Rows, out: Path) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        ready = out.with_suffix(".ready.onnx")
        try:
            quant_pre_process(str(model), str(ready))
        except Exception:  # its symbolic shape inference fails on many models; its messages say to leave it out
            quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(out),
            rows,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
            extra_options={"CalibPercentile": 99.999} if method == "Percentile" else {},
        )

    return quantise


def ort_dynamic(model: Path, rows: Rows, out: Path) -> None:
    """Ranges of activations found at every run."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(model), str(out), per_channel=True, weight_type=QuantType.QInt8)


def onnxsim(full: bool) -> Tool:
    """Its static quantiser: the inputs of weighted operators, or the whole graph."""

    def quantise(model: Path, rows: Rows, out: Path) -> None:
        import onnx
        import onnxsim as tool

        plain, _ = tool.simplify(onnx.load(model))
        onnx.save(tool.quantize_static(plain, list(rows), full_graph=full), out)

    return quantise


def nncf(model: Path, rows: Rows, out: Path) -> None:
    """`nncf.quantize`, default preset."""
    import nncf as tool
    import onnx

    onnx.save(tool.quantize(onnx.load(model), tool.Dataset(list(rows)), subset_size=len(list(rows))), out)


def onc(model: Path, rows: Rows, out: Path) -> None:
    """onnx-neural-compressor, static."""
    from onnx_neural_compressor.quantization import QuantFormat, config, quantize

    quantize(str(model), str(out), config.StaticQuantConfig(rows, quant_format=QuantFormat.QDQ, per_channel=True))


def quark(model: Path, rows: Rows, out: Path) -> None:
    """AMD Quark, its configuration for processors: signed weights, unsigned activations."""
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config import Config, get_default_config

    ModelQuantizer(Config(global_quant_config=get_default_config("U8S8_AAWS"))).quantize_model(
        str(model), str(out), rows
    )


def aimet(model: Path, rows: Rows, out: Path) -> None:
    """AIMET on ONNX: a simulation calibrated on the samples, exported as Q/DQ."""
    import onnx
    from aimet_onnx.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(onnx.load(model))
    sim.compute_encodings(list(rows))
    onnx.save(sim.to_onnx_qdq(), out)


def modelopt(model: Path, rows: Rows, out: Path) -> None:
    """NVIDIA ModelOpt, int8, on the processor."""
    from modelopt.onnx.quantization import quantize

    feeds = list(rows)
    data = {
        name: feeds[0][name] if axis is None else np.concatenate([feed[name] for feed in feeds], axis)
        for name, axis in rows.axes.items()
    }
    quantize(str(model), calibration_data=data, calibration_eps=["cpu"], output_path=str(out))


TOOLS: dict[str, tuple[str, Tool]] = {
    "zc": ("zc", zc),
    "ort min-max": ("onnxruntime", ort_static("MinMax")),
    "ort percentile": ("onnxruntime", ort_static("Percentile")),
    "ort dynamic": ("onnxruntime", ort_dynamic),
    "onnxsim": ("onnxsim", onnxsim(full=False)),
    "onnxsim full": ("onnxsim", onnxsim(full=True)),
    "nncf": ("nncf", nncf),
    "onc": ("onnx-neural-compressor", onc),
    "quark": ("amd-quark", quark),
    "aimet": ("aimet-onnx", aimet),
    "modelopt": ("nvidia-modelopt", modelopt),
}
"""By name: the package that must be installed, and what is called."""


def installed() -> dict[str, str]:
    """The tools that this interpreter has, and their versions."""
    found = {}
    for name, (package, _) in TOOLS.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(package)
    return found


def peak_mb() -> float | None:
    """The most memory that this process has held so far; None where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def main() -> None:
    """Run the tool that the command names."""
    if sys.argv[1:] == ["--installed"]:
        print(json.dumps(installed()))
        return
    name, (model, samples, out) = sys.argv[1], (Path(word).resolve() for word in sys.argv[2:5])
    said: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:  # some tools write where they stand
        os.chdir(folder)
        try:
            TOOLS[name][1](model, Rows(samples), out)
        except BaseException as err:  # a peer may raise anything
            said["error"] = f"{type(err).__name__}: {' '.join(str(err).split())}"[:300]
        os.chdir("/")
    print("\n" + json.dumps({**said, "peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    main()
