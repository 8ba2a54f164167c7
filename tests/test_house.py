"""How the house is built: floors, packages, one way in. What a linter cannot say."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Lowest first; a module may import from its own package and from lower floors. The first floor is below all.
FLOORS = [
    {"zc.errors", "zc.figures", "zc.page", "zc.track"},
    {"zc.ir"},
    {"zc.target", "zc.data", "zc.kernels", "zc.execute"},
    {"zc.measure"},
    {"zc.pipeline"},
    {"zc.training"},
    {"zc.passes", "zc.runtime"},
    {"zc.backends"},
    {"zc.search", "zc.report", "zc.testing"},
    {"zc.cli", "zc.pytest_plugin"},
]
PACKAGE_FOLDERS = {"zc": ROOT / "zc", "zc.passes": ROOT / "passes", "zc.backends": ROOT / "backends"}


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGE_FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *(p for p in parts if p != "__init__")]), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(name: str) -> str | None:
    """The member of FLOORS that a module belongs to."""
    short = ".".join(name.split(".")[:2])
    return short if any(short in floor for floor in FLOORS) else None


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


def test_imports_only_go_down() -> None:
    wrong = []
    for name, path in modules():
        here = part(name)
        for other in imports(path):
            there = part(other)
            if here is None or there is None or here == there:
                continue
            if floor(there) > floor(here) or floor(there) == floor(here):
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_every_module_has_its_floor() -> None:
    unknown = {name for name, _ in modules() if name not in ("zc", "zc.__main__") and part(name) is None}
    assert unknown == set()


def test_only_the_ir_imports_and_exports_models() -> None:
    wrong = []
    for name, path in modules():
        used = {
            i for i in imports(path) if i.startswith("google.protobuf") or i.endswith((".import_onnx", ".export_onnx"))
        }
        if used and not name.startswith("zc.ir"):
            wrong.append(name)
    assert wrong == []


def test_the_package_list_is_the_tree() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [name for name, path in modules() if path.name == "__init__.py"]
    assert sorted(listed) == sorted(found)


@pytest.mark.parametrize("folder", ["passes", "backends"])
def test_a_second_copy_of_the_modules_is_refused(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert f"import zc.{folder}, not {folder}" in done.stderr


def test_the_checkout_runs_without_installing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zc", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("zc ")


def test_help_imports_nothing_heavy() -> None:
    probe = "import sys, zc.cli.main as m; m.cli.main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    for heavy in ("onnx", "numpy", "onnxruntime", "numba", "rich"):
        assert f"'{heavy}'" not in done.stdout


def test_commands_say_in_the_list_what_they_say_themselves() -> None:
    import click

    from zc.cli.main import COMMANDS, cli

    for name, text in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.get_short_help_str(200) == text
        assert "Example" in (command.help or ""), name


def test_texts_name_commands_that_there_are() -> None:
    from zc.cli.main import COMMANDS

    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(path for _, path in modules())]
    named = {name for page in pages for name in re.findall(r"`zc ([a-z]+)", page.read_text())}
    assert "stats" in named
    assert named - set(COMMANDS) == set()


def test_there_is_no_file_of_thousands_of_lines() -> None:
    long = {name: lines for name, path in modules() if (lines := len(path.read_text().splitlines())) > 450}
    assert long == {}
