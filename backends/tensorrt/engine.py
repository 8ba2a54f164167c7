"""Where TensorRT is installed beside a GPU: builds the engine of a folder, runs it, times it."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from zc.backends.base import NotHere
from zc.errors import ZcError
from zc.execute import Feeds
from zc.ir.graph import Array


def missing() -> str | None:
    """Why no engine can be built here, or None."""
    for package in ("tensorrt", "torch"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import torch

    return None if torch.cuda.is_available() else "there is no NVIDIA GPU"


def build_engine(folder: Path) -> dict[str, Any]:
    """Build model.plan in a folder that was emitted. ZcError with TensorRT's reason."""
    from zc.backends.tensorrt.build import build

    try:
        return build(folder, folder / "model.plan")
    except RuntimeError as err:
        raise ZcError(f"{folder}: TensorRT builds no engine: {err}") from err


class TensorRTEngine:
    """Runs model.plan of a folder; torch holds what is on the GPU."""

    def __init__(self, folder: Path) -> None:
        """Read the engine, or build it first. NotHere where that cannot be."""
        why = missing()
        if why is not None:
            raise NotHere(f"{folder}: {why}, so the engine is neither built nor run")
        plan = folder / "model.plan"
        if not plan.is_file():
            build_engine(folder)
        import tensorrt as trt

        self.trt = trt
        self.engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan.read_bytes())
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        modes = {name: self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = [name for name in names if modes[name]]
        self.outputs = [name for name in names if not modes[name]]

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """All outputs of one feed."""
        import torch

        held = {}
        for name in self.inputs:
            held[name] = torch.from_numpy(np.ascontiguousarray(feeds[name])).cuda()
            self.context.set_input_shape(name, tuple(held[name].shape))
        for name in self.outputs:
            dtype = torch.from_numpy(np.empty(0, self.trt.nptype(self.engine.get_tensor_dtype(name)))).dtype
            held[name] = torch.empty(tuple(self.context.get_tensor_shape(name)), dtype=dtype, device="cuda")
        for name, tensor in held.items():
            self.context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream()
        self.context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return {name: held[name].cpu().numpy() for name in self.outputs}
