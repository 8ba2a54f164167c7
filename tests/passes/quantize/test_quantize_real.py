"""Accuracy on real networks and data."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from zc.backends.onnxruntime import TARGET
from zc.data import Samples, load_samples
from zc.execute import Runner
from zc.ir.model import Model, load
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context, PassResult
from zc.pipeline.registry import find

pytestmark = pytest.mark.real


def quantise(model: Model, samples: Samples, options: Quantize | None = None) -> tuple[Model, PassResult]:
    """The float model, cleaned; `model` becomes the int8 one."""
    context = Context(TARGET, samples)
    find("clean")().run(model, context)
    before = model.copy()
    return before, (options or Quantize()).run(model, context)


def classes(model: Model, samples: Samples) -> np.ndarray:
    runner = Runner(model)
    return np.concatenate([next(iter(runner.run(b).values())).argmax(1) for b in samples.batches(64)])


@pytest.mark.parametrize("name", ["resnet20_cifar10", "resnet20_cifar10_bn", "resnet20_cifar10_dynamo"])
def test_resnet20_keeps_its_accuracy_and_runs_in_integers(shared: Path, tmp_path: Path, name: str) -> None:
    model = load(shared / "models" / f"{name}.onnx")
    calib = load_samples(str(shared / "data" / "cifar10_train15k.npz"), model.inputs, rows="0:256", prep="imagenet")
    test = load_samples(str(shared / "data" / "cifar10_test4k.npz"), model.inputs, prep="imagenet")
    before, _ = quantise(model, calib, Quantize(guard=False))  # which leaves in float what gains accuracy for no time
    drop = (classes(before, test) == test.labels).mean() - (classes(model, test) == test.labels).mean()
    assert drop <= 0.003
    Runner(model, save_optimized=tmp_path / "optimized.onnx")
    runs = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert (runs.count("QLinearConv"), runs.count("QGemm")) == (19, 1)
    assert {"Conv", "FusedConv", "Gemm", "MatMul", "DequantizeLinear"} & set(runs) == set()


@pytest.mark.slow
def test_mobilenet_v1_keeps_its_accuracy(shared: Path) -> None:
    model = load(shared / "models" / "mobilenetv1_025_imagenet.onnx")
    folder = str(shared / "data" / "imagenet500")
    calib, test = (load_samples(folder, model.inputs, rows=rows, prep="pm1 crop=224") for rows in ("0:200", "200:500"))
    before, result = quantise(model, calib)
    float_classes, int8_classes = classes(before, test), classes(model, test)
    assert (float_classes == test.labels).mean() - (int8_classes == test.labels).mean() <= 0.03
    assert (float_classes == int8_classes).mean() >= 0.90
    assert 20 <= result.stats["weighted_in_integers"] < 28  # the first ones are faster in float


def test_a_transformer_does_not_collapse(shared: Path) -> None:
    model = load(shared / "models" / "minilm_l6_trim.onnx")
    calib = load_samples(str(shared / "data" / "minilm.npz"), model.inputs, rows="0:64")
    size = model.nbytes()
    before, _ = quantise(model, calib)
    feed = next(load_samples(str(shared / "data" / "minilm.npz"), model.inputs, rows="64:128").batches(64))
    a, b = (next(iter(Runner(m).run(feed).values())) for m in (before, model))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.mean() > 0.985
    assert model.nbytes() < 0.3 * size


def test_magika_does_not_collapse(shared: Path) -> None:
    model = load(shared / "models" / "magika_standard_v3_3.onnx")
    data = str(shared / "data" / "magika.npz")
    calib, test = (load_samples(data, model.inputs, rows=rows) for rows in ("0:100", "100:400"))
    before, _ = quantise(model, calib)
    assert (classes(before, test) == classes(model, test)).mean() >= 0.98


def test_a_detector_with_an_old_operator_set_loads_and_agrees(shared: Path) -> None:
    model = load(shared / "models" / "ultraface_rfb_320.onnx")
    data = str(shared / "data" / "ultraface.npz")
    prep = "scale=128 mean=0.9921875"
    calib, test = (load_samples(data, model.inputs, rows=rows, prep=prep) for rows in ("0:15", "15:30"))
    before, _ = quantise(model, calib)
    a, b = (
        np.concatenate([r.run(f)["scores"][:, :, 1].max(1) for f in test.batches(1)])
        for r in (Runner(before), Runner(model))
    )
    assert np.abs(a - b).max() < 0.3
    assert np.abs(a - b).mean() < 0.06
