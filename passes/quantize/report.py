"""What the user hears of a quantised model: figures, and what stayed float and why."""

from collections.abc import Mapping, Sequence

from zc.data import Samples
from zc.data.summary import summarise
from zc.ir.graph import describe
from zc.ir.model import Model
from zc.measure.agreement import Agreement
from zc.passes.quantize.autorange import Choice
from zc.passes.quantize.bodies import regions
from zc.passes.quantize.datafree import DataFree
from zc.passes.quantize.placement import Placement
from zc.passes.quantize.recipe import Trial, decibels
from zc.passes.quantize.saturation import could_saturate
from zc.passes.quantize.workshop import Built, Workshop
from zc.pipeline.base import PassResult
from zc.target import Target

POOR_SQNR = 10.0
"""Decibels below which the outputs have little to do with the float model's."""


def figures(built: Built, unfused: int) -> dict[str, int | float | str]:
    """How much of the model runs in integers. unfused: layers left float because the target would run them so."""
    return {
        "values_quantised": sum(len(one.groups) for one in built.places),
        "weighted_in_integers": len(built.coded),
        "unfused_left_float": unfused,
        "others_in_integers": sum(len(one.integer) for one in built.places),
        "tables_in_integers": sum(len(one.lookups) for one in built.places),
        "weights_rounded": built.refined.rounded,
        "biases_corrected": built.refined.shifted,
    }


def tell_samples(result: PassResult, samples: Samples) -> None:
    """Warn of samples that are too few, too alike or damaged. What is synthetic was made as it should be."""
    if not samples.synthetic:
        for complaint in summarise(samples).complaints():
            result.warn(samples.name, complaint)


def tell_free(result: PassResult, free: DataFree | None) -> None:
    """What stood in for samples: which values were drawn, from what."""
    if free is None:
        return
    told = [one.name for one in free.known if not one.guessed]
    guessed = [one.name for one in free.known if one.guessed]
    what = f"no samples: {len(told)} values were drawn from BatchNormalization statistics"
    if any(one.is_input for one in free.known):
        what += f" ({', '.join(one.name for one in free.known if one.is_input)}: from those behind its first layer)"
    if guessed:
        what += f", {len(guessed)} from what their layers make of these ({some(guessed)})"
    result.info("calibration", f"{what}; the others were computed from them")
    for name in free.disbelieved:
        result.warn(name, "its statistics do not fit the weights in front of it any more, so it is computed")


def some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def tell_placement(result: PassResult, model: Model, places: list[Placement], target: Target) -> None:
    """What was decided to stay float, and the weighted operators in scopes that cannot be calibrated."""
    for one in places:
        for where, why in one.declined:
            result.declined(where, why)
    known = {id(one.graph) for one in regions(model)}
    for scope in model.scopes():
        for node in scope.nodes:
            if id(scope) not in known and node.op in target.weighted_ops:
                result.declined(describe(node), f"{node.op} stays float: it is in a loop or a function")


def tell_cache(result: PassResult, workshop: Workshop) -> None:
    """Whether what calibration saw was known before."""
    cache = workshop.calibration.cache
    if cache is not None and cache.note:
        result.info("cache", cache.note)


def tell_ranges(result: PassResult, choice: Choice | None) -> None:
    """By what rule ranges were found, where the choice was left open."""
    if choice is None:
        return
    if not choice.noise:
        result.info("ranges", f"{choice.rule}, untried: {choice.why}")
        return
    others = ", ".join(f"{-noise:.1f} by {rule}" for rule, noise in choice.noise.items() if rule != choice.rule)
    what = f"{choice.rule} disturbs the outputs least, {-choice.noise[choice.rule]:.1f} dB signal to noise"
    result.info("ranges", f"{what} with float weights ({others})")


def tell_raised(result: PassResult, built: Built, target: Target) -> None:
    """The layers whose weight scales are larger than their weights ask for, and those that are not exact everywhere."""
    for one in built.coded:
        if one.raised:
            result.info(one.where, f"{one.raised} weight scales were raised so that int32 cannot overflow")
        if one.narrowed:
            what = "so that pairs of products cannot saturate 16 bits"
            result.info(one.where, f"{one.narrowed} weight scales were raised {what}")
    saturable = bool(target.saturates_on) and built.form.activation_bits == 8
    count = sum(could_saturate(one.node, one.weight.values) for one in built.coded) if saturable else 0
    if count:
        what = f"{count} of {len(built.coded)} layers could saturate on {target.saturates_on}"
        result.info(built.model.name, what)


def tell_error(result: PassResult, found: Mapping[str, Agreement]) -> None:
    """Warn of outputs that have little to do with the float model's."""
    for name, one in found.items():
        if one.sqnr < POOR_SQNR:
            result.warn(name, f"the output has only {one.sqnr:.1f} dB signal to noise; compare with the float model")


def tell_trials(result: PassResult, trials: Sequence[Trial]) -> None:
    """What was tried for options that said auto."""
    for one in trials[1:]:
        if one.why:
            result.info(one.text, one.why)
        else:
            taken = "taken" if one.taken else "not taken"
            gain = f"{decibels(one.noise):.1f} dB at the outputs on rows held back, {decibels(one.before):.1f} without"
            result.info(one.text, f"{taken}: {gain}")
