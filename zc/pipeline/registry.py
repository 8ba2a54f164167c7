"""Which passes exist: built in, from installed packages (entry point group `zc.passes`), and from plugin files."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from zc.errors import ZcError, nearest
from zc.pipeline.base import Pass

P = TypeVar("P", bound=type[Pass])
GROUP = "zc.passes"


@dataclass(frozen=True)
class _Entry:
    cls: type[Pass]
    owner: str


_loaded: dict[str, _Entry] = {}


def register(cls: P) -> P:
    """Class decorator: make a pass known by its name. ZcError on a clash, naming both owners."""
    name = getattr(cls, "name", None)
    if not name or not isinstance(name, str):
        raise ZcError(f"pass class {cls.__module__}.{cls.__qualname__} has no name")
    owner = f"{cls.__module__}.{cls.__qualname__}"
    known = _loaded.get(name)
    if known is not None and known.owner != owner:
        raise ZcError(f"two passes have the name '{name}': {known.owner} and {owner}; rename one")
    builtin = _builtin().get(name)
    if builtin is not None and cls.__module__ != builtin:
        raise ZcError(f"two passes have the name '{name}': {builtin} (built in) and {owner}; rename one")
    _loaded[name] = _Entry(cls, owner)
    return cls


def find(name: str) -> type[Pass]:
    """The class of a pass. ZcError with the nearest name when there is none."""
    if name not in _loaded:
        if name in _builtin():
            importlib.import_module(_builtin()[name])
        else:
            for point in _entry_points():
                if point.name == name:
                    _load_entry_point(point)
    if name not in _loaded:
        raise ZcError(f"unknown pass '{name}'{nearest(name, names())}; `zc passes` lists them all")
    return _loaded[name].cls


def names() -> list[str]:
    """The names of all passes that can be found, sorted."""
    return sorted({*_builtin(), *_loaded, *(p.name for p in _entry_points())})


def owner(name: str) -> str:
    """Where a pass comes from, as a person reads it."""
    cls = find(name)
    if cls.__module__ == _builtin().get(name):
        return "built in"
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return f"plugin {file or cls.__module__}"


def load_plugin(path: str | Path) -> ModuleType:
    """Run a plugin file that the user named; its `@register`ed passes are known afterwards. ZcError when it fails."""
    path = Path(path)
    if not path.is_file():
        raise ZcError(f"plugin {path}: no such file")
    name = f"zc_plugin_{path.stem}"
    present = sys.modules.get(name)
    if present is not None and Path(present.__file__ or "").resolve() == path.resolve():
        return present
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ZcError(f"plugin {path}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = set(_loaded)
    try:
        spec.loader.exec_module(module)
    except ZcError:
        sys.modules.pop(name, None)
        raise
    except Exception as err:
        sys.modules.pop(name, None)
        raise ZcError(f"plugin {path}: {type(err).__name__}: {err}") from err
    if set(_loaded) == before:
        raise ZcError(f"plugin {path}: registers no pass; decorate the class with @register")
    return module


def _builtin() -> dict[str, str]:
    return importlib.import_module("zc.passes").BUILTIN  # type: ignore[no-any-return]


def _entry_points() -> list[metadata.EntryPoint]:
    return sorted(metadata.entry_points(group=GROUP), key=lambda p: (p.name, p.value))


def _load_entry_point(point: metadata.EntryPoint) -> None:
    rivals = [p for p in _entry_points() if p.name == point.name]
    if len({p.value for p in rivals}) > 1:
        owners = " and ".join(f"{p.value} ({p.dist.name if p.dist else '?'})" for p in rivals)
        raise ZcError(f"two passes have the name '{point.name}': {owners}; uninstall one")
    try:
        cls = point.load()
    except ZcError:
        raise
    except Exception as err:
        raise ZcError(f"pass '{point.name}' of {point.value}: {type(err).__name__}: {err}") from err
    if not (isinstance(cls, type) and issubclass(cls, Pass)):
        raise ZcError(f"pass '{point.name}' of {point.value} is no Pass class")
    register(cls)
