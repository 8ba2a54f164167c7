"""What a written model says of its making: `metadata_props` keys under `zc.`, enough to make it again."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from zc import __version__
from zc.errors import ZcError
from zc.ir.model import Model

_PREFIX = "zc."
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Provenance:
    """How a model was made. No times and no paths: the same making says the same."""

    pipeline: str
    """As the user gave it."""
    effective: str
    """With what the passes required."""
    target: str
    seed: int
    source: str
    """File name of the model it was made from."""
    source_sha256: str
    data: str = ""
    """Calibration data: file name, or `synthetic`."""
    data_rows: str = ""
    data_prep: str = ""
    data_sha256: str = ""
    plugins: str = "[]"
    """JSON list of [file name, sha256] of plugin files."""
    version: str = __version__

    def write(self, model: Model) -> None:
        """Put it into the model's metadata."""
        for key in [k for k in model.metadata if k.startswith(_PREFIX)]:
            del model.metadata[key]
        model.metadata.update({_PREFIX + k: str(v) for k, v in asdict(self).items() if str(v) not in ("", "[]")})

    @staticmethod
    def read(model: Model) -> "Provenance":
        """From a model's metadata. ZcError when it was not made by zc."""
        found = {k.removeprefix(_PREFIX): v for k, v in model.metadata.items() if k.startswith(_PREFIX)}
        missing = [k for k in ("pipeline", "source_sha256") if k not in found]
        if missing:
            raise ZcError(f"{model.name}: its metadata does not say how it was made (no zc.{missing[0]})")
        known = {f.name for f in fields(Provenance)}
        try:
            seed = int(found.get("seed", "0"))
            plugins = [text for name, sha in json.loads(found.get("plugins", "[]")) for text in (name, sha)]
            if not all(isinstance(text, str) for text in plugins):
                raise ValueError("plugins are not names and hashes")
        except (ValueError, TypeError):
            raise ZcError(f"{model.name}: its zc metadata is damaged") from None
        texts = {"effective": "", "target": "", "source": ""} | {k: v for k, v in found.items() if k in known}
        return Provenance(**{**texts, "seed": seed})  # type: ignore[arg-type]


def extend(model: Model, steps: str) -> None:
    """Add passes that were run since to what a model says of its making, if it says anything."""
    key = f"{_PREFIX}effective"
    if model.metadata.get(key):
        model.metadata[key] += f",{steps}"


def file_sha256(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            sha.update(piece)
    return sha.hexdigest()
