"""Whole nets, quantised by zc and by onnxruntime, end to end: every code as onnxruntime computes it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zc.data import Samples, load_samples
from zc.ir.model import Model, load
from zc.runtime import Session
from zc.runtime.compare import compare
from zc.testing import run_pass

CIFAR = "scale=255 mean=.485,.456,.406 std=.229,.224,.225"
NETS = {
    "resnet8_cifar10": ("cifar10_test4k.npz", "raw"),
    "resnet20_cifar10": ("cifar10_test4k.npz", CIFAR),
    "resnet56_cifar10": ("cifar10_test4k.npz", CIFAR),
    "squeezenet10_imagenet": ("imagenet500", "caffe"),
    "mobilenetv1_025_imagenet": ("imagenet500", "pm1"),
    "mobilenetv2_10_imagenet_qatsrc": ("imagenet500", "pm1"),
    "vww_mobilenetv1_025": ("vww.npz", None),
    "superres_espcn": ("superres.npz", None),
}
pytestmark = [pytest.mark.real, pytest.mark.slow]


def samples_of(shared: Path, name: str, model: Model) -> Samples:
    data, prep = NETS[name]
    return load_samples(str(shared / "data" / data), model.inputs, rows="0:24", prep=prep)


@pytest.mark.parametrize("name", NETS)
def test_nets_that_zc_quantised(shared: Path, name: str) -> None:
    model = load(shared / "models" / f"{name}.onnx")
    samples = samples_of(shared, name, model)
    # Integers throughout, and no search: only what the kernels compute matters here.
    plain = {"rounding": "nearest", "equalize": False, "guard": False, "float_if_faster": False}
    int8 = run_pass("quantize", model, samples.take(0, 8), **plain)
    verdict = compare(int8, samples.take(8, 24).batches(5), threads=2)
    assert verdict.first is None
    assert verdict.rows == 16
    assert verdict.values > 5
    session = Session(int8)
    session.run(None, next(samples.batches(2)))
    for plan in session.plans:
        assert plan.arena.size <= 1.5 * plan.arena.alive


@pytest.mark.parametrize("name", ["resnet20_cifar10", "mobilenetv1_025_imagenet", "squeezenet10_imagenet"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_nets_that_onnxruntime_quantised(shared: Path, tmp_path: Path, name: str, form: str, activations: str) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    model = load(shared / "models" / f"{name}.onnx")
    samples = samples_of(shared, name, model)
    run_pass("clean", model).save(tmp_path / "clean.onnx")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: list[dict[str, Any]] = list(samples.take(0, 8).batches(8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    quantization.quantize_static(
        tmp_path / "clean.onnx",
        tmp_path / "int8.onnx",
        Reader(),
        quant_format=getattr(quantization.QuantFormat, form),
        activation_type=getattr(quantization.QuantType, activations),
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )
    verdict = compare(load(tmp_path / "int8.onnx"), samples.take(8, 16).batches(4))
    assert verdict.first is None
    assert verdict.values > 20
