"""Latency of models side by side: interleaved runs, medians, and the ratio to the first with its spread."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zc.execute import Feeds, Runs, opened
from zc.ir.graph import Array
from zc.measure.evaluate import Source
from zc.track import Track

_SHORTEST = 0.002
"""Seconds that one timing should last at least: clocks and caches blur shorter ones."""
_ENOUGH = 15
_MOST = 500


@dataclass(frozen=True)
class Latency:
    """How long one run of a model takes, beside others."""

    name: str
    cpu_ms: float
    """Median processor time of a run, over all threads of the process."""
    wall_ms: float
    """Median elapsed time of a run."""
    spread_ms: tuple[float, float]
    """First and third quartile of the time on `clock`."""
    ratio: float
    """Its time over the first model's, on `clock`: the median of the ratios of runs that stood side by side."""
    ratio_spread: tuple[float, float]
    """First and third quartile of those ratios."""
    ratio_error: float
    """Half width of the 95 % interval of the median ratio (1.57 IQR / sqrt n: McGill, Tukey and Larsen, 1978)."""
    repeats: int
    threads: int
    batch: int | None
    """Rows in a run; None where the inputs do not say."""
    clock: str
    """`cpu` for one thread: other processes do not disturb it. `wall` for several, whose cpu time is no latency."""

    @property
    def ms(self) -> float:
        """Median time of a run on `clock`."""
        return self.cpu_ms if self.clock == "cpu" else self.wall_ms


def bench(
    models: Sequence[Source],
    feeds: Sequence[Feeds],
    *,
    repeats: int | None = None,
    threads: int = 1,
    budget: float = 10.0,
    batch: int | None = None,
    track: Track | None = None,
) -> tuple[Latency, ...]:
    """Time models on the same feeds, turn by turn, so that what slows the machine slows them all.

    feeds: used one after the other, the same for all models in a turn.
    repeats: turns; by default as many as fit into `budget` seconds, at least 5, and no more than make the ratios (of
    a single model, the time) sure to 1 %. Before them each model runs unmeasured.

    Raises:
        ZcError: onnxruntime does not run a model on the feeds.
    """
    runners = [opened(model, threads, native=True) for model in models]
    inner = [_warm_up(runner, feeds) for runner in runners]
    started = time.perf_counter()
    turns: list[Array] = []
    for turn in _turns(repeats, track):
        feed = feeds[turn % len(feeds)]
        order = range(len(runners)) if turn % 2 == 0 else range(len(runners) - 1, -1, -1)
        sample = np.empty((len(runners), 2))
        for i in order:
            sample[i] = _time(runners[i], feed, inner[i])
        turns.append(sample)
        if repeats is None and len(turns) >= 5:
            spent = time.perf_counter() - started
            if spent * (1 + 1 / len(turns)) > budget:
                break
            if len(turns) >= _ENOUGH and turn % 5 == 0 and _sure(np.stack(turns), threads):
                break
    times = np.stack(turns)  # [turns, models, (cpu, wall)]
    return tuple(_latency(i, runner.name, times, threads, batch) for i, runner in enumerate(runners))


def _turns(repeats: int | None, track: Track | None) -> Iterator[int]:
    turns = range(_MOST if repeats is None else repeats)
    return iter(turns) if track is None else track(turns, "bench", repeats)


def _warm_up(runner: Runs, feeds: Sequence[Feeds]) -> int:
    """Run until caches and memory plans are settled; how many runs make one timing long enough."""
    runner.run(feeds[0])
    fastest = min(_time(runner, feeds[i % len(feeds)], 1)[1] for i in range(3))
    return max(1, int(np.ceil(_SHORTEST / max(fastest, 1e-7))))


def _time(runner: Runs, feed: Feeds, runs: int) -> tuple[float, float]:
    """Processor and elapsed seconds of one run, the mean of several."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(runs):
        runner.run(feed)
    return (time.process_time() - cpu) / runs, (time.perf_counter() - wall) / runs


def _sure(times: Array, threads: int) -> bool:
    seconds = times[:, :, 0 if threads == 1 else 1]
    if seconds.shape[1] == 1:
        return _half_width(seconds[:, 0]) < 0.01 * float(np.median(seconds[:, 0]))
    return all(_half_width(ratio) < 0.01 * float(np.median(ratio)) for ratio in (seconds[:, 1:] / seconds[:, :1]).T)


def _half_width(values: Array) -> float:
    low, high = np.percentile(values, (25, 75))
    return float(1.57 * (high - low) / np.sqrt(len(values)))


def _latency(index: int, name: str, times: Array, threads: int, batch: int | None) -> Latency:
    clock = 0 if threads == 1 else 1
    seconds = times[:, index, clock]
    ratios = seconds / times[:, 0, clock]
    cpu, wall = np.median(times[:, index], axis=0) * 1e3
    low, high = np.percentile(seconds, (25, 75)) * 1e3
    ratio_low, ratio_high = np.percentile(ratios, (25, 75))
    return Latency(
        name=name,
        cpu_ms=float(cpu),
        wall_ms=float(wall),
        spread_ms=(float(low), float(high)),
        ratio=float(np.median(ratios)),
        ratio_spread=(float(ratio_low), float(ratio_high)),
        ratio_error=_half_width(ratios),
        repeats=len(times),
        threads=threads,
        batch=batch,
        clock="cpu" if threads == 1 else "wall",
    )
