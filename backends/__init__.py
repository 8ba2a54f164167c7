"""Places of deployment. Each is a `zc.backends.base.Backend`: a `Target`, a legaliser, an emitter and a checker."""

from zc.backends.registry import CPUS, find_backend, find_target, implied_target, names, owner

if __name__ != "zc.backends":
    raise ImportError("import zc.backends, not backends: a second copy of every module would be made")

BUILTIN: dict[str, str] = {
    "ort-cpu": "zc.backends.onnxruntime.backend:CPU",
    "ort-arm": "zc.backends.onnxruntime.backend:ARM",
    "ort-cuda": "zc.backends.onnxruntime.backend:CUDA",
    "tensorrt": "zc.backends.tensorrt.backend:BACKEND",
    "tflite": "zc.backends.tflite.backend:BACKEND",
    "edgetpu": "zc.backends.tflite.edgetpu:BACKEND",
}
"""Name of a target -> where its backend is, as module:value. A module is imported when its target is asked for."""

SUFFIXES: dict[str, str] = {".onnx": "ort-cpu", ".ort": "ort-cpu", ".trt": "tensorrt", ".tflite": "tflite"}
"""Ending of an output -> the target that it implies where none is named."""

__all__ = ["BUILTIN", "CPUS", "SUFFIXES", "find_backend", "find_target", "implied_target", "names", "owner"]
