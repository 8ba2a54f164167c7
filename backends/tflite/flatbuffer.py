"""Writes flat graphs as the bytes of a .tflite file (FlatBuffers, schema version 3, identifier TFL3)."""

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zc.backends.tflite.flat import FlatGraph, FlatOp, FlatTensor, Quant
from zc.backends.tflite.versions import version_of
from zc.errors import ZcError
from zc.ir.graph import Array

FILE_LIMIT = 2**31 - 2**20
"""Offsets in a FlatBuffer are of 31 bits."""

ALIGNMENT = 16
"""Bytes to which the schema aligns the data of buffers (`force_align`)."""

_TYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "bool": "BOOL", "float64": "FLOAT64"}
_OPTIONS = {
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions",
    "CONV_2D": "Conv2DOptions",
    "CONV_3D": "Conv3DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "PADV2": "PadV2Options",
    "SELECT_V2": "SelectV2Options",
    "TOPK_V2": "TopKV2Options",
    "GATHER_ND": "GatherNdOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "ATAN2": "ATan2Options",
    "BITWISE_XOR": "BitwiseXorOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    **dict.fromkeys(
        ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL"), "ReducerOptions"
    ),
}
"""Tables of options that are not called as the operator is."""

_NO_OPTIONS = frozenset(
    {
        *("LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "ELU", "PRELU", "LOG", "SQRT", "RSQRT"),
        *("SIN", "FLOOR", "CEIL", "ROUND"),
    }
)


def schema() -> Any:
    """The object API of the schema. ZcError where the package that holds it is not installed."""
    try:
        return importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError:
        raise ZcError("TFLite files need the package ai-edge-litert; install zc[tflite]") from None


def write(graphs: Sequence[FlatGraph], metadata: Mapping[str, bytes] | None = None) -> bytes:
    """The bytes of a file: one subgraph and one signature for each graph; equal constants are stored once.

    Raises:
        ZcError: a package is missing, or the file would be larger than 2 GB.
    """
    return _Writer(schema()).file(graphs, dict(metadata or {}))


class _Writer:
    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, b"zc"
        self.model.operatorCodes, self.model.buffers, self.model.metadata = [], [self._buffer(b"")], []
        self.model.signatureDefs = []
        self.codes: dict[tuple[str, int], int] = {}
        self.buffers: dict[str, int] = {}
        self.size = 0

    def file(self, graphs: Sequence[FlatGraph], metadata: Mapping[str, bytes]) -> bytes:
        flatbuffers = importlib.import_module("flatbuffers")
        self.model.subgraphs = [self._subgraph(graph) for graph in graphs]
        for name, data in metadata.items():
            entry = self.schema.MetadataT()
            entry.name, entry.buffer = name.encode(), self._store(np.frombuffer(data, np.uint8))
            self.model.metadata.append(entry)
        if self.size > FILE_LIMIT:
            raise ZcError(f"{self.size / 2**30:.1f} GiB of weights do not fit into a .tflite file (2 GB)")
        builder = flatbuffers.Builder(self.size + 2**16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # ---- parts

    def _subgraph(self, graph: FlatGraph) -> Any:
        tensors = graph.tensors()
        index = {id(t): i for i, t in enumerate(tensors)}
        part = self.schema.SubGraphT()
        part.name = graph.name.encode()
        part.tensors = [self._tensor(t) for t in tensors]
        part.inputs = [index[id(t)] for t in graph.inputs.values()]
        part.outputs = [index[id(t)] for t in graph.outputs.values()]
        part.operators = [self._operator(op, index) for op in graph.ops]
        self.model.signatureDefs.append(self._signature(graph, index))
        return part

    def _signature(self, graph: FlatGraph, index: Mapping[int, int]) -> Any:
        entry = self.schema.SignatureDefT()
        entry.signatureKey, entry.subgraphIndex = graph.name.encode(), len(self.model.signatureDefs)
        entry.inputs, entry.outputs = (
            [self._named(name, index[id(tensor)]) for name, tensor in ends.items()]
            for ends in (graph.inputs, graph.outputs)
        )
        return entry

    def _named(self, name: str, index: int) -> Any:
        entry = self.schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        return entry

    def _tensor(self, tensor: FlatTensor) -> Any:
        entry = self.schema.TensorT()
        entry.name, entry.hasRank = tensor.name.encode(), True
        entry.shape = [1 if d < 0 else d for d in tensor.shape]
        if not tensor.static:
            entry.shapeSignature = list(tensor.shape)
        entry.type = getattr(self.schema.TensorType, _TYPES.get(tensor.dtype.name, tensor.dtype.name.upper()))
        entry.buffer = 0 if tensor.data is None else self._store(tensor.data)
        if tensor.quant is not None:
            entry.quantization = self._quantization(tensor.quant)
        return entry

    def _quantization(self, quant: Quant) -> Any:
        entry = self.schema.QuantizationParametersT()
        entry.scale, entry.zeroPoint = quant.scale.astype(np.float32), quant.zero.astype(np.int64)
        entry.quantizedDimension = quant.axis
        return entry

    def _operator(self, op: FlatOp, index: Mapping[int, int]) -> Any:
        entry = self.schema.OperatorT()
        entry.opcodeIndex = self._code(op.code, version_of(op))
        entry.inputs = [-1 if t is None else index[id(t)] for t in op.inputs]
        entry.outputs = [index[id(t)] for t in op.outputs]
        if op.code not in _NO_OPTIONS:
            name = _OPTIONS.get(op.code, "".join(w.capitalize() for w in op.code.split("_")) + "Options")
            kind = getattr(self.schema.BuiltinOptions, name, None)
            if kind is not None:
                entry.builtinOptionsType, entry.builtinOptions = kind, self._options(name, op)
        return entry

    def _options(self, name: str, op: FlatOp) -> Any:
        options = getattr(self.schema, name + "T")()
        for key, value in op.options.items():
            if key not in vars(options):
                raise ZcError(f"the installed schema has no option {key} of {op.code}; install ai-edge-litert>=1.2")
            setattr(options, key, self._enum(key, value))
        return options

    def _enum(self, key: str, value: Any) -> Any:
        enums = {
            "padding": "Padding",
            "fusedActivationFunction": "ActivationFunctionType",
            "mode": "MirrorPadMode",
            "outputType": "TensorType",
            "outType": "TensorType",
            "inDataType": "TensorType",
            "outDataType": "TensorType",
        }
        return getattr(getattr(self.schema, enums[key]), value) if isinstance(value, str) else value

    def _code(self, code: str, version: int) -> int:
        if (code, version) not in self.codes:
            entry = self.schema.OperatorCodeT()
            entry.builtinCode = getattr(self.schema.BuiltinOperator, code)
            entry.deprecatedBuiltinCode, entry.version = min(entry.builtinCode, 127), version
            self.model.operatorCodes.append(entry)
            self.codes[code, version] = len(self.model.operatorCodes) - 1
        return self.codes[code, version]

    # ---- buffers

    def _store(self, data: Array) -> int:
        raw = np.ascontiguousarray(data).tobytes()
        key = hashlib.sha256(raw).hexdigest()
        if key not in self.buffers:
            self.model.buffers.append(self._buffer(raw))
            self.buffers[key] = len(self.model.buffers) - 1
            self.size += len(raw)
        return self.buffers[key]

    def _buffer(self, raw: bytes) -> Any:
        """A buffer whose data is aligned as the schema demands; the object API would align it to one byte."""
        schema, buffer = self.schema, self.schema.BufferT()

        def pack(builder: Any) -> Any:
            vector = None
            if raw:
                builder.StartVector(1, len(raw), ALIGNMENT)
                builder.head = builder.head - len(raw)
                builder.Bytes[builder.head : builder.head + len(raw)] = raw
                vector = builder.EndVector()
            schema.BufferStart(builder)
            if vector is not None:
                schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

        buffer.Pack = pack
        return buffer
