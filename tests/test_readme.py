"""What the README and the documentation promise works as it stands there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def block(mark: str) -> str:
    """The command in the code block after a mark."""
    found = re.search(rf"<!-- {mark} -->\n```\n(.*?)\n```", README, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_main_command_does_the_main_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zc.cli.main import entry

    shutil.copytree(ROOT / "golden_models", tmp_path / "golden_models")
    command = block("main command").partition(".venv/bin/zc ")[2]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["zc", *shlex.split(command)])
    with pytest.raises(SystemExit) as stop:
        entry()
    shown = capsys.readouterr()
    assert stop.value.code == 0, shown.err
    assert (tmp_path / "out.onnx").is_file()
    assert "top1" in shown.out


def test_the_test_command_installs_what_the_tests_need() -> None:
    assert "'.[test]'" in block("test command")


@pytest.mark.parametrize("page", sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]), ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_pass_in_the_documentation_runs() -> None:
    page = (ROOT / "docs" / "writing-a-pass.md").read_text()
    code = re.search(r"```python\n(@register.*?)```", page, re.DOTALL)
    assert code is not None
    head = """
from dataclasses import dataclass
from typing import ClassVar
from zc.ir.graph import fixed_value
from zc.ir.model import Model, load
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register
"""
    names: dict[str, object] = {"__name__": "documentation"}
    exec(compile(head + code.group(1), "writing-a-pass.md", "exec", dont_inherit=True), names)
    from zc.ir.model import load
    from zc.pipeline.base import Context
    from zc.target import Target

    model = load(ROOT / "golden_models" / "digits_cnn.onnx")
    clamp = names["ClampWeights"](limit=0.01)  # type: ignore[operator]
    assert clamp.run(model, Context(Target("test"))).changed
    assert max(abs(n.inputs[1].values).max() for n in model.nodes("Conv")) <= 0.01
