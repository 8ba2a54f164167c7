"""ONNX Runtime on a 64-bit ARM processor: int8 activations and int8 weights, as Q/DQ that the default session fuses.

There the dot product takes two signed factors, so int8 codes cost nothing extra; the session fuses them unasked. The
tables of operators are those of x86-64: the same fusions make the same operators. Costs are not known, so integers are
thought to pay wherever there is a kernel.
"""

from dataclasses import replace

from zc.backends.onnxruntime.cpu import TARGET as X86

TARGET = replace(
    X86,
    name="ort-arm",
    activations="int8",
    saturates_on="",
    costs=None,
    slow_fusions=frozenset(),
    slow_subnormals=False,
    # Elsewhere the same fusions happen only if asked for; this lets any machine look at them.
    session={"session.qdqisint8allowed": "1"},
)
"""The place of deployment: ARM64 with or without the dot-product instructions."""
