"""What TensorRT 10 and 11 demand of an ONNX model, as rules."""

from zc.backends.rules import Rule
from zc.backends.tensorrt.rules.codes import CODES
from zc.backends.tensorrt.rules.operators import OPERATORS
from zc.backends.tensorrt.rules.placement import PLACEMENT

RULES: tuple[Rule, ...] = (*OPERATORS, *CODES, *PLACEMENT)

__all__ = ["RULES"]
