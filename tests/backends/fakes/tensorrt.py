"""As much of TensorRT 11's Python interface as zc uses, with the checks that the real one makes of its arguments.

A plan is the model as it was parsed, and onnxruntime computes it.
"""

import json
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

__version__ = "11.0.0"


class BuilderFlag(IntEnum):
    SPARSE_WEIGHTS = 1


class ProfilingVerbosity(IntEnum):
    DETAILED = 2


class LayerInformationFormat(IntEnum):
    JSON = 1


class TensorIOMode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class NetworkDefinitionCreationFlag:
    """Version 11 knows strongly typed networks alone."""


class Logger:
    WARNING = 1

    def __init__(self, level: int) -> None:
        assert level == self.WARNING


class Network:
    model = b""


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, *sizes: Any) -> None:
        self.shapes[name] = [tuple(one) for one in sizes]


class Cache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"+"


class Config:
    def __init__(self) -> None:
        self.flags: list[BuilderFlag] = []
        self.profiles: list[Profile] = []

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.append(flag)

    def add_optimization_profile(self, profile: Profile) -> None:
        self.profiles.append(profile)

    def create_timing_cache(self, data: bytes) -> Cache:
        return Cache(data)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.cache = cache

    def get_timing_cache(self) -> Cache:
        return self.cache


class OnnxParser:
    num_errors = 1

    def __init__(self, network: Network, logger: Logger) -> None:
        self.network = network

    def parse_from_file(self, path: str) -> bool:
        self.network.model = Path(path).read_bytes()
        return not any(node.op_type == "Det" for node in onnx.load_from_string(self.network.model).graph.node)

    def get_error(self, i: int) -> str:
        return "In node 0: no importer for Det"


class Builder:
    def __init__(self, logger: Logger) -> None:
        pass

    def create_network(self, flags: int) -> Network:
        assert flags == 0
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        open_inputs = {v.name for v in onnx.load_from_string(network.model).graph.input if _is_open(v)}
        assert all(open_inputs <= set(p.shapes) for p in config.profiles or [Profile()])
        assert (config.builder_optimization_level, config.profiling_verbosity) == (3, ProfilingVerbosity.DETAILED)
        return network.model


def _is_open(value: onnx.ValueInfoProto) -> bool:
    return any(not d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)


class Inspector:
    def get_engine_information(self, form: LayerInformationFormat) -> str:
        return json.dumps({"Layers": [], "form": form.name})


class Context:
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        zeros = {one.name: np.zeros(self.shapes[one.name], np.float32) for one in self.session.get_inputs()}
        return self.session.run([name], zeros)[0].shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> None:
        held = {name: torch.BY_ADDRESS[address] for name, address in self.addresses.items()}
        feeds = {one.name: held[one.name] for one in self.session.get_inputs()}
        for one, value in zip(self.session.get_outputs(), self.session.run(None, feeds), strict=True):
            held[one.name][...] = value


class Engine:
    def __init__(self, plan: bytes) -> None:
        self.session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self.names = [one.name for one in (*self.session.get_inputs(), *self.session.get_outputs())]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, i: int) -> str:
        return self.names[i]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        inputs = {one.name for one in self.session.get_inputs()}
        return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> type:
        return np.float32

    def create_execution_context(self) -> Context:
        return Context(self.session)

    def create_engine_inspector(self) -> Inspector:
        return Inspector()


class Runtime:
    def __init__(self, logger: Logger) -> None:
        pass

    def deserialize_cuda_engine(self, plan: bytes) -> Engine:
        return Engine(plan)


def nptype(kind: type) -> type:
    return kind
