"""Raise the operator set of a model, where the Q/DQ form of the target needs a later one."""

import onnx
from onnx import version_converter

from zc.errors import ZcError
from zc.ir.model import Model

INT4_OPSET, INT4_IR = 21, 10
"""The first versions of the default operator set and of the file format that have numbers of 4 bits."""

WIDE_OPSET = 21
"""The first operator set with Q/DQ of 16 bits."""


def raise_opset(model: Model, lowest: int, lacks: str = "per-channel Q/DQ") -> bool:
    """Convert the model to the default operator set `lowest` if it has an earlier one. True if it was converted.

    lacks: what the earlier one has not, for the message. Weights pass through one message.
    ZcError with the converter's reason when it cannot.
    """
    if model.opset >= lowest:
        return False
    try:
        converted = version_converter.convert_version(model.to_proto(), lowest)
        onnx.checker.check_model(converted)
    except ZcError:
        raise
    except Exception as err:  # the converter raises whatever its adapters do
        why = " ".join(str(err).split())[:200]
        raise ZcError(
            f"{model.name}: opset {model.opset} has no {lacks} and cannot be raised to {lowest}: {why}; "
            "export the model again with a later opset"
        ) from err
    new = Model.from_proto(converted, model.path)
    new.metadata, new.notes = model.metadata, model.notes
    new.domain, new.version, new.doc, new.training = model.domain, model.version, model.doc, model.training
    model.take(new)
    return True
