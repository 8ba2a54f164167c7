"""The command lines that build an engine of a folder: trtexec of TensorRT 10 and of 11."""

import shlex
from collections.abc import Sequence

from zc.backends.tensorrt.profiles import Profile

_HEAD = """#!/bin/sh
# Builds model.plan from model.onnx with TensorRT {major}. What was timed is kept in timing.cache, so that the next
# build is quick and chooses the same kernels; layers.json says what became of every layer, and in which type.
set -eu
cd "$(dirname "$0")"
"""


def trtexec(major: int, profiles: Sequence[Profile], *, level: int, sparse: bool) -> str:
    """The words of the command, for a major version of TensorRT.

    TensorRT 10 must be told that the types in the model bind (--stronglyTyped); TensorRT 11 knows nothing else and has
    no flags for precision (release notes, TensorRT 11.0).
    """
    words = ["trtexec", "--onnx=model.onnx", "--saveEngine=model.plan"]
    if major < 11:
        words.append("--stronglyTyped")
    for flag, field in (("minShapes", "least"), ("optShapes", "usual"), ("maxShapes", "largest")):
        shapes = [f"{p.name}:{'x'.join(map(str, getattr(p, field)))}" for p in profiles if getattr(p, field)]
        if shapes:
            words.append(f"--{flag}={','.join(shapes)}")
    if sparse:
        words.append("--sparsity=enable")
    words += [
        f"--builderOptimizationLevel={level}",
        "--timingCacheFile=timing.cache",
        "--profilingVerbosity=detailed",
        "--exportLayerInfo=layers.json",
    ]
    return " \\\n  ".join(shlex.quote(word) for word in words)


def script(major: int, profiles: Sequence[Profile], *, level: int, sparse: bool) -> str:
    """A shell script that runs it in its own folder."""
    command = trtexec(major, profiles, level=level, sparse=sparse)
    return f'{_HEAD.format(major=major)}{command} \\\n  "$@"\n'
