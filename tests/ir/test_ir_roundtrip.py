"""Every model that the onnx package makes or ships: read, written back, valid and equal."""

import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from zc.errors import ZcError
from zc.ir.check import MIN_OPSET, problems
from zc.ir.graph import Constant
from zc.ir.model import Model

Normal = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def cases() -> dict[str, onnx.ModelProto]:
    """The node cases that onnx generates and the files that it ships, by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {f"node/{case.name}": case.model for case in collect_testcases()}
    root = Path(onnx.__file__).parent
    for path in sorted(root.rglob("*.onnx")):
        found[str(path.relative_to(root))] = onnx.load(path, load_external_data=False)
    return found


@pytest.fixture(scope="session")
def refused(cases: dict[str, onnx.ModelProto]) -> dict[str, str]:
    """Those that are not read, with the reason."""
    found = {}
    for name, proto in cases.items():
        try:
            Model.from_proto(proto)
        except ZcError as err:
            found[name] = str(err)
    return found


@pytest.fixture(scope="session")
def models(cases: dict[str, onnx.ModelProto], refused: dict[str, str]) -> dict[str, Model]:
    """Those that are."""
    return {name: Model.from_proto(proto) for name, proto in cases.items() if name not in refused}


def test_all_of_them_are_read(cases: dict[str, onnx.ModelProto], refused: dict[str, str]) -> None:
    assert sum(name.startswith("node/") for name in cases) >= 1800
    assert sum(not name.startswith("node/") for name in cases) >= 140
    assert refused == {}


def test_what_is_written_equals_what_was_read(
    cases: dict[str, onnx.ModelProto], models: dict[str, Model], normal: Normal
) -> None:
    differ = [name for name, model in models.items() if normal(model.to_proto()) != normal(cases[name])]
    assert differ == []


def test_a_copy_is_written_as_its_original(models: dict[str, Model]) -> None:
    differ = [name for name, model in models.items() if model.copy().to_proto() != model.to_proto()]
    assert differ == []


def test_they_are_valid_but_for_operator_sets_that_are_too_old(models: dict[str, Model]) -> None:
    found = {name: lines for name, model in models.items() if (lines := problems(model))}
    too_old = {name for name, model in models.items() if model.opset < MIN_OPSET}
    assert found.keys() == too_old
    assert len(too_old) >= 100
    assert all(len(lines) == 1 and "is not supported" in lines[0] for lines in found.values())


def test_weights_that_were_touched_are_written_equal(
    cases: dict[str, onnx.ModelProto], models: dict[str, Model], normal: Normal
) -> None:
    differ = []
    for name, model in models.items():
        copy = model.copy()
        constants = [*copy.constants()]
        for scope in copy.scopes():
            constants += [v for node in scope.nodes for v in node.attrs.values() if isinstance(v, Constant)]
        for constant in constants:
            if "LazySparse" not in repr(constant.lazy):
                constant.values = constant.values
        if constants and normal(copy.to_proto(), data=True) != normal(cases[name], data=True):
            differ.append(name)
    assert differ == []
