"""Choices that are made by measuring: a model is built in each form, and each is compared with the float model."""

from dataclasses import replace

from zc.passes.quantize.activations import may_be_dynamic
from zc.passes.quantize.form import Activations, Form
from zc.passes.quantize.workshop import KeepFloat, Workshop

SLACK = 0.5
"""Decibels by which calibrated ranges must be better: ranges taken at run time fit inputs that no sample is like."""


def choose_activations(workshop: Workshop, form: Form, keep_float: KeepFloat) -> Activations:
    """Whether matrix products between float values had better look for their ranges when they run.

    Told by the signal to noise at the outputs on the rows held back. A model without such products stays static.
    """
    target = workshop.ctx.target
    places = workshop.places(keep_float)
    if not any(may_be_dynamic(site, one, target) for one in places for site in one.sites):
        return "static"
    plain = replace(form, bias_correct=False, rounding="nearest")
    forms: tuple[Activations, ...] = ("static", "dynamic")
    static, dynamic = (
        workshop.agreement(workshop.build(replace(plain, activations=one), keep_float)).sqnr for one in forms
    )
    return "static" if static > dynamic + SLACK else "dynamic"
