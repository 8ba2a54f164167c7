"""ONNX's own test cases of single operators through the TFLite emitter and LiteRT; the result as a table of Markdown.

    python benchmarks/tflite_ops.py [PREFIX ...] [--write docs/tflite-ops.md]

A case counts where its operator has a form in the file. Inputs that TFLite wants constant (axes, pads, weights, ...)
are made so where the case gives them at run time. Outputs are compared with those that the case states.
"""

import multiprocessing
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from zc.backends.tflite.emit import bundle, flatten
from zc.backends.tflite.legalise import legalise
from zc.backends.tflite.litert import LiteRtRunner
from zc.backends.tflite.lowering import FLOATS, NoForm
from zc.backends.tflite.table import RULES
from zc.errors import ZcError
from zc.ir.model import Model

HALF = 3e-3
"""Tolerance where the case computes in float16 or less and the file in float32."""


@dataclass(frozen=True)
class Result:
    """What became of a case."""

    name: str
    op: str
    verdict: str
    """passed, refused, wrong, error."""
    why: str = ""


def cases(prefixes: list[str]) -> list[Any]:
    """The cases of one node each, of tensors, that are not a function written out."""
    found = []
    for case in collect_testcases(None):
        model = case.model
        if model is None or "_expanded" in case.name or len(model.graph.node) != 1:
            continue
        ends = (*model.graph.input, *model.graph.output)
        if any(e.type.WhichOneof("value") != "tensor_type" for e in ends):
            continue
        if not prefixes or any(case.name.startswith(f"test_{p}") for p in prefixes):
            found.append(case)
    return found


def with_constants(model: onnx.ModelProto, values: dict[str, Any]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model with all inputs but the first as initializers, and what is left to feed."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    kept = [i for i in model.graph.input if i.name not in values][:1] or list(model.graph.input)[:1]
    for one in list(model.graph.input):
        if one.name in values and one.name != kept[0].name:
            model.graph.initializer.append(numpy_helper.from_array(values[one.name], one.name))
            model.graph.input.remove(one)
    return model, {k: v for k, v in values.items() if k == kept[0].name}


def run(case: Any) -> Result:
    """Emit, run, compare."""
    op = case.model.graph.node[0].op_type
    names = [i.name for i in case.model.graph.input]
    given = [_array(v) for v in case.data_sets[0][0]]
    wanted = [_array(v) for v in case.data_sets[0][1]]
    feeds = dict(zip(names, given, strict=False))
    if op not in RULES or case.model.graph.node[0].domain not in {"", "ai.onnx"}:
        return Result(case.name, op, "no rule")
    refusal = ""
    known = _known_opset(case.model)
    for model, fed in ((known, feeds), with_constants(known, feeds)):
        try:
            return _compare(case, op, model, fed, wanted)
        except NoForm as err:
            refusal = refusal if refusal and "run time" not in refusal else f"{err.why}"
        except ZcError as err:
            refusal = refusal or f"error: {err}"
        except (ValueError, KeyError, AssertionError, IndexError, TypeError, AttributeError) as err:
            refusal = refusal or f"error: {type(err).__name__}: {err}"
    return Result(case.name, op, "error" if refusal.startswith("error") else "refused", refusal)


def _known_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same node in an operator set that onnxruntime knows; Q and DQ have not changed since."""
    if model.graph.node[0].op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return model
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.opset_import[0].version = min(model.opset_import[0].version, 21)
    return model


def run_all(found: list[Any]) -> list[Result]:
    """All cases in a process of their own, since LiteRT may abort; a new one after each that did."""
    results: list[Result] = []
    fork = multiprocessing.get_context("fork")
    while len(results) < len(found):
        begin = len(results)
        receiver, sender = fork.Pipe(duplex=False)
        worker = fork.Process(target=_send, args=(found[begin:], sender))
        worker.start()
        sender.close()
        try:
            while len(results) < len(found):
                results.append(receiver.recv())
        except EOFError:
            case = found[len(results)]
            results.append(Result(case.name, case.model.graph.node[0].op_type, "error", "LiteRT aborts"))
        worker.join()
    return results


def _send(found: list[Any], sender: Any) -> None:
    for case in found:
        sender.send(run(case))


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _compare(case: Any, op: str, model: onnx.ModelProto, feeds: dict[str, Any], wanted: list[Any]) -> Result:
    flat = flatten(legalise(Model.from_proto(model)))
    runner = LiteRtRunner(bundle({"serving_default": flat}))
    got = runner.run(feeds)
    coarse = any(getattr(v, "dtype", np.dtype("f4")).name in FLOATS - {"float64"} for v in (*feeds.values(), *wanted))
    loose = HALF if coarse else 1e-4
    for spec, want in zip(model.graph.output, wanted, strict=True):
        ours = np.asarray(got[spec.name]).astype(np.float64)
        want = np.asarray(want).astype(np.float64)
        if ours.shape != want.shape:
            return Result(case.name, op, "wrong", f"shape {ours.shape}, not {want.shape}")
        if not np.allclose(ours, want, rtol=max(case.rtol, loose), atol=max(case.atol, loose), equal_nan=True):
            return Result(case.name, op, "wrong", f"off by {np.nanmax(np.abs(ours - want)):.2g}")
    return Result(case.name, op, "passed")


def table(results: list[Result]) -> str:
    """Markdown: a row for each operator, and every failure by name."""
    by_op: dict[str, Counter[str]] = defaultdict(Counter)
    for one in results:
        by_op[one.op][one.verdict] += 1
    rows = [f"| {op} | {c['passed']} | {c['refused']} | {c['wrong'] + c['error']} |" for op, c in sorted(by_op.items())]
    total = Counter(one.verdict for one in results)
    head = f"{total['passed']} of {len(results)} cases pass, {total['refused']} are refused with a reason, "
    head += f"{total['wrong'] + total['error']} fail."
    bad = [f"- `{one.name}`: {one.verdict}: {one.why}" for one in results if one.verdict != "passed"]
    return "\n".join([head, "", "| operator | pass | refused | fail |", "|---|---|---|---|", *rows, "", *bad, ""])


def main() -> None:
    """Run the cases of the given prefixes, all by default."""
    words = sys.argv[1:]
    path = Path(words[words.index("--write") + 1]) if "--write" in words else None
    prefixes = words[: words.index("--write")] if path else words
    results = run_all(cases(prefixes))
    without = sorted({one.op for one in results if one.verdict == "no rule"})
    text = table([one for one in results if one.verdict != "no rule"])
    if path is None:
        print(text)
        print("no rule:", ", ".join(without))
        return
    path.write_text(f"# Single operators in TFLite\n\n{__doc__.split('    python')[0].strip()}\n\n{text}")


if __name__ == "__main__":
    main()
