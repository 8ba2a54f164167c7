"""What really runs in integers: read from the graph that onnxruntime makes of the written model."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zc.execute import Runner
from zc.ir.graph import Node, describe
from zc.ir.model import Model, load
from zc.passes.quantize.find_codes import loaded_codes
from zc.passes.quantize.form import Form
from zc.passes.quantize.weights import Coded
from zc.passes.quantize.workshop import KeepFloat, Workshop
from zc.target import Target

ROUNDS = 3
"""How often a model is looked at again after layers were left float: what stands beside them may not fuse then."""


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
        ops = readers.get(loaded_codes(one.weight).name, set())
        if ops & {"DequantizeLinear"} or not ops & target.integer_runtime_ops:
            found.append((one, ", ".join(sorted(ops)) or "nothing that reads its weight"))
    return found


def fusing(workshop: Workshop, form: Form, keep_float: KeepFloat) -> tuple[KeepFloat, int]:
    """`keep_float` with the layers that the runtime would run in float all the same, and their number.

    Written as Q/DQ such a layer turns its codes back into floats at every run: slower than float, and less accurate.
    """
    found: dict[str, str] = {}
    if not workshop.ctx.target.integer_runtime_ops:
        return keep_float, 0  # not a place that can be looked at here

    def keep(node: Node) -> str | None:
        return found.get(describe(node)) or keep_float(node)

    plain = replace(form, bias_correct=False, rounding="nearest")
    for _ in range(ROUNDS):
        built = workshop.build(plain, keep)
        unfused = still_float(built.model, built.coded, workshop.ctx.target)
        if not unfused:
            break
        for one, runs in unfused:
            found[one.where] = f"onnxruntime does not fuse it into an int8 kernel (it runs {runs})"
    return keep, len(found)
