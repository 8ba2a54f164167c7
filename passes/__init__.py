"""The passes of the product. `BUILTIN` names the module of each; a pass is imported when it is asked for."""

if __name__ != "zc.passes":
    raise ImportError("import zc.passes, not passes: a second copy of every module would be made")

BUILTIN: dict[str, str] = {
    "fold": "zc.passes.cleanup.fold",
    "fuse": "zc.passes.cleanup.fuse",
    "canonicalize": "zc.passes.cleanup.canonicalize",
    "dedup": "zc.passes.cleanup.dedup",
    "dce": "zc.passes.cleanup.dce",
    "inline": "zc.passes.cleanup.inline",
    "clean": "zc.passes.cleanup.clean",
    "tailor": "zc.passes.tailor.tailor",
    "prune": "zc.passes.prune.prune",
    "sparsify": "zc.passes.sparsify.sparsify",
    "decompose": "zc.passes.decompose.decompose",
    "cluster": "zc.passes.cluster.cluster",
    "equalize": "zc.passes.quantize.equalize",
    "clip": "zc.passes.quantize.clip",
    "smooth": "zc.passes.quantize.smooth",
    "quantize": "zc.passes.quantize.quantize",
    "quantize-weights": "zc.passes.quantize.quantize_weights",
    "round": "zc.passes.quantize.round",
    "bias-correct": "zc.passes.quantize.bias_correct",
    "quantize-dynamic": "zc.passes.quantize.quantize_dynamic",
    "float8": "zc.passes.quantize.float8",
    "fp16": "zc.passes.precision.fp16",
    "bf16": "zc.passes.precision.bf16",
    "distill": "zc.passes.recover.distill",
    "qat": "zc.passes.recover.qat",
    "finetune": "zc.passes.recover.finetune",
}
"""Pass name -> module that registers it."""
