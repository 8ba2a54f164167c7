"""ONNX Runtime."""

from zc.backends.onnxruntime.cpu import TARGET

__all__ = ["TARGET"]
