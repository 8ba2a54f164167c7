"""Places of deployment. Each is a `zc.target.Target`, with a legaliser, emitter and checker where it needs them."""

import importlib

from zc.errors import ZcError, nearest
from zc.target import Target

if __name__ != "zc.backends":
    raise ImportError("import zc.backends, not backends: a second copy of every module would be made")

TARGETS: dict[str, str] = {"ort-cpu": "zc.backends.onnxruntime"}
"""Target name -> package that defines it as TARGET."""


CPUS = ("vnni", "avx2", "auto")
"""Kinds of processors that a target may tell apart."""


def find_target(name: str, cpu: str | None = None) -> Target:
    """The target of that name, which may end in a kind of processor: `ort-cpu`, `ort-cpu/avx2`.

    cpu: a kind of processor, one of `CPUS`; `auto` is this machine's. The target's own name says which it became.

    Raises:
        ZcError: there is no such target, with the nearest name, or it does not tell processors apart.
    """
    base, _, ending = name.partition("/")
    if base not in TARGETS:
        raise ZcError(f"unknown target '{name}'{nearest(base, list(TARGETS))}; known: {', '.join(TARGETS)}")
    package = importlib.import_module(TARGETS[base])
    kind = cpu or ending
    if not kind:
        target = package.TARGET
    elif kind not in CPUS:
        raise ZcError(f"unknown processor '{kind}'{nearest(kind, list(CPUS))}; known: {', '.join(CPUS)}")
    elif not hasattr(package, "for_cpu"):
        raise ZcError(f"target {base} is the same on every processor; leave --cpu out")
    else:
        target = package.for_cpu(kind)
    assert isinstance(target, Target)
    return target
