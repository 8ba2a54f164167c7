"""Weights in a file beside the model."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zc.errors import ZcError
from zc.ir.graph import Constant
from zc.ir.model import Model, load


def external(location: str, dims: list[int], **entries: int) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def model_of(*weights: TensorProto) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", [w.name], [f"y_{w.name}"]) for w in weights]
    ends = [helper.make_tensor_value_info(f"y_{w.name}", w.data_type, list(w.dims)) for w in weights]
    graph = helper.make_graph(nodes, "g", [], ends, list(weights))
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `m.onnx` whose weight `w` = 0..999 stands at offset 64 of `w.bin`."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "w.bin").write_bytes(b"\0" * 64 + np.arange(1000, dtype="<f4").tobytes())
    (home / "m.onnx").write_bytes(model_of(external("w.bin", [1000], offset=64, length=4000)).SerializeToString())
    return home


def weight(model: Model) -> Constant:
    return model.constants()[0]


def test_data_is_found_beside_the_model_wherever_one_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    model = load("home/m.onnx")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(load(folder / "m.onnx").constants()[0].values, np.arange(1000))
    monkeypatch.chdir(folder.parent)
    np.testing.assert_array_equal(weight(model).values, np.arange(1000))


def test_an_untouched_weight_is_saved_inside_when_it_fits(folder: Path) -> None:
    load(folder / "m.onnx").save(folder / "in.onnx")
    (folder / "w.bin").unlink()
    np.testing.assert_array_equal(weight(load(folder / "in.onnx")).values, np.arange(1000))


def test_a_touched_weight_is_saved_with_its_new_numbers(folder: Path) -> None:
    model = load(folder / "m.onnx")
    weight(model).values = weight(model).values * 2
    model.save(folder / "out.onnx")
    written = onnx.load(folder / "out.onnx", load_external_data=False).graph.initializer[0]
    assert written.data_location == TensorProto.DEFAULT
    np.testing.assert_array_equal(numpy_helper.to_array(written), np.arange(1000) * 2)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT2, TensorProto.FLOAT6E2M3, TensorProto.BFLOAT16])
def test_types_that_fill_no_bytes_go_out_and_come_back(tmp_path: Path, kind: int) -> None:
    array = (np.arange(4099) % 2).astype(helper.tensor_dtype_to_np_dtype(kind))
    model = Model.from_proto(model_of(numpy_helper.from_array(array, "w")))
    model.save(tmp_path / "m.onnx", external=True)
    np.testing.assert_array_equal(weight(load(tmp_path / "m.onnx")).values, array)
    onnx.checker.check_model(tmp_path / "m.onnx")


def test_saving_beside_shares_nothing_and_reads_back(folder: Path) -> None:
    model = load(folder / "m.onnx")
    model.save(folder / "big.onnx", external=True)
    assert (folder / "big.onnx.data").stat().st_size == 4000
    (folder / "w.bin").unlink()
    np.testing.assert_array_equal(weight(load(folder / "big.onnx")).values, np.arange(1000))


def test_saving_beside_twice_gives_the_same_two_files(folder: Path) -> None:
    model = load(folder / "m.onnx")
    model.save(folder / "big.onnx", external=True)
    first = {p.name: p.read_bytes() for p in folder.glob("big*")}
    model.save(folder / "big.onnx", external=True)
    assert {p.name: p.read_bytes() for p in folder.glob("big*")} == first


def test_a_model_may_be_saved_over_itself(folder: Path) -> None:
    load(folder / "m.onnx").save(folder / "big.onnx", external=True)
    model = load(folder / "big.onnx")
    other = load(folder / "big.onnx")
    model.save(folder / "big.onnx", external=True)
    for one in (model, other, load(folder / "big.onnx")):
        np.testing.assert_array_equal(weight(one).values, np.arange(1000))


def test_data_that_changed_since_the_model_was_read_is_not_taken(folder: Path) -> None:
    model = load(folder / "m.onnx")
    (folder / "w.bin").write_bytes(b"\1" * 4064)
    os.utime(folder / "w.bin", (1, 1))
    with pytest.raises(ZcError, match="external data has changed since the model was read; load the model again"):
        _ = weight(model).values
    with pytest.raises(ZcError, match="has changed since"):
        model.save(folder / "out.onnx")
    assert not (folder / "out.onnx").exists()


def test_tensors_in_attributes_may_be_external_too(folder: Path) -> None:
    proto = model_of(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    node = proto.graph.node.add(op_type="Constant", output=["c"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(external("w.bin", [16], offset=0))
    node.attribute.add(name="more", type=onnx.AttributeProto.TENSORS).tensors.append(
        external("w.bin", [1000], offset=64)
    )
    (folder / "attr.onnx").write_bytes(proto.SerializeToString())
    load(folder / "attr.onnx").save(folder / "in.onnx")
    (folder / "w.bin").unlink()
    value, more = onnx.load(folder / "in.onnx", load_external_data=False).graph.node[1].attribute
    np.testing.assert_array_equal(numpy_helper.to_array(value.t), np.zeros(16))
    np.testing.assert_array_equal(numpy_helper.to_array(more.tensors[0]), np.arange(1000))


# ---- what is refused


@pytest.mark.parametrize(
    ("location", "how"),
    [
        ("/etc/passwd", ""),
        ("../secret.bin", ""),
        ("sub/../../secret.bin", ""),
        ("link.bin", ", by a link"),
        ("linked/secret.bin", ""),
        ("", ""),
    ],
)
def test_data_outside_the_folder_is_refused(folder: Path, location: str, how: str) -> None:
    (folder.parent / "secret.bin").write_bytes(b"\0" * 16)
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    (folder / "linked").symlink_to(folder.parent)
    (folder / "bad.onnx").write_bytes(model_of(external(location, [4])).SerializeToString())
    with pytest.raises(
        ZcError, match=rf"bad.onnx: initializer 'w': external data '.*' is outside the model's folder{how}; refused"
    ):
        load(folder / "bad.onnx")


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (external("gone.bin", [4]), "external data file 'gone.bin' is missing beside the model"),
        (external("w.bin", [4], length=12), "the shape \\[4\\] needs 16 at offset 0 \\(the model says 12\\)"),
        (external("w.bin", [4], offset=4060), "'w.bin' holds 4064 bytes; the shape \\[4\\] needs 16 at offset 4060"),
        (external("w.bin", [4], offset=-8), "needs 16 at offset -8"),
        (external("w.bin", [1 << 40]), "needs 4398046511104 at offset 0"),
        (external("a\0b", [4]), "external data 'a\\\\x00b' cannot be read"),
        (external("x" * 5000, [4]), "cannot be read"),
        (external("loop", [4]), "cannot be read"),
    ],
)
def test_data_that_is_missing_or_does_not_fit_is_refused(folder: Path, tensor: TensorProto, reason: str) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "bad.onnx").write_bytes(model_of(tensor).SerializeToString())
    with pytest.raises(ZcError, match=f"bad.onnx: initializer 'w': .*{reason}") as caught:
        load(folder / "bad.onnx")
    assert "\n" not in str(caught.value)


def test_a_bad_number_in_the_entries_is_refused(folder: Path) -> None:
    tensor = external("w.bin", [4])
    tensor.external_data.add(key="offset", value="four")
    (folder / "bad.onnx").write_bytes(model_of(tensor).SerializeToString())
    with pytest.raises(ZcError, match="external data offset or length is not a number"):
        load(folder / "bad.onnx")


def test_external_data_needs_a_file_to_be_beside(folder: Path) -> None:
    with pytest.raises(ZcError, match=r"is external \('w.bin'\) but the model was not read from a file"):
        Model.from_proto(onnx.load(folder / "m.onnx", load_external_data=False))


# ---- beyond 2 GB

_BIG = """
import resource, sys
from pathlib import Path
import numpy as np
from zc.ir.model import load
from zc.ir.shapes import infer_shapes
from zc.ir.check import check

