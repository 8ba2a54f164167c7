"""Which form of the kernels is generated: never one that the processor lacks; and all forms give the same codes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

from zc.errors import ZcError
from zc.kernels import cpu, program

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import hashlib, sys
import numpy as np
from zc.kernels.cpu import FORM
from zc.ir.model import from_text
from zc.runtime import Session
rng = np.random.default_rng(0)
w = ",".join(map(str, rng.integers(-127, 128, 70 * 7 * 9)))
d = ",".join(map(str, rng.integers(-127, 128, 70 * 9)))
session = Session(from_text('''<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,7,9,9] x) => (float[N,70,1,1] y)
    <float s = {0.05}, uint8 z = {100}, float ws = {0.002}, int8 wz = {0},
     int8[70,7,3,3] w = {%s}, int8[70,1,3,3] d = {%s}> {
        xq = QuantizeLinear (x, s, z)
        xd = DequantizeLinear (xq, s, z)
        wd = DequantizeLinear (w, ws, wz)
        c = Conv <pads = [1,1,1,1]> (xd, wd)
        cq = QuantizeLinear (c, s, z)
        cd = DequantizeLinear (cq, s, z)
        dd = DequantizeLinear (d, ws, wz)
        e = Conv <pads = [1,1,1,1], group = 70> (cd, dd)
        eq = QuantizeLinear (e, s, z)
        ed = DequantizeLinear (eq, s, z)
        r = LeakyRelu (ed)
        rq = QuantizeLinear (r, s, z)
        rd = DequantizeLinear (rq, s, z)
        a = Add (cd, rd)
        aq = QuantizeLinear (a, s, z)
        ad = DequantizeLinear (aq, s, z)
        p = GlobalAveragePool (ad)
        pq = QuantizeLinear (p, s, z)
        y = DequantizeLinear (pq, s, z)
    }''' % (w, d)))
(y,) = session.run(None, {"x": rng.standard_normal((3, 7, 9, 9)).astype(np.float32)})
print(FORM.name, len(session.float_nodes), hashlib.sha256(y.tobytes()).hexdigest(), np.unique(y).size > 3)
"""


def probe(prelude: str = "", **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", prelude + PROBE],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout.split()


@pytest.mark.slow
def test_an_older_processor_gets_other_instructions_and_the_same_codes() -> None:
    best = probe()
    old = probe(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx,+avx2,+fma,+f16c,+sse4.2,+popcnt,+bmi,+bmi2")
    assert old[0] == "avx2"
    lower = [probe(ZC_KERNELS=form) for form in cpu.FORMS[: cpu.FORMS.index(cpu.FORM.name)]]
    assert [one[0] for one in lower] == list(cpu.FORMS[: len(lower)])
    assert all(one[1:] == best[1:] for one in (old, *lower))
    assert best[1] == "0"
    assert best[3] == "True"


@pytest.mark.slow
def test_a_newer_processors_form_gives_the_same_codes_in_emulation(tmp_path: Path) -> None:
    prelude = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.kernels.emulation as e; e.use(True)\n"
    found = probe(prelude, NUMBA_CACHE_DIR=str(tmp_path), ZC_KERNELS="avx512vnni")
    assert found[0] == "avx512vnni"
    assert found[1:] == probe()[1:]


def pretend(monkeypatch: pytest.MonkeyPatch, features: frozenset[str], allowed: bool | None) -> list[bool]:
    """Another processor on x86, and what its system answers about tiles (None: nobody may ask); the answers given."""
    asked: list[bool] = []

    def answer() -> bool:
        assert allowed is not None
        asked.append(allowed)
        return allowed

    monkeypatch.delenv("ZC_KERNELS", raising=False)
    monkeypatch.setattr(config, "CPU_FEATURES", ",".join(f"+{name}" for name in sorted(features)), raising=False)
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(cpu, "tiles_allowed", answer)
    return asked


@pytest.mark.parametrize("missing", sorted(cpu.NEEDED))
def test_every_feature_is_needed(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    pretend(monkeypatch, (cpu.PAIRS | cpu.NEEDED | cpu.TILES) - {missing}, None)
    assert cpu.choose() == cpu.Form("avx2", permute=False)


@pytest.mark.parametrize("missing", sorted(cpu.PAIRS))
def test_a_processor_without_pairs_gets_plain_vectors(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    pretend(monkeypatch, (cpu.PAIRS | cpu.NEEDED | cpu.TILES) - {missing}, None)
    assert cpu.choose() == cpu.Form("portable", permute=False)


@pytest.mark.parametrize("missing", sorted(cpu.TILES))
def test_tiles_need_both_features_before_anybody_asks_for_them(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    pretend(monkeypatch, (cpu.PAIRS | cpu.NEEDED | cpu.TILES) - {missing}, None)
    assert cpu.choose() == cpu.Form("avx512vnni", permute=False)


@pytest.mark.parametrize(("allowed", "name"), [(True, "amx"), (False, "avx512vnni")])
def test_tiles_need_the_systems_leave(monkeypatch: pytest.MonkeyPatch, allowed: bool, name: str) -> None:
    asked = pretend(monkeypatch, cpu.PAIRS | cpu.NEEDED | cpu.TILES, allowed)
    assert cpu.choose() == cpu.Form(name, permute=False)
    assert asked == [allowed]


def test_another_system_is_not_asked_for_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(cpu.ctypes, "CDLL", None)
    assert not cpu.tiles_allowed()


def test_a_system_without_the_call_allows_no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def syscall(self, *_: int) -> int:
            return -1

    monkeypatch.setattr(cpu.platform, "system", lambda: "Linux")
    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _: Refusing())
    assert not cpu.tiles_allowed()


@pytest.mark.parametrize("most", ["portable", "avx2", "avx512vnni"])
def test_a_lower_form_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, most: str) -> None:
    pretend(monkeypatch, cpu.PAIRS | cpu.NEEDED | cpu.TILES, None)
    monkeypatch.setenv("ZC_KERNELS", most)
    assert cpu.choose().name == most


def test_a_form_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZC_KERNELS", "avx512_vnni")
    with pytest.raises(ZcError, match=r"ZC_KERNELS=avx512_vnni: no such form .*'avx512vnni'"):
        cpu.choose()


def test_a_processor_known_by_name_alone_is_trusted_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CPU_FEATURES", None, raising=False)
    monkeypatch.setattr(config, "CPU_NAME", "icelake-server", raising=False)
    assert cpu.choose().name == "portable"


def test_a_row_needs_all_its_operands() -> None:
    with pytest.raises(ValueError, match="fill: operands missing or unknown"):
        program.row(program.FILL, y=0, length=1)
    assert program.row(program.FILL, y=1, length=2, value=3)[:5] == [program.FILL, 1, 1, 2, 3]


def test_threads_share_every_part_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    out = np.zeros(10_000 + 128, np.uint8)
    rows = [program.row(program.FILL, 7, y=out.ctypes.data, length=10_000, value=v) for v in range(1, 200)]
    table, gates = np.array(rows), np.zeros((len(rows), 2), np.int64)
    scratch = [np.zeros(program.SCRATCH_BYTES, np.uint8) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(program.interpret, table, 0, 199, 3, s.ctypes.data, gates.ctypes.data) for s in scratch]
        for run in runs:
            run.result()
    assert (gates[:, 1] == 7).all()
    assert (out[:10_000] == 199).all()
    assert not out[10_000:].any()
