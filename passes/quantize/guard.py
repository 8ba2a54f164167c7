"""Guard: no bad file is handed over, and accuracy that costs next to no time is not given away.

A quantised model is compared with the float model on rows held back. Then:

1. layers that make much of the noise at the outputs and take little time stay float (`mixed`, price 1);
2. if the outputs do not agree as is demanded and weights have fewer than 8 bits, those of the worst layers get 8;
3. if they still do not, more layers stay float, those first whose noise is dearest for their time, as few as will do.
   Every model on the way is built and measured; nothing is extrapolated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from zc.errors import GateMissed
from zc.measure.agreement import Agreement, Reference, telling
from zc.measure.gate import Gate, Verdict
from zc.measure.tensor_error import decibels
from zc.passes.quantize.form import Form
from zc.passes.quantize.mixed import Choice, Market, worth
from zc.passes.quantize.workshop import Built, KeepFloat, Workshop
from zc.pipeline.base import PassResult

NOISE = 0.05
"""Squared error over variance of an output (13 dB) from which on it has collapsed;"""
CLASSES = 0.9
"""of an output that chooses among classes also where fewer rows keep their class,"""
CLASSES_NOISE = 0.01
"""and the noise is more than this: that a net is unsure of its rows is no reason."""
LEAST_WORTH = 0.03
"""Share of the float model's time that all noise must be worth before layers are looked at one by one (30 dB)."""
LEAST_GAIN = 0.1
"""Share of the noise that must go for a bargain."""
WIDEST = 8
"""Bits of weights."""
MOST_BUILDS = 9
"""Models that are built in search of one that holds."""
_NAMED = 5
NOTHING_LEFT = Choice()
"""No layer in float for the sake of accuracy."""


@dataclass(frozen=True)
class Demand:
    """What a quantised model must hold."""

    guard: bool = True
    """It must not have collapsed; layers stay float for that."""
    fast: bool = True
    """May layers stay float because that is faster, or costs little time for the accuracy that it keeps?"""
    max_drop: float | None = None
    """Share of agreement on the rows held back that may be lost; GateMissed otherwise."""
    gate: Gate | None = None
    """What it must pass; GateMissed otherwise."""

    @property
    def hard(self) -> bool:
        """Is a model that does not hold it an error?"""
        return self.max_drop is not None or self.gate is not None


@dataclass(frozen=True, eq=False)
class Trial:
    """A model that was built and measured."""

    built: Built
    keep_float: KeepFloat
    left: Choice
    """What is in float for the sake of accuracy."""
    found: Mapping[str, Agreement]
    noise: float
    """Squared error over variance, where the outputs tell most."""

    @property
    def share(self) -> float:
        """The lowest agreement."""
        return min((one.share for one in self.found.values()), default=1.0)

    @property
    def empty(self) -> bool:
        """Is nothing in integers?"""
        return not self.built.coded and not any(one.lookups for one in self.built.places)


