"""Real models: each prunes, or says in one line why not. (The pass itself proves equivalence.)"""

from pathlib import Path

import pytest

from zc.ir.model import load
from zc.passes.prune.prune import Prune
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline
from zc.target import Target

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "models"
MODELS = sorted(SHARED.glob("*.onnx"))

SHARE_AT_HALF = {
    "resnet20_cifar10": 0.26,
    "resnet20_cifar10_bn": 0.26,
    "resnet20_cifar10_dynamo": 0.26,
    "resnet56_cifar10": 0.26,
    "resnet56_cifar10_bn": 0.26,
    "resnet8_cifar10": 0.26,
    "squeezenet10_imagenet": 0.36,
    "mobilenetv1_025_imagenet": 0.40,
    "mobilenetv1_025_imagenet_bn": 0.40,
    "mobilenetv2_10_imagenet_qatsrc": 0.35,
    "vww_mobilenetv1_025": 0.27,
    "ultraface_rfb_320": 0.38,
    "superres_espcn": 0.27,
    "magika_standard_v3_3": 0.58,
    "minilm_l6_trim": 0.58,
    "silero_vad_op18_ifless": 0.54,
    "mnist_cntk": 0.37,
}
"""Largest share of the parameters that may be left at ratio 0.5. The rest: classifiers, embeddings, pinned widths."""


@pytest.mark.real
@pytest.mark.skipif(not MODELS, reason="no folder ../shared with real models beside the repository")
@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_half_of_the_channels_of_a_real_model(path: Path) -> None:
    model = load(path)
    ends = model.inputs, model.outputs
    report = run_pipeline(model, "prune:ratio=0.5", Context(target=Target("test")), verify="structure")
    run = report.passes[-1]
    assert run.name == Prune.name
    assert float(run.stats["equivalence_error"]) <= 1e-5
    assert float(run.stats["params_ratio"]) <= SHARE_AT_HALF[path.stem]
    assert (model.inputs, model.outputs) == ends
