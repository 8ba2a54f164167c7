"""What the tools made of a model, judged and as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from accuracy import MEASURES
from cases import Case
from rich.console import Console
from rich.table import Table

OWN = "zc"


@dataclass
class Outcome:
    """What a tool made of a model."""

    tool: str
    error: str | None = None
    """Why there is no file, or none that runs; what follows is None then, but for what the tool took."""
    integers: bool = False
    """Is anything quantised in the file? If not, it is no rival."""
    bytes: int = 0
    size: float | None = None
    """Share of the float file's bytes."""
    figure: float | None = None
    figure_error: float | None = None
    """Standard error of the difference from zc, on the same rows."""
    agreement: float | None = None
    latency: float | None = None
    """Over the float model's."""
    latency_error: float = 0.0
    ms: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_mb: float | None = None


@dataclass(frozen=True)
class Verdict:
    """How zc stands on a model."""

    model: str
    measure: str
    outcomes: list[Outcome]
    accuracy: str
    speed: str
    bars: list[str] = field(default_factory=list)
    met: bool = True


def judge(case: Case, outcomes: list[Outcome]) -> Verdict:
    """Is zc at least as accurate as the best peer, and no slower than the fastest whose accuracy is not below zc's?

    A difference that chance alone explains is called level: less accurate within two standard errors of the paired
    difference, slower within the 95 % intervals of both ratios.
    """
    floating, ran = outcomes[0], [one for one in outcomes[1:] if one.figure is not None]
    own = next((one for one in ran if one.tool == OWN), None)
    if own is None or own.figure is None:
        why = next((one.error for one in outcomes if one.tool == OWN), "not run")
        return Verdict(case.model, case.measure, outcomes, f"no file: {why}", "", [], False)
    peers = [one for one in ran if one.tool != OWN and one.integers]
    accuracy, accurate = _accuracy(own, peers, case)
    speed, fast = _speed(own, peers)
    bars = _bars(case, own, floating)
    met = accurate and fast and not any("MISSED" in bar for bar in bars)
    return Verdict(case.model, case.measure, outcomes, accuracy, speed, bars, met)


def _accuracy(own: Outcome, peers: list[Outcome], case: Case) -> tuple[str, bool]:
    if not peers:
        return "no peer", True
    best = max(peers, key=lambda one: one.figure or 0.0)
    gap, error = (own.figure or 0.0) - (best.figure or 0.0), 2 * (best.figure_error or 0.0)
    word = "ahead of" if gap > 0 else "equal to" if gap == 0 else "level with" if -gap <= error else "BEHIND"
    return f"{word} {best.tool} ({gap:+.2f} +- {error:.2f})", -gap <= error


def _speed(own: Outcome, peers: list[Outcome]) -> tuple[str, bool]:
    rivals = [one for one in peers if (one.figure or 0.0) >= (own.figure or 0.0)]
    if not rivals:
        return "no peer is as accurate", True
    fastest = min(rivals, key=lambda one: one.latency or 0.0)
    gap, error = (own.latency or 0.0) - (fastest.latency or 0.0), own.latency_error + fastest.latency_error
    word = "faster than" if gap <= -error else "level with" if gap <= error else "SLOWER than"
    return f"{word} {fastest.tool} ({own.latency:.2f} against {fastest.latency:.2f})", gap <= error


def _bars(case: Case, own: Outcome, floating: Outcome) -> list[str]:
    bars, said = case.bars, []
    if bars.drop is not None:
        drop = (floating.figure or 0.0) - (own.figure or 0.0)
        said.append(f"loses {drop:.2f} of {bars.drop:g} {_met(drop <= bars.drop + 1e-9)}")
    if bars.agree is not None:
        own_agrees = own.figure if MEASURES[case.measure].name in ("agree", "faces", "speech") else own.agreement
        said.append(f"agrees {own_agrees:.2f} of {bars.agree:g} {_met((own_agrees or 0.0) >= bars.agree)}")
    if bars.latency is not None:
        said.append(f"latency {own.latency:.2f} of {bars.latency:g} {_met((own.latency or 0.0) <= bars.latency)}")
    return said


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"


HEADS = ("tool", "figure", "+-", "agreement", "size", "latency", "+-", "seconds", "processor s", "peak MB", "")


def rows_of(verdict: Verdict) -> list[list[str]]:
    """A row of the table for each tool."""
    return [
        [
            one.tool,
            _shown(one.figure, 2),
            _shown(one.figure_error, 2),
            _shown(one.agreement, 2),
            _shown(one.size, 2),
            _shown(one.latency, 3) + ("!" if (one.latency or 0.0) > 1 + one.latency_error else ""),
            _shown(one.latency_error if one.latency is not None else None, 3),
            _shown(one.seconds, 1),
            _shown(one.cpu_seconds, 1),
            _shown(one.peak_mb, 0),
            _remark(one),
        ]
        for one in verdict.outcomes
    ]


def _remark(one: Outcome) -> str:
    if one.error is None:
        return "" if one.integers or one.tool == "float" else "nothing quantised"
    return one.error if len(one.error) < 160 else one.error[:160] + " ..."


def _shown(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def show(verdict: Verdict) -> None:
    """The table of a model on the terminal."""
    measure = MEASURES[verdict.measure]
    title = f"{verdict.model}: {measure.name} {measure.unit}, agreement in {measure.agree_unit}"
    table = Table(*HEADS, title=title, title_justify="left")
    for row in rows_of(verdict):
        table.add_row(*row)
    console = Console(width=180)
    console.print(table)
    console.print(f"accuracy: {verdict.accuracy}; speed: {verdict.speed}; {'; '.join(verdict.bars)}\n", highlight=False)


def markdown(verdicts: list[Verdict], versions: Mapping[str, str], missing: Sequence[str]) -> str:
    """All tables as Markdown; versions by tool, and the tools that were missing."""
    named = ", ".join(f"{tool} {version}" for tool, version in versions.items())
    lines = ["# int8 side by side", "", f"Versions: {named}."]
    if missing:
        lines.append(f"Not run, since not installed: {', '.join(missing)}.")
    for verdict in verdicts:
        measure = MEASURES[verdict.measure]
        lines += ["", f"## {verdict.model}: {measure.name}, agreement in {measure.agree_unit}", ""]
        lines += [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows_of(verdict)]
    lines += ["", "## Verdict", "", "| model | accuracy | speed | bars | |", "|---|---|---|---|---|"]
    for v in verdicts:
        word = "met" if v.met else "MISSED"
        lines.append(f"| {v.model} | {v.accuracy} | {v.speed} | {'; '.join(v.bars)} | {word} |")
    return "\n".join(lines) + "\n"
