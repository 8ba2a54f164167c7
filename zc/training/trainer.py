"""The training loop: the same for distillation, fine-tuning and quantisation-aware training."""

import math
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from zc.errors import ZcError
from zc.ir.graph import Array
from zc.track import Track, untracked
from zc.training.augment import Augment
from zc.training.checkpoint import Checkpoint
from zc.training.devices import autocast, gains_by_bfloat16, kept_memory, pick_device, threads, to_device
from zc.training.graph import GraphModule
from zc.training.ops.call import Tensor
from zc.training.optimizers import UnitAdam, UnitMuon
from zc.training.recipe import Recipe
from zc.training.rows import Parts, Rows
from zc.training.sparsity import GroupPenalty

EVALUATIONS = 20
"""How often the rows to judge by are looked at in a run; checkpoints are written then."""
_TIMED_STEPS = 4
_PROBATION = 0.25
"""Share of the steps by which a learning rate that was not given must have lowered the loss on the rows to judge by."""
_LOWER = 3.0
"""By how much the next one is lower."""
_BORNE = 0.05
"""Share of a loss that rounding may add."""
Mixed = tuple[Tensor, Tensor] | None


@dataclass(frozen=True, eq=False)
class Batch:
    """What a loss is taken of."""

    feeds: dict[str, Tensor]
    labels: Tensor | None = None
    mixed: Mixed = None
    """With which row each is mixed, and the share of its own."""


class Objective(Protocol):
    """What is minimised."""

    def place(self, device: torch.device) -> None:
        """Move what it holds beside the trained module."""
        ...

    def terms(self, batch: Batch, training: bool) -> dict[str, Tensor]:
        """The losses of a batch by name, with gradients when training."""
        ...

    weights: dict[str, float]
    """The weight of each; of those that are missing 1."""
    balanced: bool
    """Is each first divided by what it was at the start?"""


@dataclass
class Outcome:
    """How a run went."""

    steps: int = 0
    total: int = 0
    rate: float = math.nan
    """The learning rate at its highest."""
    first: float = math.nan
    """Loss on the rows to judge by, before training."""
    best: float = math.nan
    """The lowest one; its weights are the result."""
    best_step: int = 0
    last: float = math.nan
    train: list[float] = field(default_factory=list)
    """Loss on the batches, a mean for each evaluation."""
    stopped: str = ""
    """Why it ended before its budget did."""


class Diverged(ZcError):  # noqa: N818
    """The loss became NaN or infinite before anything got better."""


