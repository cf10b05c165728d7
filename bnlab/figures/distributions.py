"""Distributions: where the values of a layer lie, before and after the activation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..problems import series
from ..record import sample_at, spaced
from . import style
from .lasting import bounds, departed, lasting, room, ruled, ruling, wholly
from .options import ARM, LAYER, STEP, Plot, choice, having, lower, no_steps
from .points import percentiles
from .style import nothing

if TYPE_CHECKING:
    from ..reading import Trace

WANTED = (5, 15, 50, 85, 95)
POINTS = 90  # of a line over time; six arms of five lines fit an update
POOLED = 16  # steps whose samples make one histogram
BINS = 30
LAYERS = 24  # ridges in one picture
FREE = 64  # degrees of freedom at least, of a variance between examples that is told
WIDE = 10  # fold: values that reach so much farther than the other arms' would press these to lines


class Spread(NamedTuple):
    """Percentiles 5, 15, 50, 85, 95 over time, [n, 5], each of `size` values of `rows` steps that are `apart`."""

    steps: np.ndarray
    bands: np.ndarray
    size: int
    rows: int
    apart: int


def spread(trace: Trace, which: str, arm: int, layer: int) -> Spread:
    """Of the sampled values `which` ("a" or "z") of a layer, over the seeds that last; neighboring steps are pooled."""
    series = trace.read(f"{which}_sample", arm, layer=layer, points=2 * POINTS)
    n = len(series.steps)
    if not n:
        return Spread(series.steps, np.empty((0, len(WANTED)), np.float32), 0, 0, 1)
    values = series.mean[:, lasting(trace, arm)].reshape(n, -1)
    together = -(-n // POINTS)  # rows a pool
    missing = -n % together
    values = np.concatenate([values, np.full((missing, values.shape[1]), np.nan, values.dtype)])
    pools = values.reshape(-1, together * values.shape[1])
    steps = series.steps[np.minimum(np.arange(len(pools)) * together + (together - 1) // 2, n - 1)]
    return Spread(steps, percentiles(pools, WANTED), pools.shape[1], together, widest(series.steps))


class Histogram(NamedTuple):
    """A histogram of `size` sampled values: bin edges [BINS + 1] and the share of the sample in each bin [BINS].

    Values beyond the edges (the outer half percent at each end), infinities and NaN are counted in `size` only.
    """

    edges: np.ndarray
    share: np.ndarray
    size: int


def histogram(values: np.ndarray) -> Histogram:
    """The middle 99 percent of the values in equal bins; empty where none is finite."""
    values = values.ravel()
    there = values[np.isfinite(values)].astype(float)
    if not there.size:
        return Histogram(np.empty(0), np.empty(0), values.size)
    low, high = np.percentile(there, 0.5, method="lower"), np.percentile(there, 99.5, method="higher")
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-30):  # one value: a bin around it
        width = 1e-3 * max(abs(low), abs(high)) or 1e-3
        low, high = low - width / 2, high + width / 2
    counts, edges = np.histogram(there, BINS, (low, high))
    return Histogram(edges, counts / values.size, values.size)


def pooled(trace: Trace, which: str, arm: int, step: int, layer: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The samples of up to POOLED steps that end at the recorded one nearest to `step`: steps [n], [n, seeds, ...]."""
    found, newest = trace.at(f"{which}_sample", arm, step)
    start, stop = max(0, found.stop - POOLED), found.stop
    series = trace.read(f"{which}_sample", arm, start=start, stop=stop, layer=layer, points=POOLED)
    if len(series.steps):
        return series.steps, series.mean
    return np.array(found), (newest if layer is None else newest[:, layer - 1])[None]


def among_examples(trace: Trace, which: str, arm: int, layer: int) -> float:
    """The share of a layer's variance that is between the examples of a mini-batch, by the samples of the newest steps;
    the rest is between units, whose means differ. One-way analysis of variance within each step, mean over the seeds
    that last; at 0 a unit has the same value for every example. NaN where nothing varies, or too few units are sampled
    twice in a step, as of wide layers.
    """
    _, values = pooled(trace, which, arm, trace.step, layer)
    settings = trace.experiment.arm_settings[arm]
    places = np.array(sample_at(settings.mini_batch, settings.width))[: values.shape[2]]
    n, (_, units) = len(values), np.unique(places % settings.width, return_inverse=True)
    groups = (units + np.arange(n)[:, None] * (units.max() + 1)).ravel()  # a unit at a step
    counts = np.bincount(groups)
    free = len(groups) - len(counts)
    shares = []
    for x in np.moveaxis(values[:, lasting(trace, arm)].astype(float), 1, 0) if free >= FREE else ():
        x = x - x.mean(1, keepdims=True)
        within = (x**2).sum() - (np.bincount(groups, x.ravel()) ** 2 / counts).sum()
        whole = x.var(1, ddof=1).mean()
        shares.append(min(max(within, 0) / free / whole, 1) if whole > 0 else np.nan)
    known = [share for share in shares if np.isfinite(share)]
    return float(np.mean(known)) if known else np.nan


