"""Where an artifact goes: looked at before the work begins."""

from pathlib import Path

from zc.backends.base import Backend
from zc.errors import ZcError
from zc.ir.files import Replacement, real_target


def check_output(output: Path, backend: Backend) -> None:
    """ZcError when the backend does not write files of that name, or not here, or the place cannot be written to."""
    suffixes = tuple(dict.fromkeys((*backend.suffixes, ".onnx")))
    if output.suffix not in suffixes:
        raise ZcError(f"{output}: the name must end in {' or '.join(suffixes)} for target {backend.name}")
    backend.require(output)
    if output.suffix in backend.folders:
        if output.exists() and not output.is_dir():
            raise ZcError(f"{output}: is a file; {backend.name} writes a folder")
        output = output / "any" if output.is_dir() else output
    elif output.is_dir():
        raise ZcError(f"{output}: is a folder; name a file to write")
    with Replacement(real_target(output)) as trial:  # written beside it, and gone again
        trial.fill(lambda file: None)
