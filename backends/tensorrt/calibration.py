"""The calibration cache that TensorRT up to 10 reads with a float model in place of Q/DQ.

    TRT-100900-EntropyCalibration2
    input: 3c010a14
    /Relu_output_0: 3d2c1b0a

A line a value: its name, and the bits of its float32 scale as big-endian hexadecimal digits.
"""

import struct

from zc.backends.qdq import quantisers, scale_of
from zc.ir.graph import Node, fixed_value
from zc.ir.model import Model

HEAD = "TRT-100900-EntropyCalibration2"


def cache_text(model: Model) -> str:
    """The scales of the activations of a quantised model, by the names that they have in the float one too."""
    scales: dict[str, float] = {}
    for node in quantisers(model):
        scale, value = scale_of(node), node.inputs[0]
        if scale is not None and scale.size == 1 and fixed_value(value) is None:
            scales.setdefault(_float_name(node, value.name), float(scale.reshape(-1)[0]))
    return "\n".join([HEAD, *(f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items()), ""])


def _float_name(node: Node, name: str) -> str:
    """The float model's name of a value: what is put out as codes passed it on to what DequantizeLinear makes."""
    made = [t.name for reader in node.outputs[0].outputs for t in reader.outputs]
    return next((one for one in made if name == f"{one}_raw"), name)
