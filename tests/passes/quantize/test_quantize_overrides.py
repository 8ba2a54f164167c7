"""Settings of single nodes: by operator, stronger by name."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.errors import ZcError
from zc.ir.model import Model
from zc.passes.quantize.form import Form
from zc.passes.quantize.overrides import Overrides, parse_override
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.spec import parse, step_text

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
NET = """(float[N,4,8,8] x) => (float[N,6] y)
    <float[8,4,3,3] w1, float[8,8,1,1] w2, float[8,6] w3> {
        ["/stem/conv"] a = Conv (x, w1)
        b = Relu (a)
        ["/body/conv"] c = Conv (b, w2)
        ["/pool"] p = GlobalAveragePool (c)
        f = Flatten (p)
        ["/head/fc"] y = MatMul (f, w3)
    }"""


@pytest.mark.parametrize(
    ("text", "pattern", "settings", "kind"),
    [
        ("Conv per_channel=false", "Conv", {"per_channel": False}, ""),
        ("/fc/MatMul weight_bits=4 method=mse", "/fc/MatMul", {"weight_bits": 4, "method": "mse"}, ""),
        ("/head/* float", "/head/*", {}, "float"),
        ("a node with blanks int8", "a node with blanks", {}, "int8"),
    ],
)
def test_what_an_override_says(text: str, pattern: str, settings: dict, kind: str):
    found = parse_override(text)
    assert (found.pattern, found.settings, found.kind) == (pattern, settings, kind)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Conv", "write 'PATTERN float' or 'PATTERN key=value"),
        ("Conv per_chanel=false", r"'per_chanel' of 'Conv' \(did you mean 'per_channel'\?\)"),
        ("Conv equalize=true", "a node has method, percentile"),
        ("Conv method=median", "option 'method' takes minmax|percentile"),
        ("Conv weight_bits=many", "takes integer, not 'many'"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, words: str):
    with pytest.raises(ZcError, match=words):
        Quantize(overrides=(text,))


def test_a_pattern_that_matches_nothing_is_an_error(graph: Callable[[str], Model]):
    with pytest.raises(ZcError, match=r"overrides=/haed/\* matches no node \(did you mean '/head/\*'\?\)"):
        Overrides(("/haed/* float",), graph(HEAD + NET))


def test_names_are_stronger_than_operators_and_later_ones_than_earlier(graph: Callable[[str], Model]):
    model = graph(HEAD + NET)
    texts = ("/stem/* method=mse", "Conv float", "Conv method=minmax", "/stem/* weight_bits=6", "/body/conv int8")
    overrides = Overrides(texts, model)
    stem, body, fc = (
        next(n for n in model.nodes() if n.name == name) for name in ("/stem/conv", "/body/conv", "/head/fc")
    )
    assert overrides.form(stem, Form()) == Form(method="mse", weight_bits=6)
    assert overrides.form(body, Form()) == Form(method="minmax")
    assert overrides.form(fc, Form()) == Form()
    assert overrides.keep_float(stem) == "quantize:overrides=Conv float"
    assert overrides.keep_float(body) is None


def test_weights_have_the_settings_of_their_node(quantize):
    q = quantize(HEAD + NET, overrides=("Conv per_channel=false", "/body/* weight_bits=4"))
    assert q.values("w1_scale").shape == ()
    assert np.abs(q.values("w2_q").astype(np.int32)).max() == 7
    assert q.values("w3_scale").shape == (6,)


def test_a_range_is_read_as_its_maker_says(quantize):
    plain, narrow = quantize(HEAD + NET, method="minmax"), quantize(
        HEAD + NET, method="minmax", overrides=("/stem/conv method=percentile percentile=90",)
    )  # fmt: skip
    assert narrow.values("b_scale") < 0.9 * plain.values("b_scale")  # behind the Relu that the range absorbs
    assert narrow.values("x_scale") < plain.values("x_scale")  # nobody makes it, /stem/conv reads it
    assert narrow.values("c_scale") == plain.values("c_scale")


def test_biases_are_corrected_where_they_may_be(quantize):
    q = quantize(HEAD + NET, bias_correct=False, overrides=("/body/conv bias_correct=true",))
    assert q.result.stats["biases_corrected"] == 1
    q = quantize(HEAD + NET, overrides=("/body/conv bias_correct=false",))
    assert len(q.node("/body/conv").inputs) == 2


def test_nodes_that_are_to_stay_float_do(quantize):
    q = quantize(HEAD + NET, overrides=("/head/* float",))
    assert "/head/fc: quantize:overrides=/head/* float" in q.reasons()
    assert q.values("w3").dtype == np.float32


def test_overrides_are_printed_and_read_back():
    one = Quantize(overrides=("Conv per_channel=false", "/head/* float"))
    assert step_text(one) == 'quantize{overrides="Conv per_channel=false+/head/* float"}'
    assert parse(step_text(one)).passes == (one,)
