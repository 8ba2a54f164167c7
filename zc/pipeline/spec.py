r"""Pipeline text: parsed to passes and printed back.

    pipeline := step ("," step)*
    step     := name (":" option)*  |  name "{" option* "}"  |  "@" name
    option   := key "=" value  |  key                    (a bare key sets a flag)

Inside braces options are separated by blanks and values may be quoted, so they may hold anything. `@name` stands for
the pipeline of that name in the `[pipelines]` table of zc.toml, whose other tables hold options of passes.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zc.errors import ZcError, nearest
from zc.pipeline import options
from zc.pipeline.base import Pass
from zc.pipeline.registry import find, names

_NAME = r"[A-Za-z][A-Za-z0-9_-]*"
_BRACE_OPTION = re.compile(r"""\s*([A-Za-z_]\w*)(?:=("(?:[^"\\]|\\.)*"|'[^']*'|[^\s"'{}]+))?""")
_PLAIN_VALUE = re.compile(r"[^\s,:{}\"'=]+")
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Pipeline:
    """Passes in the order in which they run."""

    passes: tuple[Pass, ...]

    def __str__(self) -> str:
        return ",".join(step_text(p) for p in self.passes)


Defaults = Mapping[str, Mapping[str, str]]
"""By name of a pass: options that it has unless the pipeline says otherwise, as text."""


def parse(text: str, named: Mapping[str, str] | None = None, defaults: Defaults | None = None) -> Pipeline:
    """The passes that a pipeline text names. ZcError with the place of the mistake or the nearest known name.

    named: pipelines that `@name` stands for. defaults: options for passes that the text names.
    """
    return Pipeline(tuple(_parse(text, named or {}, defaults or {}, 0)))


def step_text(one: Pass) -> str:
    """One pass as pipeline text, with the options that differ from their defaults."""
    given = options.printed(one)
    if not given:
        return one.name
    if all(_PLAIN_VALUE.fullmatch(v) for v in given.values()):
        return ":".join([one.name, *(f"{k}={v}" for k, v in given.items())])
    inner = " ".join(f"{k}={v if _PLAIN_VALUE.fullmatch(v) else _quote(v)}" for k, v in given.items())
    return f"{one.name}{{{inner}}}"


def effective(pipeline: Pipeline) -> Pipeline:
    """The pipeline as it is run.

    Schedules are written out, and the passes that others require put before them, unless what such a pass did still
    stands.
    """
    result: list[Pass] = []
    for one in _written_out(pipeline.passes):
        for text in one.requires:
            for needed in effective(parse(text)).passes:
                if not _stands(needed, result):
                    result.append(needed)
        result.append(one)
    return Pipeline(tuple(result))


def _written_out(passes: Sequence[Pass]) -> Iterator[Pass]:
    """The passes, with the rounds of those that are a schedule together with the next."""
    left = list(passes)
    while left:
        one = left.pop(0)
        rounds = one.rounds(left[0] if left else None)
        if rounds is None:
            yield one
        else:
            left.pop(0)
            yield from rounds


def _stands(needed: Pass, before: Sequence[Pass]) -> bool:
    """Has the pass run, and has nothing run behind it but passes that keep what it did?"""
    for one in reversed(before):
        if one == needed:
            return True
        if needed.name not in one.keeps:
            return False
    return False


def named_pipelines(start: Path) -> dict[str, str]:
    """The `[pipelines]` table of the nearest zc.toml, in `start` or above. ZcError when it cannot be read."""
    path, tables = _settings(start)
    table = tables.get("pipelines", {})
    wrong = [k for k, v in table.items() if not isinstance(v, str)]
    if wrong:
        raise ZcError(f"{path}: pipelines.{wrong[0]} is not a text")
    return dict(table)


def pass_defaults(start: Path) -> dict[str, dict[str, str]]:
    """The tables of the nearest zc.toml that are named for passes: options that they have unless a pipeline says so.

    [quantize]                              quantize:method=mse
    method = "mse"
    [quantize.overrides]                    quantize{overrides="Conv per_channel=false+/head/* float"}
    "Conv" = {per_channel = false}
    "/head/*" = "float"
    """
    path, tables = _settings(start)
    found = {}
    for name, table in tables.items():
        if name == "pipelines":
            continue
        if name not in names():
            close = nearest(name, ["pipelines", *names()])
            raise ZcError(f"{path}: [{name}] is neither [pipelines] nor a pass{close}")
        if not isinstance(table, dict):
            raise ZcError(f"{path}: {name} is no table; options of the pass stand under [{name}]")
        found[name] = {key: _option_text(value, f"{path}: {name}.{key}") for key, value in table.items()}
    return found


