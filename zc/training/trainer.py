"""The training loop: the same for distillation, fine-tuning and quantisation-aware training."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from zc.errors import ZcError
from zc.ir.graph import Array
from zc.track import Track, untracked
from zc.training.augment import Augment
from zc.training.checkpoint import Checkpoint
from zc.training.graph import GraphModule
from zc.training.ops.call import Tensor
from zc.training.recipe import Recipe
from zc.training.rows import Parts, Rows
from zc.training.sparsity import GroupPenalty
from zc.training.units import UnitAdam

EVALUATIONS = 20
"""How often the held-back rows are looked at in a run; checkpoints are written then."""
_TIMED_STEPS = 4
Mixed = tuple[Tensor, Tensor] | None


@dataclass(frozen=True, eq=False)
class Batch:
    """What a loss is taken of."""

    feeds: dict[str, Tensor]
    labels: Tensor | None = None
    mixed: Mixed = None
    """Of mixup: with which row each is mixed, and the share of its own."""


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
    first: float = math.nan
    """Loss on the held-back rows before training; NaN where none are held back."""
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
    """Train the weights of the module in place; what is left in it is the best state that the held-back rows saw.

    Raises:
        Diverged: the loss is NaN or infinite and no better state was seen.
        ZcError: the checkpoint is of another run.
    """
    device = pick_device(recipe)
    module.to(device)
    objective.place(device)
    with _threads(recipe.threads):
        return _Run(module, objective, parts, recipe, augment, device, checkpoint, penalty).go(track, label)


def pick_device(recipe: Recipe) -> torch.device:
    """Where to train. ZcError when CUDA is asked for and there is none."""
    cuda = torch.cuda.is_available()
    if recipe.device == "cuda" and not cuda:
        raise ZcError("device=cuda: torch sees no CUDA device here; use device=auto")
    return torch.device("cuda" if recipe.device == "cuda" or (recipe.device == "auto" and cuda) else "cpu")


def to_device(feeds: dict[str, Array], device: torch.device) -> dict[str, Tensor]:
    """Feeds as tensors; images in the layout in which convolutions are trained fastest."""
    out = {}
    for name, array in feeds.items():
        tensor = torch.from_numpy(np.array(array)).to(device)  # a copy: arrays of samples may be read-only
        images = tensor.dim() == 4 and tensor.is_floating_point()
        out[name] = tensor.contiguous(memory_format=torch.channels_last) if images else tensor
    return out


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

    def go(self, track: Track, label: str) -> Outcome:
        """The run, from its checkpoint if there is one."""
        outcome = self.outcome
        state = self.checkpoint.read() if self.checkpoint is not None else None
        if state is None:
            self._begin()
        else:
            self._restore(state)
        every = max(outcome.total // EVALUATIONS, 1)
        losses: list[float] = []
        shown = [math.nan]
        for _ in track(range(self.step, outcome.total), lambda: f"{label} {shown[0]:.4g}", outcome.total - self.step):
            loss = self._advance(outcome.total)
            if not math.isfinite(loss):
                self._diverged(loss)
                break
            losses.append(loss)
            shown[0] = float(np.mean(losses[-50:]))
            self.step += 1
            if self.step % every == 0 or self.step == outcome.total:
                outcome.train.append(float(np.mean(losses)))
                losses.clear()
                self._look()
                if self.checkpoint is not None:
                    self.checkpoint.write(self._state())
                if self.recipe.patience and self.waited >= self.recipe.patience:
                    outcome.stopped = f"no progress in {self.waited} evaluations"
                    break
        outcome.steps = self.step
        if self.best:
            self._put(self.best)
        self.module.batch_statistics(False)
        return outcome

    # ---- one step

    def _advance(self, total: int) -> float:
        batch = self._batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step, total)
        self.module.batch_statistics(self.recipe.batchnorm)
        with self._precision():
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

    # ---- looking at the held-back rows

    def _look(self) -> None:
        """Judge the averaged weights; keep them if they are the best so far."""
        outcome = self.outcome
        now = [w.clone() for w in (self.average or self._weights())]
        moving = [m.clone() for m in self.module.moving()]
        if self.parts.held is None:
            self.best, outcome.best_step = [*now, *moving], self.step
            return
        back = [w.clone() for w in self._weights()]
        self._put([*now, *moving])
        outcome.last = self._judge(self.parts.held)
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
        if self.recipe.ema:
            self.average = [w.clone() for w in self._weights()]
        if self.objective.balanced:
            with self._precision():
                self._total(self.objective.terms(self._batch(0), True))
        if self.parts.held is not None:
            self.outcome.first = self.outcome.best = self.outcome.last = self._judge(self.parts.held)
        self.best = [w.clone() for w in (*self._weights(), *self.module.moving())]
        self.outcome.total = self.recipe.total(self.per_epoch) or self._timed_total()

    def _timed_total(self) -> int:
        """How many steps the minutes are good for: a few are timed, and taken back."""
        assert self.recipe.minutes is not None
        saved, fresh = [w.clone() for w in (*self._weights(), *self.module.moving())], self.optimizer
        average, times = [w.clone() for w in self.average], []
        for _ in range(_TIMED_STEPS):
            begin = time.perf_counter()
            self._advance(_TIMED_STEPS)
            times.append(time.perf_counter() - begin)
        self._put(saved)
        self.average, self.optimizer = average, self._optimizer()
        del fresh
        return max(int(60 * self.recipe.minutes * self.recipe.share / float(np.median(times[1:]))), 1)

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
            "outcome": outcome,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.waited, self.scales = state["step"], state["waited"], state["scales"]
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
            return torch.optim.SGD(groups, recipe.lr, momentum=0.9, nesterov=True)
        return UnitAdam(groups, {p: self.module.unit_of(p) for p in (*decaying, *others)})

    def _precision(self) -> Any:
        wanted = self.recipe.precision
        if wanted == "float32" or (wanted == "auto" and self.device.type == "cpu" and not _multiplies_bfloat16()):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def _multiplies_bfloat16() -> bool:
    """Has this processor tiles of bfloat16 (AMX)? They train convolutions two to three times as fast as float32."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # older torch cannot say
    return ask is not None and bool(ask().get("amx_bf16", False))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
