"""Which interpreter has which tool, and a run of one in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from results import Outcome
from tools import TOOLS

SCRIPT = Path(__file__).with_name("tools.py")


@dataclass(frozen=True)
class Peers:
    """The tools of a run."""

    interpreters: dict[str, Path]
    """By tool: the interpreter that has it."""
    versions: dict[str, str]
    missing: tuple[str, ...]
    """Tools that no interpreter has."""

    @classmethod
    def find(cls, pythons: Sequence[Path], wanted: Sequence[str] | None) -> "Peers":
        """Look for the wanted tools (all, if None) in this interpreter, then in the others."""
        interpreters: dict[str, Path] = {}
        versions: dict[str, str] = {}
        for python in (Path(sys.executable), *pythons):
            done = subprocess.run([python, SCRIPT, "--installed"], capture_output=True, text=True, check=True)
            for tool, version in json.loads(done.stdout).items():
                if (wanted is None or tool in wanted) and tool not in interpreters:
                    interpreters[tool], versions[tool] = python, version
        order = [tool for tool in TOOLS if tool in interpreters]
        missing = tuple(tool for tool in (wanted or TOOLS) if tool not in interpreters)
        return cls({tool: interpreters[tool] for tool in order}, versions, missing)


def run_tool(python: Path, tool: str, model: Path, samples: Path, out: Path, limit: float) -> Outcome:
    """Run a tool; the outcome says what it took, or why there is no file."""
    log = out.with_suffix(".log")
    started = time.perf_counter()
    with log.open("w") as sink:
        child = subprocess.Popen(
            [python, SCRIPT, tool, model, samples, out], stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        while True:
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid or time.perf_counter() - started > limit:
                break
            time.sleep(0.05)
        if not pid:
            child.kill()
            pid, status, used = os.wait4(child.pid, 0)
            child.returncode = -9
            return Outcome(tool, error=f"stopped after {limit:.0f} s")
        child.returncode = os.waitstatus_to_exitcode(status)
    outcome = Outcome(tool, seconds=time.perf_counter() - started, cpu_seconds=used.ru_utime + used.ru_stime)
    lines = log.read_text(errors="replace").strip().splitlines()
    try:
        said = json.loads(lines[-1])
    except (IndexError, ValueError):
        said = {"error": f"exit {child.returncode}: {lines[-1][:200] if lines else 'no word'}"}
    outcome.peak_mb = said.get("peak_mb")
    outcome.error = said.get("error")
    if outcome.error is None and not out.is_file():
        outcome.error = "wrote no file"
    if outcome.error is not None:
        outcome.error += "".join(f"; {line}" for line in lines if line.startswith("zc: "))[:300]
    else:
        outcome.bytes = out.stat().st_size + sum(part.stat().st_size for part in _external(out))
    return outcome


def _external(model: Path) -> list[Path]:
    """The files that hold a model's weights, beside its own."""
    tensors = onnx.load(model, load_external_data=False).graph.initializer
    names = {entry.value for t in tensors for entry in t.external_data if entry.key == "location"}
    return [model.parent / name for name in sorted(names)]


def kept(folder: Path, tool: str, version: str, model: Path, samples: Path) -> tuple[Path, Outcome | None]:
    """Where a tool's file goes, and what an earlier run of the same version on the same rows left there."""
    digest = hashlib.sha256()
    for part in (model, samples):
        digest.update(part.read_bytes())
    out = folder / f"{model.stem}-{digest.hexdigest()[:12]}-{tool.replace(' ', '-')}-{version}" / "out.onnx"
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        return out, Outcome(**json.loads(out.with_suffix(".outcome").read_text()))
    except (OSError, ValueError, TypeError):
        return out, None


def keep(out: Path, outcome: Outcome) -> None:
    """Remember what a tool took, beside its file; not where somebody stopped it."""
    if outcome.error is None or not outcome.error.startswith(("exit -", "stopped")):
        out.with_suffix(".outcome").write_text(json.dumps(asdict(outcome)))