folder = Path(sys.argv[1])
model = load(folder / "big.onnx")
check(model)
model = model.copy()
model.constants()[-1].values = np.full(3, 7, np.float32)
infer_shapes(model, stale=True)
model.save(folder / "out.onnx")
status = Path("/proc/self/status")
if status.exists():  # what getrusage tells on Linux begins with the memory of the process that started this one
    (peak,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    print(int(peak) // 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_a_model_beyond_2_gb_is_edited_and_saved_in_bounded_memory(tmp_path: Path) -> None:
    count, size = 5, 110 * 2**20  # five weights of 440 MiB, most of it a hole in the file
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(count * size * 4)
        file.seek((count - 1) * size * 4)
        file.write(np.array([1.5, 2.5], "<f4").tobytes())
    weights = []
    for i in range(count):
        weights.append(external("w.bin", [size], offset=i * size * 4, length=size * 4))
        weights[-1].name = f"w{i}"
    weights.append(numpy_helper.from_array(np.ones(3, np.float32), "small"))
    (tmp_path / "big.onnx").write_bytes(model_of(*weights).SerializeToString())
    done = subprocess.run([sys.executable, "-c", _BIG, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 700  # MiB, of which the imports take about 150
    again = load(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size < 10_000
    assert again.nbytes() == count * size * 4 + 12
    by_name = {c.name: c for c in again.constants()}
    assert by_name["w4"].values[:3].tolist() == [1.5, 2.5, 0.0]
    assert by_name["small"].values.tolist() == [7, 7, 7]
    with pytest.raises(ZcError, match=r"2.1 GiB of weights do not fit into one message; save it"):
        again.to_proto()
    for path in tmp_path.glob("*"):
        path.unlink()
