"""How the gradient flows: norm against layer, the factor per layer, and both over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from . import style

if TYPE_CHECKING:
    from ..reading import Trace

NORMS = {"signal_grad_norm": "signal gradient ‖dE/da‖", "grad_norm": "weight gradient ‖dE/dW‖"}
HEALTHY = 100  # fold: layer 1 gets more than a hundredth and less than a hundred times of the top layer's signal
FAINT = 1e-18  # a norm below it may be 0 one layer further: squares of its elements are less than float32 holds
UNDEFINED = "A value is not finite any more; lower the learning rate."
COLUMNS, CELLS = 200, 20_000  # of a heat map: most steps, most cells in all
NOTHING = "No step is recorded yet."
NO_STEPS = "This run has no steps, so there is nothing to draw. Look at its scores, or set steps above 0."


class Verdict(NamedTuple):
    """How the signal gradient changes from layer to layer towards the input, at one step, over all seeds.

    factor: fitted per layer; ratio: layer 1 over layer L, by which tone is vanishing (below 1 / HEALTHY), exploding
    (above HEALTHY) or healthy; else it is dead, diverged or unknown. words say it short, help at length.
    """

    step: int
    factor: float
    ratio: float
    tone: str
    words: str
    help: str


def fitted_factor(norms: np.ndarray) -> float:
    """Factor per layer towards the input, from norms [L] of layers 1..L: least squares on their logarithms.

    The first and last layers see the data and the loss and are left out where 16 layers or more leave enough.
    NaN where fewer than two norms are positive and finite.
    """
    layers = np.arange(1, len(norms) + 1)
    used = np.isfinite(norms) & (norms > 0)
    if len(norms) >= 16:
        used &= (layers > 3) & (layers <= len(norms) - 3)
    if used.sum() < 2:
        return np.nan
    return float(np.exp(-np.polyfit(layers[used], np.log(norms[used].astype(float)), 1)[0]))


def verdict(trace: Trace, arm: int, step: int | None = None) -> Verdict:
    """The verdict on an arm's signal gradient at a step, by default the newest."""
    unknown = Verdict(-1, np.nan, np.nan, "unknown", "–", nothing(trace) or NOTHING)
    if trace.step < 0:
        return unknown
    try:
        at, norms = trace.at("signal_grad_norm", arm, trace.step if step is None else step)
    except KeyError:
        return unknown
    middle = middle_of(norms)
    depth = len(middle)
    gone = [d for (a, _), d in trace.diverged.items() if a == arm]
    if gone and not np.isfinite(norms).all():
        first, layer = min(gone)
        place = f"layer {layer}" if layer else "the readout"
        return Verdict(at, np.nan, np.nan, "diverged", f"diverged at step {first}, first in {place}", UNDEFINED)
    if depth < 2:
        return Verdict(at, 1.0, 1.0, "healthy", "one hidden layer", "Nothing is passed down.")
    factor, there = fitted_factor(middle), np.flatnonzero(middle > 0)
    if not np.isfinite(factor) or (middle[0] == 0 and middle[there[0]] > FAINT):
        until = f"below layer {there[0] + 1}" if len(there) else "in any layer"
        return Verdict(at, 0.0, 0.0, "dead", "no gradient", f"At step {at} no signal gradient is recorded {until}.")
    how = f"Factor of ‖dE/da‖ from layer to layer towards the input, fitted over the middle layers at step {at}."
    help = f"{how} Healthy is less than a hundredfold change over all {depth} layers."
    if middle[0] == 0:  # what is left above it goes on falling
        words = f"vanishing: ×{factor:.2f} per layer: layer 1's signal is below what float32 holds"
        return Verdict(at, factor, 0.0, "vanishing", words, help)
    ratio = float(middle[0] / middle[-1]) if middle[-1] > 0 else np.inf
    tone = "vanishing" if ratio < 1 / HEALTHY else "exploding" if ratio > HEALTHY else "healthy"
    words = f"{tone}: ×{factor:.2f} per layer: layer 1 gets {times(ratio)} layer {depth}'s signal"
    return Verdict(at, factor, ratio, tone, words, help)


