"""Rules that recognise what exporters write out: GELU and layer normalisation become one operator each.

Where the operator set has no such operator, the nodes of the idiom are left together instead: runtimes look for them,
and would not find them any more once a factor has moved into the layer behind.
"""

from collections.abc import Iterator

import numpy as np

from zc.ir.graph import Node, Variable
from zc.passes.cleanup.gelu import ANCHORS as GELU_ANCHORS
from zc.passes.cleanup.gelu import Gelu, find_gelu
from zc.passes.cleanup.layernorm import ANCHORS as NORM_ANCHORS
from zc.passes.cleanup.layernorm import LayerNorm, find_layer_norm
from zc.passes.cleanup.operands import rank_of
from zc.passes.cleanup.rules import Match, Rule, Site, always

GELU_SINCE = 20
"""The operator set that brought Gelu."""
NORM_SINCE = 17
"""The operator set that brought LayerNormalization."""


def idioms(site: Site) -> Iterator[Gelu | LayerNorm]:
    """All GELUs and layer normalisations that are written out in a scope."""
    for node in list(site.graph.nodes):
        if isinstance(node, Node) and node.standard and node.outputs:
            found = _find(node, site)
            if found is not None:
                yield found


def idiom_nodes(site: Site) -> frozenset[int]:
    """Ids of the nodes that such idioms are made of."""
    return frozenset(id(node) for one in idioms(site) for node in one.nodes)


def _find(node: Node, site: Site) -> Gelu | LayerNorm | None:
    if node.op in GELU_ANCHORS:
        return find_gelu(node, site)
    return find_layer_norm(node, site) if node.op in NORM_ANCHORS else None


def since(idiom: Gelu | LayerNorm) -> int:
    """The operator set that has one operator for it."""
    return GELU_SINCE if isinstance(idiom, Gelu) else NORM_SINCE


def _read(node: Node, site: Site) -> bool:
    """Does anything read what the node puts out? What is left of an idiom that was rewritten is dead."""
    return bool(node.outputs[0].outputs) or site.editor.is_output(node.outputs[0])


# ---- GELU


def _match_gelu(node: Node, site: Site) -> Match | None:
    found = find_gelu(node, site) if site.opset >= GELU_SINCE else None
    if found is None or found.source.dtype != np.float32 or not _read(found.last, site):
        return None
    site.planned[id(node)] = found
    return node, found.last


def _to_gelu(match: Match, site: Site) -> None:
    found: Gelu = site.planned.pop(id(match[0]))
    attrs = {} if found.approximate == "none" else {"approximate": found.approximate}
    site.replace(found.last, "Gelu", [found.source], attrs)


# ---- layer normalisation


def _match_norm(node: Node, site: Site) -> Match | None:
    found = find_layer_norm(node, site) if site.opset >= NORM_SINCE else None
    if found is None or not _read(found.last, site):
        return None
    site.planned[id(node)] = found
    return node, found.last


def _to_norm(match: Match, site: Site) -> None:
    found: LayerNorm = site.planned.pop(id(match[0]))
    rank, last = rank_of(found.source) or 0, found.last
    stem = last.outputs[0].name
    inputs = [found.source, site.names.constant(f"{stem}_scale", found.scale)]
    if found.offset is not None:
        inputs.append(site.names.constant(f"{stem}_offset", found.offset))
    attrs = {"axis": -len(found.axes), "epsilon": float(found.epsilon)}
    if found.axes[-1] == rank - 1:
        site.replace(last, "LayerNormalization", inputs, attrs)
        return
    # LayerNormalization works along the trailing axes: the one axis goes there and comes back.
    (axis,) = found.axes
    there = [a for a in range(rank) if a != axis] + [axis]
    back = [there.index(a) for a in range(rank)]
    shape = None if found.source.shape is None else [found.source.shape[a] for a in there]
    turned, normal = (Variable(site.names.take(f"{stem}_{what}"), np.float32, shape) for what in ("turned", "normal"))
    site.editor.add(Node("Transpose", site.names.take(turned.name), {"perm": there}, [found.source], [turned]))
    site.editor.add(Node("LayerNormalization", last.name, attrs, [turned, *inputs[1:]], [normal]))
    last.name = site.names.take(f"{stem}_Transpose")
    site.replace(last, "Transpose", [normal], {"perm": back})


def _stable(match: Match, site: Site) -> str | None:
    found: LayerNorm = site.planned[id(match[0])]
    return None if found.stable else "its variance is a difference of means, which loses digits that one node keeps"


GELU = Rule("GELU in one node", GELU_ANCHORS, _match_gelu, always, _to_gelu)
RULES = [GELU, Rule("layer normalisation in one node", NORM_ANCHORS, _match_norm, _stable, _to_norm)]
"""Rules that keep the numbers."""
BOLD = [GELU, Rule("layer normalisation in one node", NORM_ANCHORS, _match_norm, always, _to_norm)]
"""Rules that may also mend a normalisation which computes its variance badly: the outputs move by what it lost."""
