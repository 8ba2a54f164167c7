"""The example of a golden test runs, and fails when the graph is another."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_example(folder: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "ZC_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_the_example_passes_and_its_golden_file_matters(tmp_path: Path) -> None:
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    done = run_example(copy)
    assert done.returncode == 0, done.stdout
    expected = copy / "expected" / "strip-softmax.txt"
    expected.write_text(expected.read_text().replace("MatMul", "Gemm"))
    done = run_example(copy)
    assert done.returncode == 1
    assert "operator Gemm -> MatMul" in done.stdout
