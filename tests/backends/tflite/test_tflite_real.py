"""Real networks in LiteRT: float as onnxruntime computes them, int8 in agreement with the int8 ONNX model."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zc.backends.tflite.emit import bundle, flatten
from zc.backends.tflite.legalise import legalise
from zc.backends.tflite.litert import LiteRtRunner
from zc.backends.tflite.targets import TARGET
from zc.data import load_samples
from zc.data.synthetic import synthesize
from zc.execute import Runner, relative_error
from zc.ir.bind import fix_shapes
from zc.ir.model import load
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("litert")]

NETS = {
    "resnet20_cifar10": {},
    "resnet8_cifar10": {},
    "squeezenet10_imagenet": {},
    "mobilenetv1_025_imagenet": {},
    "vww_mobilenetv1_025": {},
    "superres_espcn": {"input": (1, 1, 48, 64)},
    "ultraface_rfb_320": {},
    "magika_standard_v3_3": {"bytes": (1, 2048)},
    "minilm_l6_trim": {"input_ids": (1, 16), "attention_mask": (1, 16), "token_type_ids": (1, 16)},
}
CONVOLUTIONS = set(NETS) - {"minilm_l6_trim"}


@pytest.mark.parametrize("name", NETS)
def test_float_nets_compute_the_same(shared: Path, name: str) -> None:
    model = load(shared / "models" / f"{name}.onnx")
    if NETS[name]:
        fix_shapes(model, NETS[name])
    flat = flatten(legalise(model))
    if name in CONVOLUTIONS:
        assert Counter(op.code for op in flat.graph.ops)["TRANSPOSE"] == 0
    ranges = {"attention_mask": (1, 1), "token_type_ids": (0, 0), "input_ids": (0, 500), "bytes": (0, 256)}
    hints = {spec.name: ranges[spec.name] for spec in model.inputs if spec.name in ranges}
    feeds = next(synthesize(model.inputs, 1, seed=0, hints=hints).batches(1))
    got, want = LiteRtRunner(bundle({"main": flat})).run(feeds), Runner(model, threads=1).run(feeds)
    for key, value in want.items():
        assert relative_error(got[key], value) < 2e-5


def test_int8_agrees_with_the_int8_model_in_onnxruntime(shared: Path) -> None:
    model = load(shared / "models" / "resnet8_cifar10.onnx")
    data = shared / "data"
    calib = load_samples(str(data / "cifar10_train15k.npz"), model.inputs, rows="0:64", prep="raw")
    test = load_samples(str(data / "cifar10_test4k.npz"), model.inputs, rows="0:200", prep="raw")
    options = Quantize(rounding="nearest", equalize=False, guard=False, method="minmax")
    options.run(model, Context(TARGET, calib))
    flat = flatten(legalise(model))
    counts = Counter(op.code for op in flat.graph.ops)
    assert (counts["TRANSPOSE"], counts["QUANTIZE"], counts["DEQUANTIZE"]) == (0, 1, 1)
    runners = LiteRtRunner(bundle({"main": flat})), Runner(model, threads=1)
    ours, theirs = (
        np.concatenate([next(iter(r.run(b).values())).argmax(1) for b in test.batches(20)]) for r in runners
    )
    assert (ours == theirs).mean() >= 0.98