def times(ratio: float) -> str:
    """A ratio in words that 'the signal' may follow: '8.9e-13 of', '4.9 times'."""
    return f"{ratio:.2g} of" if ratio < 1 else f"{ratio:.2g} times"


def nothing(trace: Trace) -> str:
    """Why a run has no steps to draw, as a sentence; empty where it has some."""
    return NOTHING if trace.step < 0 else NO_STEPS if trace.experiment.settings.steps == 0 else ""


def departed(trace: Trace) -> str:
    """What to add where networks have diverged: ' BN diverged at step 12 (1 of 3 seeds).'"""
    told, seeds = "", len(trace.experiment.seeds)
    for arm, about in enumerate(trace.experiment.arms):
        steps = [step for (a, _), (step, _) in trace.diverged.items() if a == arm]
        if steps:
            told += f" {about.label} diverged at step {min(steps)}"
            told += f" ({len(steps)} of {seeds} seeds)." if seeds > 1 else "."
    return told


class Profile(NamedTuple):
    """The norms of an arm's layers at a step, [L] each: geometric mean, least and greatest over the seeds."""

    step: int
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def profile(trace: Trace, quantity: str, arm: int, step: int) -> Profile:
    """`quantity` is one of NORMS. Networks that diverged are left out. Raises KeyError where nothing is recorded."""
    at, norms = trace.at(quantity, arm, step)
    return Profile(at, middle_of(norms), np.fmin.reduce(norms), np.fmax.reduce(norms))


def gradient_flow(trace: Trace, *, step: int, scale: str) -> go.Figure:
    """Every layer's gradient norms at one step, one line an arm, a band over its seeds."""
    arms = range(len(trace.experiment.arms))
    try:
        told = {quantity: [profile(trace, quantity, arm, step) for arm in arms] for quantity in NORMS}
    except KeyError:
        return style.said(nothing(trace) or NOTHING, style.HEIGHT)
    figure, marked = make_subplots(1, 2, horizontal_spacing=0.12), {}
    for column, (quantity, profiles) in enumerate(told.items(), 1):
        foot, top = margins([one.middle for one in profiles], scale)
        for arm, one in enumerate(profiles):
            name, rgb, place = style.label(trace, arm), style.color(arm), {"row": 1, "col": column}
            x, letter = np.arange(1, len(one.middle) + 1), NORMS[quantity].split()[-1]
            shown, small = drawable(one.middle, scale), 7 if len(x) <= 30 else 4  # many marks are no line either
            if len(trace.experiment.seeds) > 1 and np.isfinite(shown).all():
                low = np.where((one.low > 0) | (scale == "linear"), one.low, one.middle)
                style.band(figure, x, low, one.high, rgb, name, False, **place)
            figure.add_scatter(
                x=x,
                y=style.numbers(shown),
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                line={"color": rgb, "width": 2, "dash": style.dash(arm)},
                marker={"size": 6, "symbol": style.symbol(arm)},
                hovertemplate=f"layer %{{x}}: {letter} = %{{y:.3~g}}<extra>{name}</extra>",
                **place,
            )
            for value, y, words in ((0, foot / 2**arm, "× at the foot: 0."), (np.inf, top, "× at the top: infinite.")):
                there = (one.middle == value) & np.isnan(shown)
                if there.any() and np.isfinite(y):
                    marked[words] = True
                    figure.add_scatter(
                        x=x[there],
                        y=np.full(there.sum(), y),
                        mode="markers",
                        name=name,
                        legendgroup=name,
                        showlegend=False,
                        marker={"symbol": "x-thin", "size": small, "line": {"color": rgb, "width": 1}},
                        hovertemplate=f"layer %{{x}}: {letter} = {value}<extra>{name}</extra>",
                        **place,
                    )
    depth = max(len(one.middle) for one in told["grad_norm"])
    figure.update_xaxes(title="layer l (1 is next to the input)", dtick=style.whole(depth))
    figure.update_yaxes(type=scale, exponentformat="power")
    for column, name in enumerate(NORMS.values(), 1):
        figure.update_yaxes(title=name, row=1, col=column)
    at = told["signal_grad_norm"][-1].step
    notes = [f"Signal gradient at step {at}.", *(spoken(trace, arm, step) for arm in arms), *marked]
    seeds = len(trace.experiment.seeds)
    left = ", less those that diverged" if trace.diverged else ""
    over = f"Lines are geometric means over {seeds} seeds{left}; bands their range."
    return style.finished(figure, note=" ".join([*notes, *[over] * (seeds > 1)]))


