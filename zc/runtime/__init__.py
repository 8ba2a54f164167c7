"""The int8 reference executor: quantised graphs in integers, bit-exact with ONNX Runtime on x86."""

from zc.runtime.session import FloatNode, Session

__all__ = ["FloatNode", "Session"]
