"""The models of the folder `shared` beside the repository: how each is fed, and what its accuracy is measured by.

Rows to calibrate with and rows to measure on never overlap.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zc.data import Samples, load_samples
from zc.ir.model import Model

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Bars:
    """What is asked of the int8 file; None where nothing is."""

    drop: float | None = None
    """The largest loss of the metric, in its unit."""
    agree: float | None = None
    """The least agreement with the float model, in percent."""
    latency: float | None = None
    """The most of the float model's time."""


@dataclass(frozen=True)
class Case:
    """A model, how it is fed, and what its accuracy is measured by (`accuracy.MEASURES`)."""

    model: str
    calib: str
    test: str
    prep: str | None = None
    measure: str = "top1"
    label_offset: int = 0
    bars: Bars = Bars()

    def load(self, model: Model, calib_rows: int, rows: int, folder: Path) -> tuple[Samples, Samples]:
        """Samples to calibrate with, and others to measure on. Files that must be made go into `folder`."""
        every = self._open(self.calib, model, folder, 0)
        calib = every.take(0, min(calib_rows, every.rows // 2))
        start = calib.rows if self.test == self.calib else 0
        if self.test in TESTS:
            return calib, self._open(self.test, model, folder, start, TESTS[self.test])
        test = self._open(self.test, model, folder, 0)
        return calib, test.take(start, min(start + rows, test.rows))

    def _open(
        self, file: str, model: Model, folder: Path, start: int, make: Callable[[Arrays, int], Arrays] | None = None
    ) -> Samples:
        path = SHARED / "data" / file
        make = make or SOURCES.get(file)
        if make is not None:
            with np.load(path) as found:
                arrays = make({name: found[name] for name in found.files}, start)
            path = folder / f"{start}-{file}"
            np.savez(path, **arrays)  # type: ignore[arg-type]
        return load_samples(str(path), model.inputs, prep=self.prep)


def _frames(data: Arrays, start: int) -> Arrays:
    """Audio frames with the state before each."""
    rate = np.array(16000, np.int64)
    return {"input": data["x"], "state": data["state"], "sr": rate}


def _pairs(data: Arrays, start: int) -> Arrays:
    """Sentences: first those of all pairs on the left, then those on the right; labels: how alike people find them."""
    names = {name[2:] for name in data if name.startswith("a_")}
    both = {name: np.concatenate([data[f"a_{name}"], data[f"b_{name}"]]) for name in sorted(names)}
    return {**both, "y": np.tile(data["score"], 2)}


def _mirrored(data: Arrays, start: int) -> Arrays:
    """Images and their mirror images, since there are few."""
    images = data["x"][start:]
    return {"x": np.concatenate([images, images[..., ::-1]])}


SOURCES: dict[str, Callable[[Arrays, int], Arrays]] = {"silero.npz": _frames}
"""Files whose arrays are not named as the model's inputs."""
TESTS: dict[str, Callable[[Arrays, int], Arrays]] = {"stsb_dev.npz": _pairs, "ultraface.npz": _mirrored}
"""Files that are measured on in another form than they are calibrated with."""

CIFAR = ("cifar10_train15k.npz", "cifar10_test4k.npz", "imagenet")
FACES = ("ultraface.npz", "ultraface.npz")
IMAGENET = ("imagenet500", "imagenet500")
CASES = (
    *(Case(f"resnet20_cifar10{kind}", *CIFAR) for kind in ("", "_bn", "_dynamo")),
    Case("resnet56_cifar10", *CIFAR, bars=Bars(drop=0.2, latency=0.44)),
    Case("resnet8_cifar10", CIFAR[0], CIFAR[1], "raw", bars=Bars(drop=0.2, latency=0.58)),
    Case("squeezenet10_imagenet", *IMAGENET, "caffe crop=227", bars=Bars(drop=0.5)),
    Case("mobilenetv1_025_imagenet", *IMAGENET, "pm1 crop=224", bars=Bars(1.0, 93, 0.90)),
    Case("mobilenetv2_10_imagenet_qatsrc", *IMAGENET, "pm1 crop=224", label_offset=1, bars=Bars(0.3, latency=0.51)),
    Case("vww_mobilenetv1_025", "vww.npz", "vww.npz", "unit", "agree", bars=Bars(agree=98.5, latency=1.0)),
    Case("superres_espcn", "superres.npz", "superres.npz", "unit", "psnr", bars=Bars(drop=0.5, latency=0.6)),
    Case("magika_standard_v3_3", "magika.npz", "magika.npz", bars=Bars(drop=0.3, latency=0.42)),
    Case("minilm_l6_trim", "minilm.npz", "stsb_dev.npz", None, "spearman", bars=Bars(drop=0.2, latency=0.44)),
    Case(
        "ultraface_rfb_320", "ultraface.npz", "ultraface.npz", "scale=128 mean=0.9921875", "faces", bars=Bars(agree=99)
    ),
    Case("silero_vad_op18_ifless", "silero.npz", "silero.npz", None, "speech", bars=Bars(agree=99)),
)


def chosen(names: list[str]) -> list[Case]:
    """The cases of these names, or of names that begin so; all if none is given. SystemExit where none fits."""
    for name in names:
        if not any(case.model.startswith(name) for case in CASES):
            raise SystemExit(f"no case '{name}'; there are {', '.join(case.model for case in CASES)}")
    exact = {case.model for case in CASES} & set(names)
    prefixes = [name for name in names if name not in exact]
    return [c for c in CASES if not names or c.model in exact or any(c.model.startswith(p) for p in prefixes)]
