"""Which products quantise what they read with the range of the data at hand, rather than with a calibrated one.

Only where it costs no more: the product reads a value that is computed in float, and puts out float. The calibrated
form rounds that value too, and adds the bias behind the kernel; the dynamic one looks for the range and adds it inside.
"""

import math
from collections import Counter

from zc.passes.quantize.placement import Placement
from zc.passes.quantize.sites import Site
from zc.target import Target

SMALLEST = 4096
"""Elements of a weight below which rounding what it multiplies costs more than it saves (64 x 64: even)."""


def make_dynamic(placement: Placement, target: Target) -> None:
    """Let the products of a placement that may do so quantise what they read when they run."""
    chosen = [site for site in placement.sites if may_be_dynamic(site, placement, target)]
    ids = {id(site.node) for site in chosen}
    placement.sites = [site for site in placement.sites if id(site.node) not in ids]
    placement.dynamic = chosen
    readers = Counter(id(site.source) for site in placement.sites)
    readers.update(id(node.inputs[position]) for node, position in placement.residuals)
    for site in chosen:
        group = placement.groups.get(id(site.source))
        if group is not None and not readers[id(site.source)] and len(group.members) == 1:
            del placement.groups[id(site.source)]  # no range is wanted any more


def may_be_dynamic(site: Site, placement: Placement, target: Target) -> bool:
    """Does the product read and put out float, in an orientation that the dynamic kernel takes as it stands?"""
    if site.node.op not in target.dynamic_ops & target.float_output_ops or site.axis != 1:
        return False
    if id(site.source) in placement.native or math.prod(site.weight.shape) < SMALLEST:
        return False
    before_activations = {id(chain[0].inputs[0]) for chain in placement.absorbed.values()}
    return id(site.output) not in placement.native | before_activations
