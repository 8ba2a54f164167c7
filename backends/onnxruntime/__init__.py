"""ONNX Runtime."""

from zc.backends.onnxruntime.cpu import TARGET, for_cpu

__all__ = ["TARGET", "for_cpu"]
