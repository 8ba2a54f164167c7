"""Makes the golden models: `python golden_models/make.py` makes all of them, `... make.py lstm` one.

Needs numpy, onnx, onnxruntime and, for the digits, scikit-learn; takes half a minute. README.md says what each file is.
"""

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import blocks
import numpy as np
import onnx

if TYPE_CHECKING:
    from digits import Split

HERE = Path(__file__).resolve().parent


def make_digits() -> None:
    """The two classifiers, and the data to calibrate and to test them with."""
    import digits

    data = digits.load()
    net = digits.train(data.train)
    for name, fold in [("digits_cnn", True), ("digits_cnn_bn", False)]:
        save(digits.model(net, fold=fold), name)
        print(f"{name}: test accuracy {accuracy(HERE / f'{name}.onnx', data.test):.2%}")
    for name, split in [("digits_calib", data.calibration), ("digits_test", data.test)]:
        np.savez_compressed(HERE / f"{name}.npz", x=split.x, y=split.y)  # entries are dated 1980: the bytes repeat


RECIPES: dict[str, Callable[[], None]] = {
    "digits": make_digits,
    "transformer_block": lambda: save(blocks.transformer_block(), "transformer_block"),
    "lstm": lambda: save(blocks.lstm(), "lstm"),
    "recommender": lambda: save(blocks.recommender(), "recommender"),
}


def save(model: onnx.ModelProto, name: str) -> None:
    """Writes a model; the same model gives the same bytes."""
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def accuracy(path: Path, split: "Split") -> float:
    """Share of the images that the model at a path gets right in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"input": split.x})[0]
    return float((np.asarray(logits).argmax(axis=1) == split.y).mean())


def write_sums() -> None:
    """Writes the hashes of everything made, in the form that `sha256sum --check` reads."""
    made = sorted([*HERE.glob("*.onnx"), *HERE.glob("*.npz")])
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
    (HERE / "SHA256SUMS").write_text("".join(lines), encoding="ascii")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the golden models.")
    parser.add_argument("name", nargs="?", choices=list(RECIPES), help="which; all of them when left out")
    chosen = parser.parse_args().name
    for name in [chosen] if chosen else RECIPES:
        RECIPES[name]()
    write_sums()


if __name__ == "__main__":
    main()
