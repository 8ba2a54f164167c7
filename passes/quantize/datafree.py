"""Quantisation without data: values are drawn anew wherever their statistics are known.

before:  x -> Conv -> c -> Relu -> r -> Conv -> d ...         mean and deviation of c and d are known
after:   x -> Conv -> c_made     c -> Relu -> r -> Conv -> d_made     d ...       c, d: inputs, fed with fields

Random inputs make values deep inside a net that no real input makes. Cut where BatchNormalization told the moments of a
value, every layer reads what it reads on real data, as far as means, deviations and independent channels describe it;
what stands between (activations, residual sums, pools) is simply run. So whatever looks at samples works without them:
ranges, factors, rounding of weights, and the correction of biases, which is then the expected shift of each layer by
itself. (Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019, section 4.2, with
drawn values in the place of formulas for rectified Gaussians.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zc.data import Samples
from zc.execute import Runner
from zc.ir.edit import Names, replace_uses
from zc.ir.graph import Array, Constant, Node, Tensor, Variable
from zc.ir.model import Model
from zc.passes.quantize.analytic import Moments, moments
from zc.passes.quantize.fields import FieldRows, Known
from zc.passes.quantize.weights import Coded
from zc.pipeline.base import Context
from zc.pipeline.synthetic import synthetic_samples

ROWS = 32
DRAWN = "_drawn"
MOST_TOGETHER = 4.0
"""How far the inputs of a layer without statistics may be taken to act together."""

FAR = 3.0
"""Statistics are not believed where half of the channels deviate from what the net makes by more than this."""


@dataclass(frozen=True, eq=False)
class DataFree:
    """A model whose values are partly known by their statistics."""

    model: Model
    """Cut: known values are inputs, and keep their names."""
    samples: Samples
    """For the cut model."""
    images: Samples
    """For the model as it is: inputs drawn from their statistics where these are known."""
    known: tuple[Known, ...]
    disbelieved: tuple[str, ...]
    """Values whose statistics do not fit the weights in front of them any more."""

    def again(self, behind: str) -> Samples:
        """The samples with another name for the known values that nodes make."""
        reader = self.samples.reader
        assert isinstance(reader, FieldRows)
        return replace(self.samples, reader=replace(reader, behind=behind))


def statistics(ctx: Context, model: Model) -> Moments:
    """What BatchNormalization told before it was folded, kept true by passes that scale values."""
    if ctx.moments is None:
        ctx.moments = moments(ctx.original or model)
    return ctx.moments


def free_of_data(model: Model, ctx: Context) -> DataFree | None:
    """The model cut where statistics are known; None if samples were given, or nothing is known of a value in it.

    Inputs of which nothing is known are synthetic. ZcError when no size of open dimensions makes the model run.
    """
    if ctx.samples is not None and not ctx.samples.synthetic:
        return None
    found = statistics(ctx, model)
    outputs = {id(t) for t in model.graph.outputs}
    told = {t.name: t for n in model.graph.nodes for t in n.outputs if _fits(t, found) and id(t) not in outputs}
    fed = [t.name for t in model.graph.inputs if _fits(t, found)]
    inputs = synthetic_samples(model, ROWS, ctx.seed) if told else None
    if inputs is None or inputs.reader.whole:
        return None
    first = next(inputs.batches(1))
    values = {**Runner(model, outputs=list(told)).run(first), **{name: first[name] for name in fed}}
    every = tuple(_known(name, found, values[name], name in fed) for name in (*fed, *told))
    believed = _believed(model, every, inputs, ctx)
    known = tuple(one for one in every if one.name in believed)
    if all(one.is_input for one in known):
        return None
    images = _samples(model, inputs, tuple(one for one in known if one.is_input), ctx.seed)
    guessed = _guessed(model, known, inputs, ctx)
    cut = model.copy()
    cut_at(cut, {t: t.name for t in _tensors(cut, (*known, *guessed))})
    lost = tuple(one.name for one in every if one.name not in believed)
    return DataFree(cut, _samples(cut, inputs, (*known, *guessed), ctx.seed), images, (*known, *guessed), lost)


def _fits(tensor: Tensor, found: Moments) -> bool:
    """Is it a value with as many channels as the moments, that consumers read?"""
    if tensor.name not in found or tensor.shape is None or len(tensor.shape) not in (2, 4) or not tensor.outputs:
        return False
    return bool(tensor.shape[1] == len(found[tensor.name][0]) and tensor.dtype in (None, np.float32))


def _known(name: str, found: Moments, value: Array, is_input: bool) -> Known:
    mean, deviation = (np.asarray(v, np.float32) for v in found[name])
    return Known(name, mean, deviation, value.shape[1:], is_input)


def _samples(model: Model, inputs: Samples, known: tuple[Known, ...], seed: int) -> Samples:
    reader = FieldRows(inputs.reader, known, seed, inputs.reader.count)
    name = f"fields drawn from the statistics of {len(known)} values (seed {seed})"
    return replace(inputs, inputs=model.inputs, reader=reader, name=name)


def _tensors(model: Model, known: Sequence[Known]) -> list[Tensor]:
    names = {one.name for one in known if not one.is_input}
    return [t for n in model.graph.nodes for t in n.outputs if t.name in names]


def _believed(model: Model, known: Sequence[Known], inputs: Samples, ctx: Context) -> set[str]:
    """The names of known values whose statistics fit what the net makes of the known values before them."""
    cut = model.copy()
    cut_at(cut, {t: t.name + DRAWN for t in _tensors(cut, known)})
    samples = replace(
        inputs,
        inputs=cut.inputs,
        reader=FieldRows(inputs.reader, tuple(known), ctx.seed, inputs.reader.count, DRAWN),
    )
    made = [one for one in known if not one.is_input]
    values = Runner(cut, outputs=[one.name for one in made], threads=ctx.threads).run(next(samples.batches(4)))
    found = {one.name for one in known if one.is_input}
    for one in made:
        value = np.moveaxis(values[one.name], 1, 0).reshape(len(one.mean), -1).astype(np.float64)
        alive = one.deviation > 1e-3 * one.deviation.max(initial=1e-30)
        spread = np.maximum(one.deviation, 1e-30)
        shift = np.abs(value.mean(axis=1) - one.mean) / spread
        ratio = np.abs(np.log(np.maximum(value.std(axis=1), 1e-30) / spread))
        if not alive.any() or (np.median(shift[alive]) < FAR and np.median(ratio[alive]) < np.log(FAR)):
            found.add(one.name)
    return found


def _guessed(model: Model, known: tuple[Known, ...], inputs: Samples, ctx: Context) -> tuple[Known, ...]:
    """What layers put out that no BatchNormalization follows: the moments that they make of what is known before them.

    Inputs of such a layer are not independent, as fields are: trained weights look for what comes together. Of the
    largest deviation that n inputs can make together, sqrt(n) times that of independent ones, half is taken in octaves.
    """
    cut = model.copy()
    cut_at(cut, {t: t.name + DRAWN for t in _tensors(cut, known)})
    names = {one.name for one in known}
    layers = [n for n in cut.nodes("Conv", "Gemm", "MatMul", "ConvTranspose") if _is_layer(n) and n.outputs[0].outputs]
    made = {n.outputs[0].name: n for n in layers if n.outputs[0].name not in names}
    if not made:
        return ()
    samples = replace(
        inputs, inputs=cut.inputs, reader=FieldRows(inputs.reader, known, ctx.seed, inputs.reader.count, DRAWN)
    )
    values = Runner(cut, outputs=list(made), threads=ctx.threads).run(next(samples.batches(8)))
    found = []
    for name, node in made.items():
        value = np.moveaxis(values[name], 1, 0)
        flat = value.reshape(len(value), -1).astype(np.float64)
        summed = float(np.prod(node.inputs[1].shape)) / max(len(value), 1)
        deviation = flat.std(axis=1) * min(summed**0.25, MOST_TOGETHER)
        mean, deviation = flat.mean(axis=1).astype(np.float32), deviation.astype(np.float32)
        found.append(Known(name, mean, deviation, values[name].shape[1:], guessed=True))
    return tuple(found)


def _is_layer(node: Node) -> bool:
    """Does it multiply channels on axis 1 by a constant weight?"""
    rank = None if node.outputs[0].shape is None else len(node.outputs[0].shape)
    return isinstance(node.inputs[1], Constant) and (rank == 2 or (rank == 4 and node.op in ("Conv", "ConvTranspose")))


# ---- cutting


def cut_at(model: Model, places: Mapping[Tensor, str]) -> list[tuple[Tensor, Variable]]:
    """Let the consumers of some values read inputs of these names instead, in place; what `join` undoes.

    Values go on being computed; one whose name its input takes is renamed.
    """
    names = Names(model.graph)
    cuts = []
    for tensor, name in places.items():
        drawn = Variable(name, np.dtype(np.float32), tensor.shape)
        if name == tensor.name:
            tensor.name = names.take(f"{name}_made")
        replace_uses(tensor, drawn)
        model.graph.inputs.append(drawn)
        cuts.append((tensor, drawn))
    return cuts


def join(model: Model, cuts: Sequence[tuple[Tensor, Variable]]) -> None:
    """Undo cuts that left names as they were."""
    gone = {id(drawn) for _, drawn in cuts}
    for tensor, drawn in cuts:
        replace_uses(drawn, tensor)
    model.graph.inputs[:] = [t for t in model.graph.inputs if id(t) not in gone]


def cut_pair(
    free: DataFree, original: Model, quantised: Model, coded: Sequence[Coded]
) -> tuple[Model, list[tuple[Tensor, Variable]]]:
    """The float model cut, and the quantised one cut in place at the same values; `join` mends the latter.

    Feeds come from `free.again(DRAWN)`. A value that only codes carry in the quantised model is cut in neither.
    """
    raw = {one.float_name: one.output for one in coded}
    stored = {t.name: t for n in quantised.graph.nodes for t in n.outputs if n.op != "DequantizeLinear"}
    exact = original.copy()
    theirs = {t.name: t for t in _tensors(exact, free.known)}
    pairs = {name: raw.get(name, stored.get(name)) for name in theirs}
    both = {name: (theirs[name], mine) for name, mine in pairs.items() if mine is not None and mine.outputs}
    cut_at(exact, {float_: name + DRAWN for name, (float_, _) in both.items()})
    return exact, cut_at(quantised, {mine: name + DRAWN for name, (_, mine) in both.items()})
