"""Model: a graph, what stands around it in the file, and the way from and to that file.

This module, with `importer`, `exporter` and `external` behind it, is the only place that reads and writes protobuf.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import helper

from zc.errors import ZcError
from zc.ir.adopt import adopt
from zc.ir.exporter import Digests, Exporter, External, Skeleton, imports_of
from zc.ir.external import LazyTensor, stored_bytes
from zc.ir.files import Replacement, real_target, write_atomically
from zc.ir.garbage import without_gc
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, Variable, scopes
from zc.ir.importer import import_graph, plain_domain, require_text
from zc.ir.spec import Dim, TensorSpec

PROTO_LIMIT = 2**31 - 2**20
"""Bytes that fit into one protobuf message, with some room."""

MIN_IR = 8
"""Older files are raised to this IR version: from 4 on initializers need not be inputs, from 8 on functions exist."""


@dataclass
class Model:
    """A model in memory. `graph` is an onnx-graphsurgeon graph (see `zc.ir.graph`)."""

    graph: Graph
    path: Path | None = None
    ir_version: int = MIN_IR
    domain: str = ""
    version: int = 0
    doc: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    training: tuple[onnx.TrainingInfoProto, ...] = ()
    notes: tuple[str, ...] = ()
    """What was changed on the way in, for the user to see."""

    # ---- what it says about itself

    @property
    def name(self) -> str:
        """How messages name it: the file's name, else the graph's."""
        return self.path.name if self.path else self.graph.name

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return int(self.graph.opset)

    @property
    def opsets(self) -> dict[str, int]:
        """Version of each imported operator set, by domain."""
        return {plain_domain(o.domain) or "": o.version for o in self.graph.import_domains or ()} | {"": self.opset}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a caller must feed: inputs without a default."""
        return tuple(_spec(t) for t in self.graph.inputs if not isinstance(t, Constant))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it returns."""
        return tuple(_spec(t) for t in self.graph.outputs)

    def scopes(self) -> Iterator[Graph]:
        """The graph, the bodies in it, and functions."""
        return scopes(self.graph)

    def nodes(self, *ops: str) -> list[Node]:
        """Nodes of the main graph, of the given standard operators if any are named."""
        return [cast(Node, n) for n in self.graph.nodes if not ops or (n.op in ops and cast(Node, n).standard)]

    def constants(self) -> list[Constant]:
        """Every initializer of every scope, each once, in the order of the file."""
        found: dict[int, Constant] = {}
        for scope in self.scopes():
            tensors: list[Tensor] = [*scope.declared]
            for node in scope.nodes:
                tensors.extend(node.inputs)
            found.update({id(t): t for t in (*tensors, *scope.outputs) if isinstance(t, Constant)})
        return list(found.values())

    def nbytes(self) -> int:
        """Bytes that the weights take in a file."""
        return sum(stored_bytes(c.dtype, tuple(c.shape)) for c in self.constants() if c.dtype.kind not in "OUS")

    def files(self) -> tuple[Path, ...]:
        """The files that it stands in: its own, and those of weights that were not read yet."""
        found = [lazy.file for lazy in self._unread() if lazy.file is not None]
        return tuple(dict.fromkeys([self.path, *found] if self.path is not None else found))

    def weights_digest(self) -> str:
        """Sha256 over the model as it stands, with its weights: the same whatever file they came from."""
        return hashlib.sha256(self._bytes(self._proto(Digests()))).hexdigest()

    def copy(self) -> "Model":
        """A copy whose graph can be edited on its own; arrays are shared."""
        new = Model(adopt(self.graph).copy(), self.path, self.ir_version, self.domain, self.version, self.doc)
        new.metadata, new.training, new.notes = dict(self.metadata), self.training, self.notes
        return new

    def take(self, other: "Model") -> None:
        """Become `other`, in place: for passes that build a new graph."""
        self.__dict__.update(other.__dict__)

    def set_opset(self, version: int) -> None:
        """Declare another version of the default operator set; nodes are not converted."""
        self.graph.opset = version
        kept = [o for o in self.graph.import_domains or () if plain_domain(o.domain)]
        self.graph.import_domains = [helper.make_opsetid("", version), *kept]
        self.ir_version = max(self.ir_version, helper.find_min_ir_version_for(self.graph.import_domains, True))
        for body in self.graph.subgraphs(recursive=True):
            body.opset = version

    # ---- from and to messages

    @staticmethod
    def from_proto(proto: onnx.ModelProto, path: Path | None = None) -> "Model":
        """A model from its message. ZcError if the message is no usable model."""
        if not proto.HasField("graph") or not proto.opset_import:
            missing = "names no operator set" if proto.HasField("graph") else "has no graph"
            raise ZcError(f"not an ONNX model, or a damaged one: it {missing}")
        said = (proto.domain, proto.doc_string, proto.producer_name, proto.producer_version)
        require_text((*said, *(s for p in proto.metadata_props for s in (p.key, p.value))), "the model")
        graph = import_graph(proto, path.parent if path else None)
        model = Model(graph, path, proto.ir_version, proto.domain, proto.model_version, proto.doc_string)
        model.metadata = {p.key: p.value for p in proto.metadata_props}
        model.training = tuple(proto.training_info)
        if proto.ir_version < 4:
            # Below IR 4 every initializer must be listed as an input; it never meant that callers override it.
            kept = [t for t in graph.inputs if not isinstance(t, Constant)]
            if len(kept) < len(graph.inputs):
                model.notes = (
                    f"IR version {proto.ir_version}: {len(graph.inputs) - len(kept)} initializers are no longer inputs",
                )
            graph.inputs = kept
        model.ir_version = max(proto.ir_version, MIN_IR)
        return model

    def to_proto(self, *, skeleton: bool = False, outputs: Sequence[str] | None = None) -> onnx.ModelProto:
        """The model as a message.

        skeleton: big weights become inputs (for checks and shape inference).
        outputs: return these values instead of the model's outputs, untyped where they are not outputs.
        ZcError when the message would be over 2 GB: save it instead.
        """
        if not skeleton and (size := self.nbytes()) > PROTO_LIMIT:
            raise ZcError(f"{self.name}: {size / 2**30:.1f} GiB of weights do not fit into one message; save it")
        proto = self._proto(Skeleton() if skeleton else Exporter())
        if outputs is not None:
            typed = {o.name: o for o in proto.graph.output}
            del proto.graph.output[:]
            proto.graph.output.extend(typed.get(n) or onnx.ValueInfoProto(name=n) for n in outputs)
        return proto

    def _proto(self, exporter: Exporter) -> onnx.ModelProto:
        with without_gc():
            proto = exporter.model(adopt(self.graph))
        proto.ir_version, proto.domain, proto.model_version = self.ir_version, self.domain, self.version
        proto.producer_name, proto.producer_version = self.graph.producer_name, self.graph.producer_version
        proto.doc_string = self.doc
        proto.opset_import.extend(imports_of(self.graph))
        for key, value in self.metadata.items():
            proto.metadata_props.add(key=key, value=value)
        proto.training_info.extend(self.training)
        return proto

    # ---- files

    def save(self, path: str | Path, *, external: bool | None = None) -> None:
        """Write the model to a file, at once or not at all.

        external: weights into `<name>.data` beside it; by default only when they do not fit into one message.
        ZcError when the place cannot be written; an existing file is then untouched.
        """
        path = Path(path)
        if external is None:
            external = self.nbytes() > PROTO_LIMIT
        if not external:
            data = self._bytes(self.to_proto())
            write_atomically(path, lambda file: file.write(data))
            return
        path = real_target(path)
        side = path.with_name(path.name + ".data")
        if any(lazy.file == side for lazy in self._unread()):  # what we are about to read must not be replaced
            side = path.with_name(f"{path.name}.{self.weights_digest()[:8]}.data")
        exporter = External(side.name)
        data = self._bytes(self._proto(exporter))
        with Replacement(side) as weights, Replacement(path) as main:
            weights.fill(exporter.write)
            main.fill(lambda file: file.write(data))
            # Both are whole on disk: only now, and one right after the other, do they take their places.
            weights.commit()
            main.commit()

    def _bytes(self, proto: onnx.ModelProto) -> bytes:
        try:
            return bytes(proto.SerializeToString(deterministic=True))
        except (EncodeError, ValueError) as err:
            raise ZcError(f"{self.name}: does not fit into one message (2 GB): {err}") from err

    def _unread(self) -> Iterator[LazyTensor]:
        """The weights that still stand in a file beside the model."""
        for constant in self.constants():
            if isinstance(constant.lazy, LazyTensor) and constant.lazy.external:
                yield constant.lazy


def load(path: str | Path) -> Model:
    """Read an ONNX file; weights stay in it until they are touched.

    ZcError when the file is missing, no ONNX model, damaged, or points to data outside its folder.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ZcError(f"{path}: a folder, not an ONNX file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ZcError(f"{path}: no such file") from None
    except (OSError, ValueError) as err:
        raise ZcError(f"{path}: cannot be read: {err}") from err
    if not data:
        raise ZcError(f"{path}: the file is empty")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ZcError(f"{path}: not an ONNX model, or a damaged one ({len(data)} bytes)") from None
    try:
        return Model.from_proto(proto, path)
    except ZcError as err:
        raise ZcError(f"{path}: {err}") from err.__cause__


def from_text(text: str) -> Model:
    """A model from ONNX's text form (`onnx.parser`). ZcError with the place of the mistake."""
    return Model.from_proto(parse_proto(text))


def parse_proto(text: str) -> onnx.ModelProto:
    """The message that ONNX text says. ZcError with the place of the mistake."""
    try:
        return onnx.parser.parse_model(text)
    except onnx.parser.ParseError as err:
        said = err.args[0]
        said = " ".join((said.decode(errors="replace") if isinstance(said, bytes) else str(said)).split())
        raise ZcError("ONNX text: " + said.removeprefix("[ParseError at position ").replace("]", ":", 1)) from err
    except (ValueError, IndexError, RuntimeError) as err:  # numbers out of range; text that is no Unicode
        raise ZcError(f"ONNX text: {err}") from err


def _spec(tensor: Tensor) -> TensorSpec:
    is_tensor = isinstance(tensor, Constant) or (isinstance(tensor, Variable) and tensor.type == "tensor_type")
    shape: tuple[Dim, ...] | None = None if tensor.shape is None else tuple(tensor.shape)
    return TensorSpec(tensor.name, tensor.dtype if is_tensor else None, shape)


__all__ = ["Array", "Model", "from_text", "load", "parse_proto", "write_atomically"]
