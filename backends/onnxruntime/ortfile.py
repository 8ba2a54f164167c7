"""An .ort file in one fixed order of bytes.

onnxruntime writes the table of kernel types at the head of the file in the order of a hash table, which is another in
every run; all that follows is always the same. Here the head is written again, sorted, before the rest as it stands.
The format is a flatbuffer (onnxruntime, core/flatbuffers/schema/ort.fbs): its offsets are relative, so the rest may
move as a whole, by a multiple of the widest alignment.
"""

import struct
from collections.abc import Iterator
from typing import Any

import flatbuffers

IDENTIFIER = b"ORTM"
_ALIGNED = 64
_GAP = 16
"""More bytes than this between two parts of the head are none of its padding."""

Extent = tuple[int, int]
Entry = tuple[bytes, list[tuple[bytes, list[tuple[int, int]]]]]
"""An operator, and for each of its type names the inputs and outputs (kind, index) that it stands for."""


def canonical(data: bytes) -> bytes:
    """The same file with its head in order; as it is where it has another form than is known here."""
    try:
        return _rewritten(data)
    except (ImportError, AttributeError, IndexError, TypeError, ValueError, struct.error):
        return data


def _rewritten(data: bytes) -> bytes:
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    session = InferenceSession.GetRootAs(data, 0)
    resolver = session.KernelTypeStrResolver()
    if data[4:8] != IDENTIFIER or resolver is None:
        return data
    end = 8
    for start, stop in sorted([*_own(session), *_extents(resolver)]):
        if start > end + _GAP:
            break  # shared with the rest of the file
        end = max(end, stop)
    end += (len(data) - end) % 4
    head = _head(sorted(_entries(resolver)))
    place = len(head) + (end - len(head)) % _ALIGNED
    made = bytearray(head.ljust(place, b"\0") + data[end:])
    new = InferenceSession.GetRootAs(bytes(made), 0)
    for slot in (4, 6):  # ort_version, model
        field, old = new._tab.Pos + new._tab.Offset(slot), session._tab.Pos + session._tab.Offset(slot)
        target = old + struct.unpack_from("<I", data, old)[0]
        if target < end:
            raise ValueError("the head holds more than is known")
        struct.pack_into("<I", made, field, target - end + place - field)
    return bytes(made)


def _entries(resolver: Any) -> Iterator[Entry]:
    for i in range(resolver.OpKernelTypeStrArgsLength()):
        op = resolver.OpKernelTypeStrArgs(i)
        kinds = []
        for j in range(op.KernelTypeStrArgsLength()):
            one = op.KernelTypeStrArgs(j)
            args = [(one.Args(k).ArgType(), one.Args(k).Index()) for k in range(one.ArgsLength())]
            kinds.append((one.KernelTypeStr(), args))
        yield op.OpId(), sorted(kinds)


# ---- where the parts of the head lie


def _extents(resolver: Any) -> Iterator[Extent]:
    yield from _own(resolver)
    yield _vector(resolver, 4)
    for i in range(resolver.OpKernelTypeStrArgsLength()):
        op = resolver.OpKernelTypeStrArgs(i)
        yield from (*_own(op), _text(op, 4), _vector(op, 6))
        for j in range(op.KernelTypeStrArgsLength()):
            one = op.KernelTypeStrArgs(j)
            yield from (*_own(one), _text(one, 4), _vector(one, 6))
            for k in range(one.ArgsLength()):
                yield from _own(one.Args(k))


def _own(table: Any) -> Iterator[Extent]:
    """A table and its table of fields."""
    data, at = table._tab.Bytes, table._tab.Pos
    fields = at - struct.unpack_from("<i", data, at)[0]
    size, inline = struct.unpack_from("<HH", data, fields)
    yield at, at + inline
    yield fields, fields + size


def _target(table: Any, slot: int) -> int:
    at = table._tab.Pos + table._tab.Offset(slot)
    return int(at + struct.unpack_from("<I", table._tab.Bytes, at)[0])


def _vector(table: Any, slot: int) -> Extent:
    at = _target(table, slot)
    return at, at + 4 + 4 * struct.unpack_from("<I", table._tab.Bytes, at)[0]


def _text(table: Any, slot: int) -> Extent:
    at = _target(table, slot)
    return at, at + 5 + struct.unpack_from("<I", table._tab.Bytes, at)[0]


# ---- the head anew


def _head(entries: list[Entry]) -> bytes:
    """The head with these entries; its version and model lead nowhere yet."""
    builder = flatbuffers.Builder(1024)
    nowhere = builder.CreateString("")
    ops = []
    for op, kinds in entries:
        made = []
        for kind, args in kinds:
            places = [_table(builder, [(0, "int8", put), (1, "uint32", index)]) for put, index in args]
            made.append(_named(builder, kind, places))
        ops.append(_named(builder, op, made))
    resolver = _table(builder, [(0, "offset", _list(builder, ops))])
    fields = [(0, "offset", nowhere), (1, "offset", nowhere), (3, "offset", resolver)]
    builder.Finish(_table(builder, fields), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _named(builder: Any, name: bytes, items: list[int]) -> int:
    """A table of a name and a list."""
    return _table(builder, [(0, "offset", builder.CreateString(name)), (1, "offset", _list(builder, items))])


def _table(builder: Any, fields: list[tuple[int, str, int]]) -> int:
    builder.StartObject(4)
    for slot, kind, value in fields:
        if kind == "offset":
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        elif kind == "int8":
            builder.PrependInt8Slot(slot, value, 0)
        else:
            builder.PrependUint32Slot(slot, value, 0)
    return int(builder.EndObject())


def _list(builder: Any, items: list[int]) -> int:
    builder.StartVector(4, len(items), 4)
    for one in reversed(items):
        builder.PrependUOffsetTRelative(one)
    return int(builder.EndVector())
