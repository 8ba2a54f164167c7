"""What really runs in integers: read from the graph that onnxruntime makes of the written model."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from zc.execute import Runner
from zc.ir.model import Model, load
from zc.passes.quantize.weights import Coded
from zc.target import Target


def still_float(model: Model, coded: Sequence[Coded], target: Target) -> list[tuple[Coded, str]]:
    """The weighted operators that were written for int8 kernels and do not get one, and what stands there instead.

    They are found by the name of their weight, which survives every fusion. ZcError when the session does not open.
    """
    with tempfile.TemporaryDirectory(prefix="zc-") as folder:
        path = Path(folder) / "optimized.onnx"
        Runner(model, save_optimized=path, config=target.session)
        readers: dict[str, set[str]] = {}
        for scope in load(path).scopes():
            for node in scope.nodes:
                for tensor in node.inputs:
                    readers.setdefault(tensor.name, set()).add(node.op)
    found = []
    for one in coded:
        ops = readers.get(one.weight.name, set())
        if ops & {"DequantizeLinear"} or not ops & target.integer_runtime_ops:
            found.append((one, ", ".join(sorted(ops)) or "nothing that reads its weight"))
    return found