def fit(
    module: GraphModule,
    objective: Objective,
    parts: Parts,
    recipe: Recipe,
    augment: Augment,
    *,
    penalty: GroupPenalty | None = None,
    track: Track = untracked,
    label: str = "train",
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train the weights of the module in place; what is left in it is the best state by the rows to judge by.

    Raises:
        Diverged: the loss is NaN or infinite and no better state was seen.
        ZcError: the checkpoint is of another run.
    """
    device = pick_device(recipe)
    module.to(device)
    with threads(recipe.threads), kept_memory():
        objective.place(device)
        return _Run(module, objective, parts, recipe, augment, device, checkpoint, penalty).go(track, label)


class _Run:
    def __init__(
        self,
        module: GraphModule,
        objective: Objective,
        parts: Parts,
        recipe: Recipe,
        augment: Augment,
        device: torch.device,
        checkpoint: Checkpoint | None,
        penalty: GroupPenalty | None,
    ) -> None:
        self.penalty = penalty
        self.module, self.objective, self.parts = module, objective, parts
        self.recipe, self.augment, self.device, self.checkpoint = recipe, augment, device, checkpoint
        self.rows = parts.train
        self.batch = self.rows.samples.batch or min(recipe.batch, self.rows.count)
        self.per_epoch = max(self.rows.count // self.batch, 1)
        self.optimizer = self._optimizer()
        self.scales: dict[str, float] = {}
        self.average: list[Tensor] = []
        self.best: list[Tensor] = []
        self.outcome = Outcome()
        self.step, self.waited = 0, 0
        self.narrow = recipe.precision == "bfloat16"

    def go(self, track: Track, label: str) -> Outcome:
        """The run, from its checkpoint if there is one."""
        outcome = self.outcome
        state = self.checkpoint.read() if self.checkpoint is not None else None
        if state is None:
            self._begin()
        else:
            self._restore(state)
        while self._steps(track, label):
            self._begin_lower()
        outcome.steps = self.step
        if self.best:
            self._put(self.best)
        self.module.batch_statistics(False)
        return outcome

    def _steps(self, track: Track, label: str) -> bool:
        """The steps that are left; True if they shall begin again at a lower learning rate."""
        outcome, losses, shown = self.outcome, list[float](), [math.nan]
        every = max(outcome.total // EVALUATIONS, 1)
        for _ in track(range(self.step, outcome.total), lambda: f"{label} {shown[0]:.4g}", outcome.total - self.step):
            loss = self._advance(outcome.total)
            if not math.isfinite(loss):
                if self._harms():
                    return True
                self._diverged(loss)
                break
            losses.append(loss)
            shown[0] = float(np.mean(losses[-50:]))
            self.step += 1
            if self.step % every == 0 or self.step == outcome.total:
                outcome.train.append(float(np.mean(losses)))
                losses.clear()
                self._look()
                if self.step >= _PROBATION * outcome.total and self._harms():
                    return True
                if self.checkpoint is not None:
                    self.checkpoint.write(self._state())
                if self.recipe.patience and self.waited >= self.recipe.patience:
                    outcome.stopped = f"no progress in {self.waited} evaluations"
                    break
        return False

    def _harms(self) -> bool:
        """Is the learning rate ours to choose, and has nothing become better with it?"""
        outcome = self.outcome
        return self.recipe.lr is None and outcome.best_step == 0 and outcome.rate > self.recipe.lowest

    def _begin_lower(self) -> None:
        """Begin again from the start at a third of the learning rate."""
        outcome = self.outcome
        if self.recipe.minutes is not None:
            outcome.total = max(outcome.total - self.step, 1)
        self._put(self.best)
        outcome.rate, outcome.last, self.step, self.waited = outcome.rate / _LOWER, outcome.first, 0, 0
        outcome.train.clear()
        self.optimizer = self._optimizer()
        self._begin_average()

    # ---- one step

    def _advance(self, total: int) -> float:
        batch = self._batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.outcome.rate * self.recipe.part(self.step, total)
        self.module.batch_statistics(self.recipe.batchnorm)
        with autocast(self.narrow, self.device):
            terms = self.objective.terms(batch, True)
            loss = self._total(terms)
            if self.penalty is not None:
                loss = loss + self.penalty()
        value = float(loss.detach())
        if not math.isfinite(value):
            return value
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip)
        self.optimizer.step()
        self._follow()
        return value

    def _batch(self, step: int) -> Batch:
        """The rows of a step: a function of the seed and the step alone, so that a resumed run sees the same."""
        epoch, at = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(self.rows.count)
        feeds, labels = self.rows.take(order[at * self.batch : (at + 1) * self.batch].tolist())
        feeds, mixed = self.augment(feeds, np.random.default_rng([self.recipe.seed, 1, step]))
        return self._to_batch(feeds, labels, mixed)

    def _to_batch(self, feeds: dict[str, Array], labels: Array | None, mixed: Any = None) -> Batch:
        here = None if labels is None else torch.from_numpy(np.ascontiguousarray(labels)).to(self.device)
        pair = None if mixed is None else tuple(torch.from_numpy(m).to(self.device) for m in mixed)
        return Batch(to_device(feeds, self.device), here, pair)

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        if self.objective.balanced and not self.scales:
            self.scales = {name: 1 / max(float(term.detach()), 1e-12) for name, term in terms.items()}
        parts = [t * self.scales.get(name, 1.0) * self.objective.weights.get(name, 1.0) for name, t in terms.items()]
        return sum(parts[1:], parts[0])

    def _follow(self) -> None:
        """Move the average towards the weights; young averages move faster."""
        if not self.recipe.ema:
            return
        part = 1 - min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self._weights(), part)

    # ---- looking at the rows to judge by

    def _look(self) -> None:
        """Judge the averaged weights; keep them if they are the best so far."""
        outcome = self.outcome
        now = [w.clone() for w in (self.average or self._weights())]
        moving = [m.clone() for m in self.module.moving()]
        back = [w.clone() for w in self._weights()]
        self._put([*now, *moving])
        outcome.last = self._judge(self.parts.judge)
        self._put([*back, *moving])
        if outcome.last < outcome.best:
            self.best, self.waited = [*now, *moving], 0
            outcome.best, outcome.best_step = outcome.last, self.step
        else:
            self.waited += 1

    def _judge(self, rows: Rows) -> float:
        self.module.batch_statistics(False)
        found, count = 0.0, 0
        for feeds, labels in rows.batches(self.batch):
            size = self.batch if rows.samples.batch else len(next(iter(feeds.values())))
            with torch.no_grad():  # in float32: what is told apart here is less than the noise of bfloat16
                found += size * float(self._total(self.objective.terms(self._to_batch(feeds, labels), False)))
            count += size
        if self.penalty is not None:
            with torch.no_grad():
                found += count * float(self.penalty())
        return found / count if math.isfinite(found) else math.inf

    def _diverged(self, loss: float) -> None:
        outcome, rate = self.outcome, self.optimizer.param_groups[0]["lr"]
        what = f"the loss became {loss} at step {self.step + 1} of {outcome.total} (learning rate {rate:.2g})"
        advice = "use a lower lr" + ("" if self.recipe.clip else ", or clip=1")
        if outcome.best_step == 0:
            raise Diverged(f"{what}, and nothing was better before; {advice}")
        outcome.stopped = f"{what}; the weights of step {outcome.best_step} were kept; {advice}"

    # ---- state

    def _begin(self) -> None:
        self._begin_average()
        if self.recipe.precision == "auto" and gains_by_bfloat16(self.device):
            self.narrow = self._bears_bfloat16()
        if self.objective.balanced:
            with autocast(self.narrow, self.device):
                self._total(self.objective.terms(self._batch(0), True))
        begin = time.perf_counter()
        self.outcome.first = self.outcome.best = self.outcome.last = self._judge(self.parts.judge)
        look = time.perf_counter() - begin
        self.best = self._now()
        self.outcome.rate = self.recipe.first_rate
        self.outcome.total = self.recipe.total(self.per_epoch) or self._timed_total(look)

    def _bears_bfloat16(self) -> bool:
        """Does its rounding leave the loss what it is? Where outputs vary little about a large mean, it does not."""
        batch, found = self._batch(0), []
        for narrow in (False, True):
            with torch.no_grad(), autocast(narrow, self.device):
                terms = self.objective.terms(batch, False)
            found.append({name: float(term) for name, term in terms.items()})
        exact, rounded = found
        return all(abs(rounded[name] - exact[name]) <= _BORNE * exact[name] for name in exact)

    def _begin_average(self) -> None:
        self.average = [w.clone() for w in self._weights()] if self.recipe.ema else []

    def _now(self) -> list[Tensor]:
        """The weights and the statistics as they stand."""
        return [w.clone() for w in (*self._weights(), *self.module.moving())]

    def _timed_total(self, look: float) -> int:
        """How many steps the minutes are good for: a few are timed, and taken back.

        look: seconds of a look at the rows to judge by, which the minutes must be good for too.
        """
        assert self.recipe.minutes is not None
        saved, average, times = self._now(), [w.clone() for w in self.average], []
        for _ in range(_TIMED_STEPS):
            begin = time.perf_counter()
            self._advance(_TIMED_STEPS)
            times.append(time.perf_counter() - begin)
        self._put(saved)
        self.average, self.optimizer = average, self._optimizer()
        seconds = 60 * self.recipe.minutes * self.recipe.share - EVALUATIONS * look
        return max(int(seconds / float(np.median(times[1:]))), 1)

    def _state(self) -> dict[str, Any]:
        outcome = dict(vars(self.outcome))
        return {
            "step": self.step,
            "weights": [w.clone() for w in self._weights()],
            "moving": [m.clone() for m in self.module.moving()],
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "best": self.best,
            "waited": self.waited,
            "scales": self.scales,
            "narrow": self.narrow,
            "outcome": outcome,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.waited, self.scales = state["step"], state["waited"], state["scales"]
        self.narrow = state["narrow"]
        self._put([*state["weights"], *state["moving"]])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = [t.to(self.device) for t in state["average"]]
        self.best = [t.to(self.device) for t in state["best"]]
        self.outcome.__dict__.update(state["outcome"])

    def _weights(self) -> list[Tensor]:
        return [p.data for p in self.module.parameters()]

    def _put(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for own, value in zip((*self._weights(), *self.module.moving()), values, strict=True):
                own.copy_(value)

    def _optimizer(self) -> Any:
        recipe = self.recipe
        decaying, others = self.module.trained(True), self.module.trained(False)
        groups = [
            {"params": found, "weight_decay": decay}
            for found, decay in ((decaying, recipe.decay), (others, 0.0))
            if found
        ]
        if not groups:
            raise ZcError(f"{self.module.name}: no weight is left to train")
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
        sizes = {p: self.module.unit_of(p) for p in (*decaying, *others)}
        if recipe.optimizer == "adamw":
            return UnitAdam(groups, sizes)
        return UnitMuon(groups, sizes, self.module.matrices())
