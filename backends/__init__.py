"""Places of deployment. Each is a `zc.target.Target`, with a legaliser, emitter and checker where it needs them."""

import importlib

from zc.errors import ZcError, nearest
from zc.target import Target

if __name__ != "zc.backends":
    raise ImportError("import zc.backends, not backends: a second copy of every module would be made")

TARGETS: dict[str, str] = {"ort-cpu": "zc.backends.onnxruntime"}
"""Target name -> package that defines it as TARGET."""


def find_target(name: str) -> Target:
    """The target of that name. ZcError with the nearest name when there is none."""
    if name not in TARGETS:
        raise ZcError(f"unknown target '{name}'{nearest(name, list(TARGETS))}; known: {', '.join(TARGETS)}")
    target = importlib.import_module(TARGETS[name]).TARGET
    assert isinstance(target, Target)
    return target
