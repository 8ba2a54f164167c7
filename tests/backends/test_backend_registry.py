"""Targets are found by name, with options, and from packages."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from zc.backends import BUILTIN, find_backend, find_target, implied_target, names, owner
from zc.backends.base import Backend
from zc.backends.registry import _checked
from zc.errors import ZcError

PLUGIN = Path(__file__).parents[1] / "plugin"
SUBTRACTION = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y) <float[2] c = {1, 2}> { y = Sub (x, c) }"""


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_target_can_be_found(name: str) -> None:
    backend = find_backend(name)
    assert isinstance(backend, Backend)
    assert (backend.name, find_target(name).name, owner(name)) == (name, name, "built in")


def test_targets_that_nobody_asked_for_are_not_imported() -> None:
    probe = "import sys, zc.backends as b; b.find_target('ort-cpu'); print([m for m in sys.modules if 'tflite' in m])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_target_takes_options() -> None:
    assert find_backend("ort-cpu:blocked=true").blocked  # type: ignore[attr-defined]
    assert find_backend("ort-cpu/avx2:blocked").target.name == "ort-cpu/avx2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ort-gpu", r"unknown target 'ort-gpu' \(did you mean"),
        ("ort-cpu:block=1", "target 'ort-cpu' has no option 'block' .did you mean 'blocked'"),
        ("ort-cpu:blocked=perhaps", "option 'blocked' takes true|false, not 'perhaps'"),
        ("ort-arm/avx2", "ort-arm is the same on every processor"),
        ("ort-cpu/z80", "unknown processor 'z80'"),
        ("", "unknown target ''"),
    ],
)
def test_a_wrong_target_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ZcError, match=message):
        find_backend(text)


def test_the_ending_of_an_output_implies_the_target() -> None:
    assert [implied_target(o) for o in ("a.onnx", "a.ort", "a.unknown", None)] == ["ort-cpu"] * 4
    assert implied_target("a.onnx", "ort-cuda") == "ort-cuda"
    with pytest.raises(ZcError, match=r"a\.ort: \.ort is what target ort-cpu writes"):
        implied_target("a.ort", "ort-cuda")


@pytest.mark.parametrize("value", [Backend, object(), None])
def test_what_is_no_backend_is_refused(value: object) -> None:
    with pytest.raises(ZcError, match="target 'odd' of somewhere is no Backend"):
        _checked(value, "odd", "somewhere")


def test_a_backend_is_called_as_its_entry_point_says() -> None:
    with pytest.raises(ZcError, match="'odd' of somewhere calls itself 'ort-cpu'"):
        _checked(find_backend("ort-cpu"), "odd", "somewhere")


@pytest.fixture
def installed(tmp_path: Path):
    """Runs zc where the package of tests/plugin is installed, by what its pyproject.toml declares."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 2.0\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups]
    (info / "entry_points.txt").write_text("\n".join(lines))
    places = [str(PLUGIN), str(tmp_path), os.environ.get("PYTHONPATH", "")]

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in places if p)}
        words = [sys.executable, "-m", "zc", *map(str, args)]
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)

    return run


def test_a_package_brings_its_target(installed, tmp_path: Path) -> None:
    from zc.ir.model import from_text

    source = tmp_path / "m.onnx"
    from_text(SUBTRACTION).save(source)
    assert "additions and convolutions alone" in installed("targets", "listing").stdout
    checked = installed("check", source, "--target", "listing")
    assert checked.returncode == 1
    assert "no-sub" in checked.stdout
    out = tmp_path / "m.listing"
    done = installed("emit", source, "-o", out)  # the ending implies the target
    assert done.returncode == 0, done.stderr
    assert "Add(" in out.read_text() or "Add (" in out.read_text()
    assert "nodes 1" in done.stdout


def test_names_begin_with_those_built_in() -> None:
    assert names()[: len(BUILTIN)] == list(BUILTIN)