def widest(steps: np.ndarray) -> int:
    """How far apart neighboring steps are, at most."""
    return int(np.diff(steps).max()) if len(steps) > 1 else 1


def named(steps: np.ndarray) -> str:
    """Steps in words: "step 7", "steps 384 to 399", "steps 0 to 8, up to 4 apart"."""
    if len(steps) == 1:
        return f"step {steps[0]:,}"
    gap = f", up to {widest(steps):,} apart" if widest(steps) > 1 else ""
    return f"steps {steps[0]:,} to {steps[-1]:,}{gap}"


def layer_histograms(trace: Trace, which: str, arm: int, step: int) -> tuple[np.ndarray, dict[int, Histogram]]:
    """The steps, and a histogram for every layer (1..L), or every few and the last where there are more than LAYERS."""
    found, values = pooled(trace, which, arm, step)
    return found, {l + 1: histogram(values[:, :, l]) for l in spaced(range(values.shape[2]), LAYERS)}


def arm_histograms(trace: Trace, which: str, layer: int, step: int) -> tuple[np.ndarray, dict[int, Histogram]]:
    """The steps, and a histogram of one layer for every arm that has it."""
    found = {arm: pooled(trace, which, arm, step, layer) for arm in having(trace, layer)}
    steps = next(steps for steps, _ in found.values())
    return steps, {arm: histogram(values) for arm, (_, values) in found.items()}


def wide(bands: dict[int, np.ndarray]) -> list[int]:
    """The arms whose values reach more than WIDE times as far as those of the middle arm, or as 1, about what a norm
    gives: beside them alone a layer that has collapsed shall look like it."""
    spans = {arm: float(np.ptp(there)) for arm, one in bands.items() if (there := one[np.isfinite(one)]).size}
    middle = float(np.percentile([*spans.values()], 50, method="lower")) if spans else 0.0
    return [arm for arm, span in spans.items() if span > WIDE * max(middle, 1.0)]


HOVER = (
    "step %{{x}}: median of {} = %{{y:,.4g}}<br>15 to 85%: %{{customdata[1]:,.4g}} to %{{customdata[2]:,.4g}}"
    "<br>5 to 95%: %{{customdata[0]:,.4g}} to %{{customdata[3]:,.4g}}"
)
NAMES = {"a": "pre-activations a", "z": "activations z"}


