from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zc.errors import ZcError
from zc.ir.model import Model
from zc.pipeline import options
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register
from zc.pipeline.spec import Pipeline, effective, named_pipelines, parse, pass_defaults, step_text


@register
@dataclass(frozen=True)
class Knobs(Pass):
    """A pass with an option of every kind."""

    name: ClassVar[str] = "knobs"

    ratio: float = 0.25
    """Share to take,
    between 0 and 1."""
    count: int = 3
    mode: Literal["fast", "exact"] = "fast"
    flag: bool = False
    label: str = ""
    limit: float | None = None
    parts: tuple[str, ...] = ()

    def run(self, model: Model, ctx: Context) -> PassResult:
        return PassResult(changed=False)


@register
@dataclass(frozen=True)
class Strict(Pass):
    name: ClassVar[str] = "strict"
    requires: ClassVar[tuple[str, ...]] = ("knobs:count=1",)

    width: int

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ZcError(f"width={self.width}: must be at least 1")

    def run(self, model: Model, ctx: Context) -> PassResult:
        return PassResult(changed=False)


def test_options_are_typed() -> None:
    (one,) = parse("knobs:ratio=0.5:count=7:mode=exact:flag:label=a/b*:limit=2:parts=x+y").passes
    assert one == Knobs(0.5, 7, "exact", True, "a/b*", 2.0, ("x", "y"))


def test_braces_hold_any_value() -> None:
    (one,) = parse("""knobs{label="a, b:c={x} \\"q\\"" parts='p q' flag}""").passes
    assert one == Knobs(label='a, b:c={x} "q"', parts=("p q",), flag=True)


def test_a_value_may_end_in_a_backslash() -> None:
    assert parse(str(Pipeline((Knobs(label="C:\\models\\"), Knobs(count=3))))).passes == (
        Knobs(label="C:\\models\\"),
        Knobs(count=3),
    )


def test_defaults_are_not_printed() -> None:
    assert str(parse("knobs, knobs:count=3,knobs:count=4")) == "knobs,knobs,knobs:count=4"


@given(
    st.builds(
        Knobs,
        ratio=st.floats(allow_nan=False),
        count=st.integers(),
        mode=st.sampled_from(["fast", "exact"]),
        flag=st.booleans(),
        label=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"], include_characters=" ")),
        limit=st.none() | st.floats(allow_nan=False),
        parts=st.lists(st.text("abc/*", min_size=1)).map(tuple),
    )
)
def test_printed_text_reads_back(one: Knobs) -> None:
    text = step_text(one)
    assert parse(f"knobs,{text}").passes[1] == one
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no pass"),
        ("knobs,,knobs", "a pass name is missing"),
        ("knobz", "did you mean 'knobs'"),
        ("knobs:cout=3", "no option 'cout' (did you mean 'count'?)"),
        ("knobs:count=three", "'count' takes integer, not 'three'"),
        ("knobs:mode=fats", "takes fast|exact, not 'fats' (did you mean 'fast'?)"),
        ("knobs:count", "needs a value: count=integer"),
        ("knobs:count=", "written key=value"),
        ("knobs:count=1:count=2", "given twice"),
        ("knobs{count=1", "brace is not closed"),
        ("knobs{=}", "cannot read"),
        ("knobs}", "unexpected '}'"),
        ("strict", "needs the option width"),
        ("strict:width=0", "strict: width=0: must be at least 1"),
        ("@rel", "no pipeline named '@rel' (did you mean '@"[:29]),
        ("@loop", "lead in a circle"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(ZcError) as caught:
        parse(text, {"release": "knobs", "loop": "@loop"})
    assert message in str(caught.value)


def test_named_pipelines_come_from_the_nearest_zc_toml(tmp_path) -> None:
    (tmp_path / "zc.toml").write_text('[pipelines]\nrelease = "knobs:count=9,strict:width=2"\n')
    (tmp_path / "deep").mkdir()
    named = named_pipelines(tmp_path / "deep")
    assert str(parse("knobs,@release", named)) == "knobs,knobs:count=9,strict:width=2"


def test_other_tables_of_zc_toml_hold_options_of_passes(tmp_path) -> None:
    (tmp_path / "zc.toml").write_text("""
        [pipelines]
        all = "quantize:method=entropy"
        [quantize]
        method = "mse"
        per_channel = false
        skip = ["/a", "/b"]
        [quantize.overrides]
        "Conv" = {per_channel = true, weight_bits = 4}
        "/head+1/*" = "float"
    """)
    defaults = pass_defaults(tmp_path)
    assert str(parse("quantize", {}, defaults)) == (
        'quantize{method=mse per_channel=false overrides="Conv per_channel=true weight_bits=4+/head?1/* float" '
        "skip=/a+/b}"
    )
    (given,) = parse("@all", named_pipelines(tmp_path), defaults).passes
    assert given.options()["method"] == "entropy"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[quantise]", "neither .pipelines. nor a pass .did you mean 'quantize'"),
        ("quantize = 3", "quantize is no table"),
        ("[quantize]\nmethod = 2020-01-01", "quantize.method: a date is no option"),
    ],
)
def test_a_table_that_is_none_of_a_pass_is_an_error(tmp_path, text: str, words: str) -> None:
    (tmp_path / "zc.toml").write_text(text)
    with pytest.raises(ZcError, match=words):
        pass_defaults(tmp_path)


def test_a_broken_zc_toml_is_named(tmp_path) -> None:
    (tmp_path / "zc.toml").write_text("[pipelines\n")
    with pytest.raises(ZcError, match=r"zc\.toml"):
        named_pipelines(tmp_path)


def test_required_passes_run_before_unless_they_just_did() -> None:
    needed = Knobs(count=1)
    assert effective(parse("strict:width=1")) == Pipeline((needed, Strict(1)))
    assert effective(parse("knobs:count=1,strict:width=1")) == Pipeline((needed, Strict(1)))
    assert effective(parse("strict:width=1,strict:width=2")) == Pipeline((needed, Strict(1), needed, Strict(2)))


def test_help_is_read_from_the_source() -> None:
    ratio, count, mode = options.explain(Knobs)[:3]
    assert ratio == options.OptionHelp("ratio", "number", "0.25", "Share to take, between 0 and 1.")
    assert (count.doc, mode.type) == ("", "fast|exact")
    assert options.explain(Strict)[0].default == "required"
