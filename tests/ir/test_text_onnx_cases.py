"""The node cases that onnx generates: printed, read back and compared without one exception."""

import json
import warnings

import pytest

from zc.ir.diff import diff, render_html, render_text, to_json
from zc.ir.model import Model
from zc.ir.text import parse_text, print_model


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: Model.from_proto(case.model) for case in collect_testcases()}


@pytest.mark.slow
def test_all_of_them_print_and_read_back(models: dict[str, Model]) -> None:
    assert len(models) >= 1800
    wrong = []
    for name, model in models.items():
        full, hashed = print_model(model, weights="full"), print_model(model)
        back = parse_text(full)
        if (print_model(back, weights="full"), print_model(back)) != (full, hashed):
            wrong.append(name)
        if print_model(parse_text(hashed, hashed=True)) != hashed:
            wrong.append(name)
    assert wrong == []


@pytest.mark.slow
def test_all_of_them_equal_their_hashed_text_and_differ_from_their_neighbour(models: dict[str, Model]) -> None:
    last = None
    for name, model in models.items():
        assert diff(model, parse_text(print_model(model), hashed=True)).equal, name
        if last is not None:
            difference = diff(last, model)
            assert not difference.equal, name
            assert difference.summary() in render_text(difference)
            assert render_html(difference).endswith("</html>\n")
            json.dumps(to_json(difference), allow_nan=False)
        last = model