def spoken(trace: Trace, arm: int, step: int) -> str:
    """The verdict as a sentence: 'BN: healthy ...' or 'BN diverged at ...'."""
    told = verdict(trace, arm, step)
    return f"{trace.experiment.arms[arm].label}{'' if told.tone == 'diverged' else ':'} {told.words}."


def middle_of(norms: np.ndarray, axis: int = 0) -> np.ndarray:
    """Geometric mean over the seeds, one axis, of those that are numbers; NaN where none is. 0 and inf stay."""
    there = ~np.isnan(norms)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.log(np.where(there, norms, 1).astype(float)).sum(axis)
        return np.where(there.any(axis), np.exp(total / there.sum(axis)), np.nan)


def drawable(norms: np.ndarray, scale: str) -> np.ndarray:
    """The norms that have a place on the axis; NaN for the others."""
    return np.where(np.isfinite(norms) & ((norms > 0) | (scale == "linear")), norms, np.nan)


def margins(norms: list[np.ndarray], scale: str) -> tuple[float, float]:
    """Where zeros and where infinities are marked: below and above all that is drawn; NaN where nothing is."""
    inside = drawable(np.concatenate(norms).astype(float), scale)
    inside = inside[np.isfinite(inside)]
    if not inside.size:
        return np.nan, np.nan
    return float(inside.min()) / 10, float(inside.max()) * (10 if scale == "log" else 1.1)


def gradient_heatmap(trace: Trace, *, which: str) -> go.Figure:
    """The gradient norm of every layer at every step, as color; one panel an arm, one color scale."""
    if nothing(trace):
        return style.said(nothing(trace), style.HEIGHT)
    arms = range(len(trace.experiment.arms))
    depth = max(s.depth for s in trace.experiment.arm_settings)
    most = max(20, min(COLUMNS, CELLS // (depth * len(arms))))
    told = [heat(trace, which, arm, most) for arm in arms]
    finite = np.concatenate([z[np.isfinite(z)] for _, z in told])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    columns = min(3, len(told))
    rows = -(-len(told) // columns)
    names = [style.label(trace, arm) for arm in arms]
    gaps = {"horizontal_spacing": 0.05, "vertical_spacing": 0.16 / rows + 0.06}
    figure = make_subplots(rows, columns, subplot_titles=names, **gaps)
    for i, (steps, z) in enumerate(told):
        figure.add_heatmap(
            x=style.numbers(steps),
            y=np.arange(1, z.shape[0] + 1),
            z=style.numbers(z),
            coloraxis="coloraxis",
            row=i // columns + 1,
            col=i % columns + 1,
            hovertemplate=f"step %{{x}}, layer %{{y}}: {NORMS[which].split()[-1]} = 10<sup>%{{z:.2f}}</sup>"
            f"<extra>{names[i]}</extra>",
        )
    figure.update_xaxes(title="step t (updates)")
    figure.update_yaxes(dtick=style.whole(depth))
    figure.update_yaxes(title="layer l", col=1)
    title = {"text": f"log₁₀ {NORMS[which].split()[-1]}", "side": "right"}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": {"title": title}})
    figure.update_annotations(font_size=13)
    return style.finished(
        figure,
        height=60 + 300 * rows,
        note="Blank cells: the gradient is 0, infinite or undefined there." + departed(trace),
    )


def heat(trace: Trace, which: str, arm: int, most: int = COLUMNS) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n], n at most `most`, and log10 of the norm [L, n], geometric mean over the seeds that have not
    diverged; NaN where it is 0."""
    series = trace.read(which, arm, points=most // 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.log10(middle_of(series.mean, axis=1)).T
    return series.steps, np.where(np.isfinite(z), z, np.nan)
