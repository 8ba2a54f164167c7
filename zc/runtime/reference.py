"""Which onnxruntime is meant by "exact": the options of the session that our kernels are held against."""


def session_options(*, signed: bool) -> dict[str, str]:
    """Options with which onnxruntime, at its default level, computes a whole graph in integers.

    signed: has the graph int8 activations? Without leave, onnxruntime keeps a part of such a graph in float; its
    kernels for them are exact on every processor, and know none of what makes those for uint8 exact (`zc.ir.exact`).
    """
    return {"session.qdqisint8allowed": "1"} if signed else {}
