"""Saving: at once or not at all."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from zc.errors import ZcError
from zc.ir.exporter import External
from zc.ir.model import Model, from_text, load, write_atomically

OLD = b"the old file"


@pytest.fixture
def model() -> Model:
    return from_text(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[300] x) => (float[300] y) <float[300] w> { y = Add (x, w) }""".replace(
            "w>", f"w = {{{','.join('1' * 300)}}}>"
        )
    )


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def fail(file: BinaryIO) -> None:
    file.write(b"half")
    raise OSError(28, "No space left on device")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(OLD)
    with pytest.raises(ZcError, match=r"m.onnx: cannot be written: No space left on device"):
        write_atomically(path, fail)
    assert (names(tmp_path), path.read_bytes()) == (["m.onnx"], OLD)


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def stop(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    path = tmp_path / "m.onnx"
    path.write_bytes(OLD)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, stop)
    assert (names(tmp_path), path.read_bytes()) == (["m.onnx"], OLD)


def test_weights_that_cannot_be_written_leave_both_old_files(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, side = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    path.write_bytes(OLD)
    side.write_bytes(OLD)
    monkeypatch.setattr(External, "write", lambda self, file: fail(file))
    with pytest.raises(ZcError, match="cannot be written"):
        model.save(path, external=True)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert path.read_bytes() == side.read_bytes() == OLD


def test_a_model_that_cannot_be_written_leaves_the_old_weights(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = tmp_path / "m.onnx.data"
    side.write_bytes(OLD)
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(ZcError, match="is a folder; name a file to write"):
        model.save(tmp_path / "m.onnx", external=True)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert side.read_bytes() == OLD


def test_permissions_of_a_replaced_file_are_kept(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(OLD)
    path.chmod(0o640)
    model.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path, model: Model) -> None:
    model.save(tmp_path / "m.onnx")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "m.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_is_followed(tmp_path: Path, model: Model) -> None:
    real, link = tmp_path / "real.onnx", tmp_path / "link.onnx"
    real.write_bytes(OLD)
    link.symlink_to(real)
    model.save(link)
    assert link.is_symlink()
    assert load(real).to_proto() == model.to_proto()


def test_a_device_is_written_to_and_stays(model: Model) -> None:
    model.save(os.devnull)
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (".", "is a folder; name a file to write"),
        ("nowhere/m.onnx", "there is no folder"),
        ("file.txt/m.onnx", "there is no folder"),
        ("x" * 300 + ".onnx", "File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, model: Model, path: str, reason: str) -> None:
    (tmp_path / "file.txt").write_bytes(OLD)
    with pytest.raises(ZcError, match=reason) as caught:
        model.save(tmp_path / path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file.txt"]


def test_a_file_system_that_refuses_is_named(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ZcError, match=r"m.onnx: cannot be written: Permission denied"):
        model.save(tmp_path / "m.onnx")


def test_the_same_model_is_written_with_the_same_bytes(tmp_path: Path, model: Model) -> None:
    model.save(tmp_path / "a.onnx")
    load(tmp_path / "a.onnx").copy().save(tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_digest_does_not_depend_on_where_the_weights_stand(tmp_path: Path, model: Model) -> None:
    model.save(tmp_path / "in.onnx")
    model.save(tmp_path / "out.onnx", external=True)
    digests = {m.weights_digest() for m in (model, load(tmp_path / "in.onnx"), load(tmp_path / "out.onnx"))}
    assert len(digests) == 1
    other = model.copy()
    other.constants()[0].values = other.constants()[0].values * 2
    assert other.weights_digest() not in digests
