"""What a structural diff of two models holds: plain values."""

from dataclasses import dataclass

from zc.figures import size_text


@dataclass(frozen=True)
class NodeInfo:
    """A node that only one of the models has."""

    scope: str
    """Where it stands: empty for the main graph, else the node and attribute of its body, or its function."""
    op: str
    name: str
    output: str
    """Its first output."""


@dataclass(frozen=True)
class Change:
    """One thing about a node that changed."""

    what: str
    """`attribute pads`, `input 1`, `output 0`, `operator`."""
    before: str | None
    """None: it was not there."""
    after: str | None
    pattern: str
    """The change without the names of values: alike for alike changes of different nodes."""


@dataclass(frozen=True)
class NodeChange:
    """A node that both models have, with what changed about it."""

    scope: str
    op: str
    name: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class ValueChange:
    """A value whose type or shape changed. Where one of the models does not tell them there is nothing to compare."""

    scope: str
    name: str
    before: str
    """As ONNX text spells types: `float[N,64,8,8]`."""
    after: str


@dataclass(frozen=True)
class WeightInfo:
    """A weight that only one of the models has."""

    name: str
    type: str


@dataclass(frozen=True)
class WeightChange:
    """A weight that both models have and whose type, shape or numbers differ.

    The distances are None where they cannot be told: the shapes differ, or only hashes are known.
    """

    name: str
    used_by: str
    before: str
    """Type and shape, and the numbers where they are few."""
    after: str
    max_abs: float | None = None
    """Largest |after - before|."""
    relative: float | None = None
    """`max_abs` divided by the largest |before|."""
    sqnr_db: float | None = None
    """10 log10(sum before^2 / sum (after - before)^2), in dB."""
    note: str = ""
    """What else is to be said: `dequantized from int8`, `hashes differ`."""


@dataclass(frozen=True)
class EndChange:
    """An input or output of the model that was added, removed, or has another type."""

    kind: str
    """`input` or `output`."""
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class HeaderChange:
    """An entry of the model's header: opset, IR version, producer, documentation, metadata, functions."""

    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Rename:
    """A node, value or weight with another name."""

    kind: str
    before: str
    after: str


@dataclass(frozen=True)
class Sizes:
    """How big each of the models is."""

    nodes: tuple[int, int]
    bytes: tuple[int, int]
    """Of the weights."""
    parameters: tuple[int, int] | None
    """None where nobody counted them."""


@dataclass(frozen=True)
class Diff:
    """How two models differ. Provenance (metadata `zc.*`) and documentation of nodes and values are not compared."""

    names: tuple[str, str]
    sizes: Sizes
    added: tuple[NodeInfo, ...]
    removed: tuple[NodeInfo, ...]
    changed: tuple[NodeChange, ...]
    values: tuple[ValueChange, ...]
    weights: tuple[WeightChange, ...]
    weights_added: tuple[WeightInfo, ...]
    weights_removed: tuple[WeightInfo, ...]
    ends: tuple[EndChange, ...]
    header: tuple[HeaderChange, ...]
    renamed: tuple[Rename, ...]
    reordered: bool
    """Do nodes that both have stand in another order? That alone is no difference."""

    @property
    def equal(self) -> bool:
        """Is there no difference?"""
        lists = (self.added, self.removed, self.changed, self.values, self.weights, self.weights_added)
        return not any((*lists, self.weights_removed, self.ends, self.header, self.renamed))

    def summary(self) -> str:
        """The difference in one line."""
        if self.equal:
            return "equal" + (" (the nodes stand in another order)" if self.reordered else "")
        said = [
            _listed(
                ("nodes", "node"),
                (len(self.changed), "changed"),
                (len(self.removed), "removed"),
                (len(self.added), "added"),
            ),
            _listed(
                ("weights", "weight"),
                (len(self.weights), "differ" if len(self.weights) != 1 else "differs"),
                (len(self.weights_removed), "removed"),
                (len(self.weights_added), "added"),
            ),
            _listed(("values", "value"), (len(self.values), "of other shape or type")),
            _listed(("inputs or outputs", "input or output"), (len(self.ends), "changed")),
            _listed(("header entries", "header entry"), (len(self.header), "changed")),
            _listed(("names", "name"), (len(self.renamed), "changed")),
        ]
        parameters = self.sizes.parameters
        if parameters is not None and parameters[0] != parameters[1]:
            change = f" ({(parameters[1] / parameters[0] - 1) * 100:+.1f} %)" if parameters[0] else ""
            said.append(f"parameters {parameters[0]:,} -> {parameters[1]:,}{change}")
        if self.sizes.bytes[0] != self.sizes.bytes[1]:
            said.append(f"{size_text(self.sizes.bytes[0])} -> {size_text(self.sizes.bytes[1])}")
        return "; ".join(s for s in said if s)


def _listed(noun: tuple[str, str], *counts: tuple[int, str]) -> str:
    """`12 nodes changed, 3 removed`: the noun stands once."""
    parts = [(n, what) for n, what in counts if n]
    if not parts:
        return ""
    first = f"{parts[0][0]:,} {noun[parts[0][0] == 1]} {parts[0][1]}"
    return ", ".join([first, *(f"{n:,} {what}" for n, what in parts[1:])])
