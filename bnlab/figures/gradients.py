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
HEALTHY = (0.8, 1.25)  # factor per layer
UNDEFINED = "A value is not finite any more; lower the learning rate."
HUNDREDFOLD = "20 layers then change the signal by less than a hundredfold."
COLUMNS, CELLS = 200, 20_000  # of a heat map: most steps, most cells in all
NOTHING = "No step is recorded yet."


class Verdict(NamedTuple):
    """How the signal gradient changes from layer to layer towards the input, at one step, over all seeds.

    factor: fitted per layer; ratio: layer 1 over layer L. tone is vanishing, healthy, exploding, dead, diverged or
    unknown; words say it short, help at length.
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
    unknown = Verdict(-1, np.nan, np.nan, "unknown", "–", "No step is recorded yet.")
    if trace.step < 0:
        return unknown
    try:
        at, norms = trace.at("signal_grad_norm", arm, trace.step if step is None else step)
    except KeyError:
        return unknown
    with np.errstate(divide="ignore", invalid="ignore"):
        per_seed = np.exp(np.log(norms.astype(float)).mean(0)) if len(norms) else norms
    depth = len(per_seed)
    gone = [d for (a, _), d in trace.diverged.items() if a == arm]
    if gone and not np.isfinite(per_seed).all():
        first, layer = min(gone)
        place = f"layer {layer}" if layer else "the readout"
        return Verdict(at, np.nan, np.nan, "diverged", f"diverged at step {first}, first in {place}", UNDEFINED)
    if depth < 2:
        return Verdict(at, 1.0, 1.0, "healthy", "one hidden layer", "Nothing is passed down.")
    ratio = float(per_seed[0] / per_seed[-1]) if per_seed[-1] > 0 else np.nan
    factor = fitted_factor(per_seed)
    if not np.isfinite(factor) or ratio == 0:
        return Verdict(
            at, 0.0, 0.0, "dead", "no gradient", f"At step {at} the signal gradient of layer 1 is exactly 0."
        )
    tone = "vanishing" if factor < HEALTHY[0] else "exploding" if factor > HEALTHY[1] else "healthy"
    words = f"{tone}: ×{factor:.2f} per layer: layer 1 gets {times(ratio)} layer {depth}'s signal"
    how = "Factor of ‖dE/da‖ from layer to layer towards the input, fitted over the middle layers"
    return Verdict(
        at, factor, ratio, tone, words, f"{how} at step {at}. Healthy is ×{HEALTHY[0]} to ×{HEALTHY[1]}: {HUNDREDFOLD}"
    )


def times(ratio: float) -> str:
    """A ratio in words that 'the signal' may follow: '8.9e-13 of', '4.9 times'."""
    return f"{ratio:.2g} of" if ratio < 1 else f"{ratio:.2g} times"


def gradient_flow(trace: Trace, *, step: int, scale: str) -> go.Figure:
    """Every layer's gradient norms at one step, one line an arm, a band over its seeds."""
    if trace.step < 0:
        return style.said(NOTHING, style.HEIGHT)
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    notes = []
    for arm in range(len(trace.experiment.arms)):
        name, rgb = style.label(trace, arm), style.color(arm)
        for column, quantity in enumerate(NORMS, 1):
            try:
                at, norms = trace.at(quantity, arm, step)
            except KeyError:
                return style.said(NOTHING, style.HEIGHT)
            x = np.arange(1, norms.shape[1] + 1)
            middle = middle_of(norms)
            shown, odd = drawable(middle, scale)
            if len(norms) > 1 and not odd.any():
                low, high = norms.min(0), norms.max(0)
                style.band(figure, x, np.where(low > 0, low, middle), high, rgb, name, False, row=1, col=column)
            figure.add_scatter(
                x=x,
                y=style.numbers(shown),
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                line={"color": rgb, "width": 2, "dash": style.dash(arm)},
                marker={
                    "size": 6,
                    "symbol": np.where(odd, "x", style.symbol(arm)).tolist() if odd.any() else style.symbol(arm),
                },
                customdata=[f"{v:.3g}" for v in middle],
                hovertemplate=f"layer %{{x}}: {NORMS[quantity].split()[-1]} = %{{customdata}}<extra>{name}</extra>",
                row=1,
                col=column,
            )
        told = verdict(trace, arm, step)
        notes.append(f"{trace.experiment.arms[arm].label}: {told.words}.")
    figure.update_xaxes(title="layer l (1 is next to the input)")
    figure.update_yaxes(type=scale, exponentformat="power")
    for column, name in enumerate(NORMS.values(), 1):
        figure.update_yaxes(title=name, row=1, col=column)
    seeds = len(trace.experiment.seeds)
    over = f" Lines are geometric means over {seeds} seeds, bands their range." if seeds > 1 else ""
    return style.finished(figure, note=f"Signal gradient at step {at}. " + " ".join(notes) + over)


def middle_of(norms: np.ndarray) -> np.ndarray:
    """Geometric mean over the seeds [seeds, L] -> [L]; 0, inf and NaN stay what they are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(np.log(norms.astype(float)).mean(0))


def drawable(norms: np.ndarray, scale: str) -> tuple[np.ndarray, np.ndarray]:
    """The norms as they can be drawn, and where they are not what is drawn: zeros at the foot of a log axis, infinite
    and undefined ones at the top."""
    finite = np.isfinite(norms) & ((norms > 0) | (scale == "linear"))
    inside = norms[finite]
    foot, top = (inside.min() / 10, inside.max() * 10) if inside.size else (1e-30, 1.0)
    shown = np.where(finite, norms, np.where(norms == 0, max(foot, 1e-38), min(top, 1e38)))
    return shown, ~finite


def gradient_heatmap(trace: Trace, *, which: str) -> go.Figure:
    """The gradient norm of every layer at every step, as color; one panel an arm, one color scale."""
    if trace.step < 0:
        return style.said(NOTHING, style.HEIGHT)
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
    figure.update_yaxes(title="layer l", col=1)
    title = {"text": f"log₁₀ {NORMS[which].split()[-1]}", "side": "right"}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": {"title": title}})
    figure.update_annotations(font_size=13)
    return style.finished(
        figure, height=60 + 300 * rows, note="Blank cells: the gradient is 0, infinite or undefined there."
    )


def heat(trace: Trace, which: str, arm: int, most: int = COLUMNS) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n], n at most `most`, and log10 of the norm [L, n], geometric mean over the seeds; NaN where it is 0."""
    series = trace.read(which, arm, points=most // 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.log10(series.mean.astype(float)).mean(1).T
    return series.steps, np.where(np.isfinite(z), z, np.nan)
