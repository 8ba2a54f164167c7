import subprocess
import sys
from pathlib import Path

import pytest

from zc.errors import ZcError
from zc.pipeline import registry

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
from zc.pipeline.base import Pass, PassResult
from zc.pipeline.registry import register

@register
@dataclass(frozen=True)
class Mine(Pass):
    """Mine."""
    name: ClassVar[str] = "{name}"
    def run(self, model, ctx):
        return PassResult(changed=False)
'''


def write(path: Path, name: str) -> Path:
    path.write_text(PLUGIN.replace("{name}", name))
    return path


def test_a_plugin_file_brings_its_passes(tmp_path: Path) -> None:
    path = write(tmp_path / "mine_a.py", "mine-a")
    registry.load_plugin(path)
    assert registry.find("mine-a").__name__ == "Mine"
    assert str(path) in registry.owner("mine-a")
    assert "mine-a" in registry.names()


def test_loading_a_plugin_twice_is_no_clash(tmp_path: Path) -> None:
    path = write(tmp_path / "mine_b.py", "mine-b")
    assert registry.load_plugin(path) is registry.load_plugin(path)


def test_a_clash_names_both_owners(tmp_path: Path) -> None:
    registry.load_plugin(write(tmp_path / "mine_c.py", "mine-c"))
    with pytest.raises(ZcError, match=r"mine-c.*mine_c\.Mine and .*mine_d\.Mine"):
        registry.load_plugin(write(tmp_path / "mine_d.py", "mine-c"))


def test_a_clash_with_a_built_in_pass_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZcError, match=r"'clean': zc\.passes\.cleanup\.clean.* and zc_plugin_mine_e\.Mine"):
        registry.load_plugin(write(tmp_path / "mine_e.py", "clean"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 / 0", "ZeroDivisionError"), ("x = 1", "registers no pass"), ("def", "SyntaxError")],
)
def test_a_broken_plugin_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ZcError, match=message):
        registry.load_plugin(path)


def test_a_missing_plugin_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ZcError, match="no such file"):
        registry.load_plugin(tmp_path / "none.py")


def test_an_unknown_pass_offers_the_nearest() -> None:
    with pytest.raises(ZcError, match="did you mean 'quantize'"):
        registry.find("quantise")


def test_every_built_in_pass_can_be_found() -> None:
    for name in __import__("zc.passes", fromlist=["BUILTIN"]).BUILTIN:
        assert registry.find(name).name == name
        assert registry.owner(name) == "built in"


def test_an_installed_package_brings_its_pass() -> None:
    pytest.importorskip("zc_negate", reason="tests/plugin is not installed: pip install ./tests/plugin")
    # A fresh process: nothing but the entry point knows of it.
    done = subprocess.run(
        [sys.executable, "-m", "zc", "passes", "sub-to-add"], capture_output=True, text=True, check=True
    )
    assert "Subtract a constant by adding its negative." in done.stdout
    assert "Rewrite at most this many; 0: all." in done.stdout
