"""Checkpoints: where a run stands, so that a killed one goes on and ends with the same result."""

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zc.errors import ZcError
from zc.ir.files import write_atomically

_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A file for the state of one run."""

    path: Path
    run: str
    """What the run is of (model, data, options), as text; a file of another run is refused."""

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self.run.encode()).hexdigest()

    def read(self) -> dict[str, Any] | None:
        """The state that was written last, or None where there is no file yet.

        Raises:
            ZcError: the file cannot be read, or is of another run.
        """
        if not self.path.exists():
            return None
        try:
            held = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as err:
            raise ZcError(f"{self.path}: no checkpoint of training, or a damaged one; remove it") from err
        if not isinstance(held, dict) or held.get("format") != _FORMAT or held.get("run") != self._digest:
            raise ZcError(
                f"{self.path}: is the checkpoint of another run (another model, data or options); remove it, or name "
                "another file"
            )
        state: dict[str, Any] = held["state"]
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file, at once or not at all."""
        buffer = io.BytesIO()
        torch.save({"format": _FORMAT, "run": self._digest, "state": state}, buffer)
        write_atomically(self.path, lambda file: file.write(buffer.getvalue()))
