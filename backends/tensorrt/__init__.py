"""NVIDIA TensorRT: a folder with the strongly typed Q/DQ model and what builds an engine of it."""

from zc.backends.tensorrt.target import TARGET

__all__ = ["TARGET"]
