"""The options of a pass or target: read from text, checked, printed back, and explained from the class's source."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from zc.errors import ZcError, nearest


class Named(Protocol):
    """A dataclass with a name, whose fields are options: a `Pass`, a `Backend`."""

    name: ClassVar[str]


N = TypeVar("N", bound=Named)


@dataclass(frozen=True)
class OptionHelp:
    """What `zc passes NAME` shows of one option."""

    name: str
    type: str
    default: str
    doc: str


def build(cls: type[N], given: dict[str, str | None], kind: str = "pass") -> N:
    """The pass (or target) with its options read from text; None is a bare flag.

    kind: how messages call it. ZcError names the option and what it takes.
    """
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for key, text in given.items():
        if key not in hints:
            known = f"; it has {', '.join(hints)}" if hints else "; it has no options"
            raise ZcError(f"{kind} '{cls.name}' has no option '{key}'{nearest(key, list(hints))}{known}")
        if text is None and hints[key] is not bool:
            raise ZcError(f"{kind} '{cls.name}': option '{key}' needs a value: {key}={describe_type(hints[key])}")
        values[key] = True if text is None else read_value(f"{kind} '{cls.name}'", key, text, hints[key])
    try:
        return cls(**values)
    except ZcError as err:
        raise ZcError(f"{cls.name}: {err}") from err.__cause__
    except TypeError:
        missing = [f.name for f in _fields(cls) if f.name not in values and _default(f) is dataclasses.MISSING]
        raise ZcError(f"{kind} '{cls.name}' needs the option{'s'[: len(missing) > 1]} {', '.join(missing)}") from None


def printed(one: Named) -> dict[str, str]:
    """The options that differ from their defaults, as text that `build` reads back."""
    return {f.name: _write(getattr(one, f.name)) for f in _fields(type(one)) if getattr(one, f.name) != _default(f)}


def explain(cls: type[Named]) -> list[OptionHelp]:
    """Every option with its type, default and documentation (the string below the field in the source)."""
    docs = _field_docs(cls)
    hints = _hints(cls)
    result = []
    for f in _fields(cls):
        default = _default(f)
        text = "required" if default is dataclasses.MISSING else _write(default)
        result.append(OptionHelp(f.name, describe_type(hints[f.name]), text, docs.get(f.name, "")))
    return result


def describe_type(hint: Any) -> str:
    """A type as a user reads it: `number`, `l1|l2`, `true|false`."""
    if typing.get_origin(hint) is Literal:
        return "|".join(str(v) for v in typing.get_args(hint))
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return "|".join(dict.fromkeys(describe_type(a) for a in typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return f"{describe_type(typing.get_args(hint)[0])}+..."
    return {bool: "true|false", int: "integer", float: "number", str: "text", type(None): "none"}.get(hint, str(hint))


def _fields(cls: type[Named]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()


def _hints(cls: type[Named]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in _fields(cls)}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    return "+".join(_write(v) for v in value) if isinstance(value, tuple) else str(value)


def read_value(owner: str, key: str, text: str, hint: Any) -> Any:
    """A value of a type from its text. ZcError names the pass, the option and what it takes."""
    for kind in _alternatives(hint):
        try:
            return _read_one(text, kind)
        except ValueError:
            continue
    close = nearest(text, [str(v) for v in typing.get_args(hint)]) if typing.get_origin(hint) is Literal else ""
    raise ZcError(f"{owner}: option '{key}' takes {describe_type(hint)}, not {text!r}{close}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(sorted(typing.get_args(hint), key=lambda a: a is str))  # str takes anything: it comes last
    return (hint,)


def _read_one(text: str, kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        for choice in typing.get_args(kind):
            if str(choice) == text:
                return choice
        raise ValueError(text)
    if typing.get_origin(kind) is tuple:
        return tuple(_read_one(part, typing.get_args(kind)[0]) for part in text.split("+") if part)
    if kind is bool:
        return (
            {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}[
                text.lower()
            ]
            if text.lower() in ("true", "1", "yes", "on", "false", "0", "no", "off")
            else _raise(text)
        )
    if kind is type(None):
        return None if text.lower() == "none" else _raise(text)
    return kind(text)


def _raise(text: str) -> Any:
    raise ValueError(text)


def _field_docs(cls: type[Named]) -> dict[str, str]:
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
        for field, doc in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(doc, ast.Expr)
                and isinstance(doc.value, ast.Constant)
                and isinstance(doc.value.value, str)
            ):
                docs[field.target.id] = " ".join(doc.value.value.split())
    return docs