def _settings(start: Path) -> tuple[Path, dict[str, Any]]:
    """The nearest zc.toml, in `start` or above, and what it says; nothing where there is none."""
    for folder in (start, *start.resolve().parents):
        path = folder / "zc.toml"
        if path.is_file():
            try:
                return path, tomllib.loads(path.read_text())
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
                raise ZcError(f"{path}: {err}") from err
    return start / "zc.toml", {}


def _option_text(value: object, where: str) -> str:
    """A value of a zc.toml as the text of an option: lists are joined by `+`, a table is a list of keys and values."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | str):
        return str(value)
    if isinstance(value, list):
        return "+".join(_option_text(one, where) for one in value)
    if isinstance(value, dict):
        # `+` parts the items of a list; in a name any letter stands for it.
        return "+".join(f"{key.replace('+', '?')} {_item_text(item, where)}" for key, item in value.items())
    raise ZcError(f"{where}: a {type(value).__name__} is no option")


def _item_text(value: object, where: str) -> str:
    if not isinstance(value, dict):
        return _option_text(value, where)
    return " ".join(f"{key}={_option_text(one, where)}" for key, one in value.items())


def _parse(text: str, named: Mapping[str, str], defaults: Defaults, depth: int) -> list[Pass]:
    if depth > _MAX_DEPTH:
        raise ZcError(f"pipeline: '@' names lead in a circle at '{text}'")
    passes: list[Pass] = []
    for step in _split(text):
        if step.startswith("@"):
            name = step[1:]
            if name not in named:
                where = (
                    f"; zc.toml has {', '.join(sorted(named))}"
                    if named
                    else "; there is no [pipelines] in a zc.toml here"
                )
                raise ZcError(f"pipeline: no pipeline named '@{name}'{nearest(name, list(named))}{where}")
            passes.extend(_parse(named[name], named, defaults, depth + 1))
        else:
            passes.append(_step(step, defaults))
    return passes


def _split(text: str) -> list[str]:
    """The steps: commas inside braces and quotes do not separate."""
    steps, start, depth, quote, escaped = [], 0, 0, "", False
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote and not escaped else quote
            escaped = char == "\\" and quote == '"' and not escaped
        elif depth and char in "\"'":
            quote = char
        elif char in "{}":
            depth += 1 if char == "{" else -1
        elif char == "," and depth == 0:
            steps.append(text[start:i].strip())
            start = i + 1
        if depth not in (0, 1):
            raise ZcError(f"pipeline '{text}': unexpected '{char}' at {i + 1}")
    if depth or quote:
        raise ZcError(f"pipeline '{text}': a {'quote' if quote else 'brace'} is not closed")
    steps.append(text[start:].strip())
    if not all(steps):
        raise ZcError(f"pipeline '{text}': a pass name is missing" if text.strip() else "pipeline: it names no pass")
    return steps


def read_step(text: str, what: str = "pipeline") -> tuple[str, dict[str, str | None]]:
    """The name that a step begins with, and its options as text; None is a bare flag.

    what: what the text is of, for messages. ZcError with the place of the mistake.
    """
    match = re.match(_NAME, text)
    if match is None:
        raise ZcError(f"{what}: '{text}' does not begin with a name")
    name, rest = match.group(), text[match.end() :]
    if not rest:
        return name, {}
    if rest.startswith("{") and rest.endswith("}"):
        return name, _brace_options(name, rest[1:-1], what)
    if rest.startswith(":"):
        return name, _colon_options(name, rest[1:], what)
    raise ZcError(f"{what}: '{rest}' after '{name}'; options are written {name}:key=value or '{name}{{key=value}}'")


def _step(text: str, defaults: Defaults) -> Pass:
    match = re.match(_NAME, text)
    if match is None:
        raise ZcError(f"pipeline: '{text}' does not begin with the name of a pass")
    cls = find(match.group())
    return options.build(cls, {**defaults.get(cls.name, {}), **read_step(text)[1]})


def _colon_options(name: str, text: str, what: str) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    for part in text.split(":"):
        key, equals, value = part.partition("=")
        if not key or (equals and not value):
            raise ZcError(f"{what}: '{name}:{text}': an option is written key=value")
        _set(name, given, key, value if equals else None, what)
    return given


def _brace_options(name: str, text: str, what: str) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    pos = 0
    while text[pos:].strip():
        match = _BRACE_OPTION.match(text, pos)
        if match is None or match.end() == pos:
            raise ZcError(
                f"{what}: '{name}{{{text}}}': cannot read '{text[pos:].strip()}'; options are written key=value"
            )
        value = match.group(2)
        if value and value[0] in "\"'":
            value = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value[1:-1]
        _set(name, given, match.group(1), value, what)
        pos = match.end()
    return given


def _set(name: str, given: dict[str, str | None], key: str, value: str | None, what: str) -> None:
    if key in given:
        raise ZcError(f"{what}: option '{key}' of '{name}' is given twice")
    given[key] = value


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
