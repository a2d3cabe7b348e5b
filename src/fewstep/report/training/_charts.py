"""Charts of training metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..page import Chart, Choice, Facts, Part, Section, Series
from ._run import Metrics

__all__ = ["figure_sections", "progress_section", "thinned"]

#: Prefixes of metrics measured with the averaged weights, and the data they were measured on.
_TAKEN_ON = {"validation_": "validation", "averaged_": "averaged weights"}


@dataclass(frozen=True)
class _Figure:
    """A known metric and its presentation."""

    key: str
    title: str
    y_label: str
    note: str = ""
    name: str = "training"  # of the line of the figure whose name has no prefix
    ideal: float | None = None
    log: bool = True  # where it pays


_LOSSES = (
    _Figure("loss", "Loss", "what is minimised"),
    _Figure("flow_matching", "Flow matching", "squared error per dimension"),
    _Figure("kl", "KL divergence", "of the coupling from N(0, I), in nats per dimension"),
    _Figure("beta", "Beta", "weight of the KL term"),
    _Figure("rmse", "Error of the student", "RMSE to the teacher's samples"),
)
_STRAIGHTNESS = (
    _Figure("curvature", "Curvature", "per dimension", name="averaged weights"),
    _Figure("truncation_rmse_4", "Truncation error", "RMSE of 4 calls to 32", name="averaged weights"),
)
_NOISES = (
    _Figure("aggregate_mean", "Mean", "RMS over dimensions", ideal=0.0),
    _Figure(
        "aggregate_variance", "Variance", "variance", "Mean, least and largest over dimensions.", ideal=1
    ),
    _Figure("aggregate_norm", "Norm", "over that of N(0, I)", ideal=1.0),
    _Figure("aggregate_ks", "Distance", "of the norms from chi (Kolmogorov-Smirnov)", ideal=0.0),
)
_OPTIMISER = (
    _Figure("lr", "Learning rate", "learning rate", name="learning rate", log=False),
    _Figure("gradient_norm", "Gradient", "norm before clipping", name="gradient norm"),
)

_HELD_OUT = "Validation: on held-out data, with the averaged weights, which are the result of the run."
_NONE_HELD_OUT = (
    "The averaged weights are the result of the run; as no data are held out, they are evaluated on the "
    "training data."
)


def figure_sections(metrics: Metrics, exact: bool) -> list[Section]:
    """Return sections with the losses, then with metrics of the flow and of its noises, if not ``exact``."""
    shown = _without_the_trivial(metrics, exact)
    held_out = any(key.startswith("validation_") for key in shown.figures)
    sections = (
        ("Losses", _HELD_OUT if held_out else _NONE_HELD_OUT, _LOSSES),
        (
            "Straightness",
            "Of 64 samples from fixed noises: the lower, the fewer network calls are enough.",
            _STRAIGHTNESS,
        ),
        (
            "Noises of the coupling",
            "Mismatch between the distribution of the training noises, over all data, and N(0, I), from "
            "which sampling starts. No solver can compensate for it.",
            _NOISES,
        ),
        ("Other figures", "", _unknown(shown)),
    )
    charts = [(title, _parts(figures, shown), intro) for title, intro, figures in sections]
    return [Section(title, _chosen(title, *parts), intro) for title, parts, intro in charts if any(parts)]


def _without_the_trivial(metrics: Metrics, exact: bool) -> Metrics:
    """Remove metrics that are trivial in this run, such as the KL term of a fixed coupling."""
    hidden = {"samples", "time", "samples_per_second", "validation_beta", "averaged_beta"}
    if len(set(metrics.of("beta").values())) < 2:
        hidden |= {"beta"}
    if not any(metrics.of("kl").values()):
        hidden |= _everywhere("kl")
        if metrics.figures.get("flow_matching") == metrics.figures.get("loss"):
            hidden |= _everywhere("flow_matching")
    if exact:
        hidden |= {key for key in metrics.figures if "aggregate_" in key}
    return Metrics({key: values for key, values in metrics.figures.items() if key not in hidden})


def _unknown(metrics: Metrics) -> list[_Figure]:
    """Return the metrics of a custom objective."""
    known = {figure.key for figure in (*_LOSSES, *_STRAIGHTNESS, *_NOISES, *_OPTIMISER)}
    known |= {"aggregate_variance_min", "aggregate_variance_max"}
    others = dict.fromkeys(_bare(key) for key in metrics.figures if _bare(key) not in known)
    return [_Figure(key, key.replace("_", " ").capitalize(), key.replace("_", " ")) for key in others]


def progress_section(metrics: Metrics) -> list[Section]:
    """Return charts of learning rate, gradient and speed."""
    charts, numbers = _parts(_OPTIMISER, metrics)
    speed = metrics.figures.get("samples_per_second", {})
    if len(speed) > 1:
        note = "Training steps only, without validations, previews and files."
        series = [_series("samples per second", speed)]
        charts.append(Chart("Speed", "step", "samples per second", series, note=note))
    if len(times := metrics.of("time")) > 1:
        start, end = min(times.values()), max(times.values())
        unit, size = next(
            (unit, size)
            for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
            if end - start >= 2 * size or size == 1
        )
        elapsed: dict[int, float | None] = {step: (t - start) / size for step, t in times.items()}
        note = "Total time, including interruptions."
        series = [_series("wall clock", elapsed)]
        charts.append(Chart("Wall clock", "step", f"{unit} since the first line", series, note=note))
    title = "Optimiser and speed"
    return [Section(title, _chosen(title, charts, numbers))] if charts or numbers else []


def _chosen(title: str, charts: Sequence[Chart], numbers: Mapping[str, object]) -> list[Part]:
    """Return a choice between charts, or the only one, and the numbers below."""
    parts: list[Part] = (
        [Choice(title, {chart.title: chart for chart in charts})] if len(charts) > 1 else [*charts]
    )
    return [*parts, *([Facts(numbers)] if numbers else [])]


def _parts(figures: Iterable[_Figure], metrics: Metrics) -> tuple[list[Chart], dict[str, object]]:
    """Return charts of the metrics with more than one point, and the others as numbers."""
    charts: list[Chart] = []
    numbers: dict[str, object] = {}
    for figure in figures:
        lines = _lines(figure, metrics)
        if any(len(line.x) > 1 for line in lines):
            charts.append(_chart(figure, lines))
            continue
        for line in lines:
            label = f"{figure.title}, {line.name}" if len(lines) > 1 else figure.title
            numbers[label] = _point(line)
    return charts, numbers


def _lines(figure: _Figure, metrics: Metrics) -> list[Series]:
    lines = []
    for prefix, name in {"": figure.name, **_TAKEN_ON}.items():
        key = prefix + figure.key
        if values := metrics.figures.get(key):
            low, high = metrics.figures.get(f"{key}_min"), metrics.figures.get(f"{key}_max")
            lines.append(_series(name, values, low, high, strong=name != "training"))
    return lines


def _chart(figure: _Figure, lines: list[Series]) -> Chart:
    heights = [y for line in lines for y in line.y if y is not None]
    # The end of a loss that falls by orders of magnitude is only visible on a logarithmic axis.
    log = figure.log and figure.ideal is None and bool(heights) and max(heights) > 3 * min(heights) > 0
    if figure.ideal is not None:
        first, last = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
        lines = [*lines, Series("N(0, I)", (first, last), (figure.ideal, figure.ideal))]
    return Chart(figure.title, "step", figure.y_label, lines, log_y=log, note=figure.note)


def _series(
    name: str,
    values: Mapping[int, float | None],
    low: Mapping[int, float | None] | None = None,
    high: Mapping[int, float | None] | None = None,
    strong: bool = False,
) -> Series:
    x, y = list(values), list(values.values())
    kept = thinned(y)
    lowest, highest = (None if end is None else [end.get(x[k]) for k in kept] for end in (low, high))
    return Series(name, [x[k] for k in kept], [y[k] for k in kept], lowest, highest, strong)


def _point(line: Series) -> object:
    """Format a line's only point as a number, with its interval if it has one."""
    y, *ends = [values[0] for values in (line.y, line.low, line.high) if values is not None]
    return y if y is None or None in ends or not ends else f"{y:.4g} ({ends[0]:.4g} to {ends[1]:.4g})"


def _everywhere(key: str) -> set[str]:
    return {key, *(prefix + key for prefix in _TAKEN_ON)}


def _bare(key: str) -> str:
    for prefix in _TAKEN_ON:
        key = key.removeprefix(prefix)
    return key


def thinned(y: Sequence[float | None], most: int = 1000) -> list[int]:
    """Return indices of about ``most`` points: the ends, the gaps, and the extremes of every stretch.

    Charts thin their points as well, but slowly for a hundred thousand of them.
    """
    if len(y) <= most:
        return list(range(len(y)))
    size = math.ceil(2 * len(y) / most)
    kept = {0, len(y) - 1}
    for start in range(0, len(y), size):
        stretch = y[start : start + size]
        finite = [value for value in stretch if value is not None]
        kept |= {start + stretch.index(value) for value in (min(finite), max(finite))} if finite else set()
        if len(finite) < len(stretch):
            kept |= {start + k for k, value in enumerate(stretch) if value is None}
    return sorted(kept)
