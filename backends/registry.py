"""Which targets exist: built in (`zc.backends.BUILTIN`), and from packages (entry point group `zc.targets`)."""

import dataclasses
import importlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zc.errors import ZcError, nearest
from zc.target import Target

if TYPE_CHECKING:
    from zc.backends.base import Backend

GROUP = "zc.targets"
CPUS = ("vnni", "avx2", "auto")
"""Kinds of processors that a target may tell apart."""
DEFAULT = "ort-cpu"


def find_backend(text: str, cpu: str | None = None) -> "Backend":
    """The backend that a text names, with its options: `tflite`, `tflite:io=int8`, `ort-cpu/avx2`.

    cpu: a kind of processor, one of `CPUS`; `auto` is this machine's. The name of the target says which it became.

    Raises:
        ZcError: there is no such target, with the nearest name, or it does not tell processors apart, or has no such
            option.
    """
    from zc.pipeline.options import build, printed
    from zc.pipeline.spec import read_step

    head, colon, rest = text.partition(":")
    base, _, ending = head.partition("/")
    backend = _find(base)
    _, given = read_step(f"{base}{colon}{rest}", "target")
    kind = cpu or ending
    if kind:
        if kind not in CPUS:
            raise ZcError(f"unknown processor '{kind}'{nearest(kind, list(CPUS))}; known: {', '.join(CPUS)}")
        if "cpu" not in {f.name for f in dataclasses.fields(backend)}:  # type: ignore[arg-type]
            raise ZcError(f"target {base} is the same on every processor; leave --cpu out")
        given["cpu"] = kind
    if not given:
        return backend
    kept: dict[str, str | None] = dict(printed(backend))
    return build(type(backend), kept | given, "target")


def find_target(name: str, cpu: str | None = None) -> Target:
    """The target of the backend that a text names; see `find_backend`. A target's own name finds it again."""
    return find_backend(name, cpu).target


def names() -> list[str]:
    """The names of all targets that can be found: built in first."""
    return list(dict.fromkeys([*_builtin(), *(p.name for p in _entry_points())]))


def owner(name: str) -> str:
    """Where a target comes from, as a person reads it."""
    if name in _builtin():
        return "built in"
    return next((_owner(p) for p in _entry_points() if p.name == name), "unknown")


def implied_target(output: str | Path | None, named: str | None = None) -> str:
    """The target to work for: the one named, else the one whose ending an output has, else ort-cpu.

    ZcError when the output's ending is that of another target than the one named.
    """
    suffix = Path(output).suffix if output is not None else ""
    table: dict[str, str] = importlib.import_module("zc.backends").SUFFIXES
    writer = table.get(suffix)
    if named is None:
        return writer or _plugin_with(suffix) or DEFAULT
    if writer is not None and suffix != ".onnx":
        backend = find_backend(named)
        if suffix not in backend.suffixes:
            others = " or ".join(dict.fromkeys([*backend.suffixes, ".onnx"]))
            raise ZcError(
                f"{output}: {suffix} is what target {writer} writes; for {backend.name} name it {others}, "
                f"or give --target {writer}"
            )
    return named


def _plugin_with(suffix: str) -> str | None:
    if not suffix:
        return None
    return next((p.name for p in _entry_points() if suffix in _load(p).suffixes), None)


def _find(name: str) -> "Backend":
    where = _builtin().get(name)
    points = [p for p in _entry_points() if p.name == name]
    if where is not None and points:
        raise ZcError(f"two targets have the name '{name}': the one built in and {_owner(points[0])}; uninstall it")
    if where is not None:
        module, _, value = where.partition(":")
        backend: Any = getattr(importlib.import_module(module), value)
        return _checked(backend, name, where)
    if not points:
        raise ZcError(f"unknown target '{name}'{nearest(name, names())}; known: {', '.join(names())}")
    if len({p.value for p in points}) > 1:
        raise ZcError(f"two targets have the name '{name}': {' and '.join(map(_owner, points))}; uninstall one")
    return _load(points[0])


def _load(point: metadata.EntryPoint) -> "Backend":
    try:
        backend = point.load()
    except ZcError:
        raise
    except Exception as err:
        raise ZcError(f"target '{point.name}' of {_owner(point)}: {type(err).__name__}: {err}") from err
    return _checked(backend, point.name, _owner(point))


def _checked(backend: Any, name: str, where: str) -> "Backend":
    from zc.backends.base import Backend

    if not isinstance(backend, Backend) or not dataclasses.is_dataclass(backend):
        raise ZcError(f"target '{name}' of {where} is no Backend: give an instance of a frozen dataclass of that class")
    if backend.name != name:
        raise ZcError(f"target '{name}' of {where} calls itself '{backend.name}'; give both the same name")
    return backend


def _builtin() -> dict[str, str]:
    return importlib.import_module("zc.backends").BUILTIN  # type: ignore[no-any-return]


def _entry_points() -> list[metadata.EntryPoint]:
    return sorted(metadata.entry_points(group=GROUP), key=lambda p: (p.name, p.value))


def _owner(point: metadata.EntryPoint) -> str:
    return f"{point.value} ({point.dist.name if point.dist else '?'})"
