"""Builds a TensorRT engine from the folder that this file lies in, with TensorRT 10 or 11.

    python build.py [--engine model.plan]

It reads manifest.json for the profiles and settings. Nothing of zc is needed: `tensorrt` is.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def build(folder: Path, engine: Path) -> dict[str, Any]:
    """Build the engine, keep what was timed in timing.cache, and write the layers of the engine beside it.

    Returns the version and the bytes of the engine. RuntimeError with the parser's reason when it does not build.
    """
    import tensorrt as trt

    settings = json.loads((folder / "manifest.json").read_text())["tensorrt"]
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # TensorRT 11 knows strongly typed networks alone and may not have the flag any more.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    major = int(trt.__version__.split(".")[0])
    network = builder.create_network(1 << int(flag) if flag is not None and major < 11 else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(folder / "model.onnx")):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RuntimeError(f"model.onnx is not parsed: {reasons}")
    config = builder.create_builder_config()
    config.builder_optimization_level = settings["level"]
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if settings["sparse"]:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if settings["profiles"]:
        profile = builder.create_optimization_profile()
        for one in settings["profiles"]:
            profile.set_shape(one["name"], one["least"], one["usual"], one["largest"])
        config.add_optimization_profile(profile)
    timing = engine.with_name("timing.cache")
    cache = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("no engine was built; the messages above say why")
    data = bytes(plan)
    engine.write_bytes(data)
    timing.write_bytes(bytes(config.get_timing_cache().serialize()))
    inspector = trt.Runtime(logger).deserialize_cuda_engine(data).create_engine_inspector()
    layers = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    engine.with_name("layers.json").write_text(layers)
    return {"tensorrt": trt.__version__, "bytes": len(data)}


def main() -> int:
    """Build where this file lies; 0 when an engine was written."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, default=here / "model.plan", help="file to write")
    args = parser.parse_args()
    try:
        made = build(here, args.engine)
    except (ImportError, RuntimeError) as err:
        sys.stderr.write(f"build: {err}\n")
        return 1
    sys.stdout.write(f"{args.engine}: {made['bytes']:,} bytes, TensorRT {made['tensorrt']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
