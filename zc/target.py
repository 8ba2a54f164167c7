"""Target: what a place of deployment can run and demands. A value; `zc.backends` defines the instances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from zc.ir.graph import Node

QuantType = Literal["uint8", "int8", "uint16", "int16"]
Shapes = Mapping[str, tuple[int, ...]]
"""By name of a value."""
Form = int
"""A layout of a value in memory. Forms stand in a row, those of floats first, and each turns into its neighbours."""


@dataclass(frozen=True)
class Step:
    """How a node runs."""

    reads: Form
    """The form in which it takes its data."""
    writes: Form
    us: float
    """Microseconds."""


FixedScale = tuple[float, int]
"""A scale and a zero point."""


class CostTable(Protocol):
    """What nodes cost at a place, predicted from shapes alone: microseconds of a run with a batch of one, one thread.

    A table, not a stopwatch: the same model gives the same file on every machine.
    """

    @property
    def codes(self) -> Form:
        """The first form that is of codes."""

    def step(self, node: Node, integer: bool, given: Sequence[Form], shapes: Shapes) -> Step | None:
        """How a node runs in float or in integers; None where a shape that counts is not known.

        given: the forms in which its data comes where it takes what comes.
        """

    def convert(self, low: Form, rising: bool, shape: tuple[int, ...]) -> float:
        """Microseconds to turn a value from form `low` into the next one (`rising`), or back."""


@dataclass(frozen=True)
class Target:
    """What the quantiser and the pruner need to know of a place of deployment.

    Operators are standard ONNX ones, by name. An operator that is in none of the tables stays float.
    """

    name: str
    activations: QuantType = "uint8"
    """Element type of quantised activations."""
    activation_bits: frozenset[int] = frozenset({8})
    """Bits of activations that it has kernels for."""
    symmetric_activations: bool = False
    """Must activations have the middle of their range as zero point?"""
    symmetric_wide: bool = False
    """Must those of 16 bits?"""
    per_channel: bool = True
    """One scale for each output channel of a weight? (Weights are int8 and symmetric everywhere.)"""
    per_tensor_ops: frozenset[str] = frozenset()
    """Weighted operators that take one scale a weight all the same."""
    least_product: int = 1
    """Depth and columns below which a Gemm or MatMul stays float."""
    integer_bias: bool = True
    """Is the bias stored as int32 (scale sx*sw), rather than in float?"""
    saturating_pairs: bool = False
    """Are two neighbouring products added in 16 bits, where the sum can saturate? Then weights are made that cannot."""
    saturates_on: str = ""
    """Processors of this place that do so although the target does not, and how to ask for a file for them."""
    weighted_ops: frozenset[str] = frozenset()
    """Operators with int8 kernels for a constant weight: they are why a model is quantised."""
    float_output_ops: frozenset[str] = frozenset()
    """Those of `weighted_ops` whose int8 kernel can put out float, so that no value behind them need be quantised."""
    integer_ops: frozenset[str] = frozenset()
    """Other operators with int8 kernels, which round their output to codes anew: worth it between weighted ones."""
    coded_constants: frozenset[str] = frozenset()
    """Those of `integer_ops` that take a constant of many numbers as codes of one scale."""
    tied_ops: frozenset[str] = frozenset()
    """Those of `integer_ops` whose inputs and output share one scale."""
    strict_ties: bool = False
    """Must they, even where an activation in front of one of them would have to stay an operator of its own?"""
    rounds_floats: frozenset[str] = frozenset()
    """Those of `integer_ops` that are worth it, where a weighted operator needs their result, on floats rounded for
    them too; the others only on values that are put out as codes."""
    fixed_scales: dict[str, FixedScale] = field(default_factory=dict)
    """Operators whose output has a given scale and zero point."""
    residual_sums: bool = False
    """Does an Add take what a weighted operator puts out for it in float, to fuse with it, and codes of the other term?
    (Of two such terms the longer branch stays float.)"""
    whole: bool = False
    """Must whatever can run in integers do so, even where nothing behind it needs codes?"""
    transparent_ops: frozenset[str] = frozenset()
    """Operators that only move codes about or choose among them: they run on the codes themselves, with one scale."""
    absorbed_activations: frozenset[str] = frozenset()
    """Activations that the range of an output already expresses. Not asked where activations are symmetric."""
    lookup_ops: frozenset[str] = frozenset()
    """Operators that pick rows of a constant table, which may hold codes (embeddings)."""
    claims_float: frozenset[str] = frozenset()
    """Weighted operators whose float weights the runtime makes int8, unasked, where what they read is dequantised with
    one scale and what they put out is quantised."""
    float_ops: dict[str, str] = field(default_factory=dict)
    """Operators that stay float although one might expect an int8 form, and why."""
    dynamic_ops: frozenset[str] = frozenset()
    """Operators with int8 kernels that take the range of what they read when they run."""
    float_dynamic_ops: dict[str, str] = field(default_factory=dict)
    """Operators that stay float although such a kernel exists, and why."""
    casts_half: frozenset[str] = frozenset()
    """Half-precision types (`float16`, `bfloat16`) that any operator may have: where there is no kernel, the runtime
    casts to float32 and back."""
    half_ops: dict[str, frozenset[str]] = field(default_factory=dict)
    """By half-precision type, the operators with kernels for it."""
    folds_dequantize: bool = True
    """Is the DequantizeLinear of a constant computed once, when a model is loaded, or inside the kernel behind it?"""
    nbits: frozenset[int] = frozenset()
    """Bits for which it has onnxruntime's MatMulNBits."""
    loads_int4: bool = False
    """Are constants that a Cast makes int8 of int4 computed once, when a model is loaded?"""
    min_opset: int = 13
    """Lowest default opset that its Q/DQ form needs (13: per-channel)."""
    integer_runtime_ops: frozenset[str] = frozenset()
    """How onnxruntime calls the int8 forms of weighted operators in the graph that it really runs, if this is it."""
    idiom_opset: int = 0
    """The operator set to raise a model to for idioms written out that it has an operator for but the runtime does not
    recognise itself; 0: leave them written out."""
    knows_idioms: bool = True
    """Does the runtime recognise GELU and layer normalisation where they are written out?"""
    slow_fusions: frozenset[str] = frozenset()
    """Operators that the runtime fuses others into although they then run slower than one by one."""
    slow_subnormals: bool = False
    """Does arithmetic on numbers next to zero (below 1.2e-38) take many times as long as on others?"""
    channel_step: int = 1
    """Widths that are a multiple of this run best."""
    costs: CostTable | None = None
    """What nodes cost in float and in integers; None: integers are thought to pay everywhere."""
    session: dict[str, str] = field(default_factory=dict)
    """onnxruntime session configuration entries."""

    def wide(self) -> "Target":
        """As activations of 16 bits find it: where their codes stand around zero, no range says what a Relu does."""
        if not self.symmetric_wide:
            return self
        bounds = self.absorbed_activations
        return replace(
            self,
            absorbed_activations=frozenset(),
            transparent_ops=self.transparent_ops - bounds,
            integer_ops=self.integer_ops | bounds,
        )