def distributions(trace: Trace, *, which: str, layer: int) -> go.Figure:
    """Percentiles of a layer's values over time, one panel for each arm that has it."""
    if nothing(trace):
        return style.said(nothing(trace))
    arms = having(trace, layer)
    found = {arm: spread(trace, which, arm, layer) for arm in arms}
    apart = wide({arm: found[arm].bands for arm in ruling(trace, arms)})
    ends = bounds(trace, [(arm, one.bands) for arm, one in found.items() if arm not in apart])
    columns = min(3, len(arms))
    rows = -(-len(arms) // columns)
    gaps = {"horizontal_spacing": 0.08 if apart else 0.04, "vertical_spacing": 0.11}
    gaps["subplot_titles"] = [style.title(trace, arm) for arm in arms]
    figure = make_subplots(rows, columns, shared_xaxes="all", shared_yaxes="all", **gaps)
    most, first = (0, 0, 0), next(i for i, arm in enumerate(arms) if arm not in apart)
    for i, (arm, told) in enumerate(found.items()):
        color, place = style.color(arm), {"row": i // columns + 1, "col": i % columns + 1}
        x, most = style.numbers(told.steps), max(most, told[2:])
        if ends and arm not in apart:
            figure.update_yaxes(range=room(*ends), **place)
        if apart:
            match = None if arm in apart or i == first else f"y{first + 1}" if first else "y"
            figure.update_yaxes(matches=match, showticklabels=True, **place)
        for low, high, label in ((0, 4, "5 to 95%"), (1, 3, "15 to 85%")):
            style.band(figure, x, told.bands[:, low], told.bands[:, high], color, label, False, **place)
        figure.add_scatter(
            x=x,
            y=style.numbers(told.bands[:, 2]),
            mode=style.mode(told.bands[:, 2]),
            line={"color": color, "width": 2, "dash": style.dash(arm)},
            name=style.label(trace, arm),
            meta="median",
            showlegend=False,
            customdata=style.numbers(told.bands[:, [0, 1, 3, 4]]),
            hovertemplate=HOVER.format(which),
            **place,
        )
    figure.update_yaxes(title=f"{which}, layer {layer}", col=1)
    for i in range(max(0, len(arms) - columns), len(arms)):  # those that have no panel below them
        figure.update_xaxes(title="step", showticklabels=True, row=i // columns + 1, col=i % columns + 1)
    figure.update_annotations(font_size=13)
    size, together, gap = most
    thinned = f" that are up to {gap:,} apart" if gap > 1 else ""
    over = f"{together} steps{thinned}" if together > 1 else "one step"
    note = f"{NAMES[which].capitalize()}: median, 15 to 85% and 5 to 95%, each of a sample of {size:,} values of "
    note += over + (" over the seeds." if len(trace.experiment.seeds) > 1 else ".")
    shares = {arm: among_examples(trace, which, arm, layer) for arm in arms}
    told = series(f"{style.label(trace, arm)} {share:.0%}" for arm, share in shares.items() if np.isfinite(share))
    if told:
        note += (
            f" Share of the variance between examples, about, at the newest steps: {told}. The rest is "
            "between units. At 0% a unit has the same value for every example."
        )
    if ends:
        note += ruled(trace, [arm for arm in arms if arm not in apart])
    if apart:
        names = series(style.label(trace, arm) for arm in apart)
        note += f" On an axis of its own, as it is more than tenfold wider: {names}."
    note += lower(trace, layer) + departed(trace)
    return style.finished(figure, height=250 * rows + 110, note=note)


def histograms(trace: Trace, *, which: str, over: str, arm: int, layer: int, step: int) -> go.Figure:
    """Ridges at the last steps up to one: every layer of an arm, or one layer of every arm."""
    if nothing(trace):
        return style.said(nothing(trace))
    if over == "layers":
        found, told = layer_histograms(trace, which, arm, step)
        ridges = [(l, f"layer {l}", style.color(arm), one) for l, one in told.items()]
    else:
        found, told = arm_histograms(trace, which, layer, step)
        ridges = [(i, style.label(trace, i), style.color(i), one) for i, one in told.items()]
    if not any(one.size and len(one.share) for *_, one in ridges):
        there = [i for i in range(len(trace.experiment.arms)) if not wholly(trace, i, found[-1])]
        others = f" Not diverged by then: {series(style.label(trace, i) for i in there)}." if there else ""
        return style.said(f"There is no finite value at {named(found)}." + departed(trace) + others)
    figure = go.Figure()
    gap = min(np.diff([place for place, *_ in ridges]), default=1)
    for place, label, color, one in ridges:
        if not one.size or not len(one.share):
            continue
        middles = (one.edges[:-1] + one.edges[1:]) / 2
        x = np.concatenate([one.edges[:1], middles, one.edges[-1:]])
        y = place + 0.85 * gap * np.concatenate([[0], one.share / max(one.share.max(), 1e-9), [0]])
        figure.add_scatter(
            x=style.numbers(x),
            y=style.numbers(y),
            mode="lines",
            line={"color": color, "width": 1.3},
            fill="toself",
            fillcolor=style.faded(color, 0.35),
            showlegend=False,
            name=label,
            customdata=style.numbers(np.concatenate([[0], one.share, [0]])),
            hovertemplate=f"{which} = %{{x:,.3g}}: %{{customdata:.1%}} of the sample",
        )
    place = [place for place, *_ in ridges]
    figure.update_yaxes(tickvals=place, ticktext=[str(p) if over == "layers" else label for p, label, *_ in ridges])
    figure.update_yaxes(title="layer" if over == "layers" else "", zeroline=False)
    figure.update_xaxes(title=which if over == "layers" else f"{which}, layer {layer}")
    size = max((one.size for *_, one in ridges), default=0)
    what = style.label(trace, arm) if over == "layers" else f"layer {layer}"
    note = f"{NAMES[which].capitalize()} of {what} at {named(found)}: a sample of {size:,} values each"
    note += " over the seeds" if len(trace.experiment.seeds) > 1 else ""
    note += ", scaled to equal height."
    note += lower(trace, layer) if over == "arms" else ""
    return style.finished(figure, height=120 + max(200, 28 * len(ridges)), note=note + departed(trace))


WHICH = choice(
    "which", "Values", "Before the activation, or after it.", {"a": "pre-activations a", "z": "activations z"}
)
OVER = choice(
    "over", "Compare", "Every layer of one arm, or one layer of every arm.", {"layers": "layers", "arms": "arms"}
)
PLOTS = {
    "distributions": Plot(
        "Distributions over time",
        "The percentiles 5, 15, 50, 85 and 95 of a layer's values. With batch norm before the activation z stays put "
        "while a drifts; without it both may drift, shrink or grow, or every unit comes to have the same value for all "
        "examples, which no band shows: see the note.",
        distributions,
        (WHICH, LAYER),
        lacks=no_steps,
    ),
    "histograms": Plot(
        "Histograms",
        f"How a layer's values are distributed: a sample of the mini-batches of up to {POOLED} steps, the last the one "
        "you choose.",
        histograms,
        (WHICH, OVER, ARM._replace(when=("over", "layers")), LAYER, STEP),
        lacks=no_steps,
    ),
}