class Guard:
    """Builds models until one holds what is demanded."""

    def __init__(self, workshop: Workshop, form: Form, keep_float: KeepFloat, demand: Demand) -> None:
        self.workshop, self.form, self.keep_float, self.demand = workshop, form, keep_float, demand
        self.verdict: Verdict | None = None
        """What the gate said last."""
        held, threads = workshop.split.held, workshop.ctx.threads
        self._telling = Reference(workshop.model, held, threads, telling(workshop.model))
        self._market: Market | None = None
        self._first: Trial | None = None

    def best(self, result: PassResult) -> Trial:
        """The model to hand over; what was done for it is told. GateMissed when none holds a hard demand."""
        trial = self._first = self._try(self.form)
        if self.form.weight_bits < WIDEST:
            why = self._lacks(trial)
            if why is None:
                return trial
            trial = self._first = self._widen(why, result)
            self._market = None
        timed = self.demand.fast and self.workshop.ctx.target.costs is not None
        if self.demand.guard and timed and worth(trial.noise) >= LEAST_WORTH:
            trial = self._bargain(trial, result)
        why = self._lacks(trial)
        return trial if why is None else self._search(trial, why, result)

    def _try(self, form: Form, left: Choice = NOTHING_LEFT) -> Trial:
        keep = left.keep_float(self.keep_float)
        built = self.workshop.build(form, keep)
        found = self.workshop.reference.by_output(built.model)
        noise = max((one.noise for one in self._telling.by_output(built.model).values()), default=0.0)
        return Trial(built, keep, left, found, noise)

    @property
    def market(self) -> Market:
        """What layers cost, measured when it is first asked for."""
        assert self._first is not None
        if self._market is None:
            first = self._first
            self._market = Market(self.workshop, first.built, self.keep_float, first.noise, timed=self.demand.fast)
        return self._market

    def _bargain(self, whole: Trial, result: PassResult) -> Trial:
        """Leave in float what makes much noise for little time, if it turns out as was thought."""
        choice = self.market.choice(1.0)
        if not choice.nodes:
            return whole
        trial = self._try(whole.built.form, choice)
        gone, paid = 1 - trial.noise / whole.noise, self.market.time(choice)
        if gone < LEAST_GAIN or worth(whole.noise) * gone < paid:
            return whole
        result.info(
            "guard",
            f"{_listed(choice)} in float: noise at the outputs {decibels(1, whole.noise):.1f} -> "
            f"{decibels(1, trial.noise):.1f} dB for {paid:.1%} of the float model's time",
        )
        return trial

    # ---- what is demanded

    def _lacks(self, trial: Trial) -> str | None:
        """What a model does not hold, or None."""
        if self.demand.guard or self.demand.hard:
            for name, one in trial.found.items():
                if collapsed(one):
                    how = f"keeps the class of {one.share:.0%} of rows" if one.classes else f"has {_db(one)} dB"
                    return f"output '{name}' {how}"
        if self.demand.max_drop is not None and trial.share < 1 - self.demand.max_drop:
            return f"agreement is {trial.share:.4f}, at least {1 - self.demand.max_drop:g} is demanded"
        if self.demand.gate is not None:
            self.verdict = self.demand.gate(trial.built.model)
            if not self.verdict.passed:
                return self.verdict.line
        return None

    def _widen(self, why: str, result: PassResult) -> Trial:
        """The model with the fewest layers that have weights of 8 bits that holds, else with all of them."""
        layers, bits = self.market.layers, self.form.weight_bits

        def attempt(count: int) -> Trial:
            names = frozenset(name for one in layers[: count + 1] for name in one.names)
            return self._try(replace(self.form, wide=names))

        held = self._first_that_holds(len(layers) - 1, attempt)
        if held is not None:
            place, trial = held
            what = _listed(Choice(tuple(layers[: place + 1])))
            result.warn("guard", f"{why}; it holds with weights of {WIDEST} bits in {what}")
            return trial
        result.warn("guard", f"{why} with weights of {bits} bits; all have {WIDEST}")
        return self._try(replace(self.form, weight_bits=WIDEST))

    def _search(self, start: Trial, why: str, result: PassResult) -> Trial:
        """The model with the fewest layers in float that holds."""
        choices = self.market.dearer(start.left)
        held = self._first_that_holds(len(choices), lambda place: self._try(start.built.form, choices[place]))
        if held is None or (held[1].empty and self.demand.hard):
            raise GateMissed(self._missed(why))
        best = held[1]
        if best.empty:
            result.warn("guard", f"nothing is quantised: {why}, and no layer can be in integers without that")
        else:
            result.warn("guard", f"{why}; it holds with {_listed(best.left)} in float")
        return best

    def _first_that_holds(self, count: int, attempt: Callable[[int], Trial]) -> tuple[int, Trial] | None:
        """The first of trials in a row, from poor to good, that holds, or one not far behind, and its place."""
        low, high, step = -1, count, 1
        best: tuple[int, Trial] | None = None
        for _ in range(MOST_BUILDS):
            if high - low <= 1:
                break
            place = min(low + step, high - 1) if best is None else (low + high) // 2
            trial = attempt(place)
            if self._lacks(trial) is None:
                best, high = (place, trial), place
            else:
                low, step = place, 2 * step
        return best

    def _missed(self, why: str) -> str:
        worst = ", ".join(f"{one.where} ({one.db:.0f} dB)" for one in self.market.layers[:_NAMED])
        return (
            f"{why}, and no choice of layers in float holds it; those that cost most: {worst}; nothing was written; "
            "try method=mse, more or better samples, or a larger drop (zc sensitivity shows all layers)"
        )


def collapsed(one: Agreement) -> bool:
    """Has an output little to do with the float model's?"""
    return one.noise > NOISE or (one.classes and one.share < CLASSES and one.noise > CLASSES_NOISE)


def _db(one: Agreement) -> str:
    return f"{decibels(1, one.noise):.1f}"


def _listed(choice: Choice) -> str:
    names = [layer.where for layer in choice.layers]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} layer{'s'[: len(names) != 1]} ({', '.join(names[:_NAMED])}{more})"
