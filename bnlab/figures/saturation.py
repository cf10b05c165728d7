"""Saturation: the share of values where the activation is flat, and of units that are stuck there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..activations import ACTIVATIONS
from ..problems import enumeration
from . import style
from .lasting import departed
from .means import living
from .options import LAYER, STEP, Plot, lower, no_steps
from .points import spanning, uneven, when_of_arms
from .smoothing import width
from .style import nothing

if TYPE_CHECKING:
    from ..reading import Trace

SHARE_POINTS = 50
FEW = 6  # examples that half of the time saturate a unit, all of them in 1 of 2 ** FEW mini-batches
OVER_STEPS = "steps %{x:,d} to %{customdata[0]:,d}: mean %{y:.1%}, %{customdata[1]:.1%} to %{customdata[2]:.1%}"


class Shares(NamedTuple):
    """A share's mean, least and greatest over seeds: all layers at one step, or in the mean of some, [L] each; one
    layer over time, [n] each, over the seeds and the `wide` steps from `steps` to `last` that a point stands for."""

    at: range
    layers: tuple[np.ndarray, np.ndarray, np.ndarray]
    steps: np.ndarray
    last: np.ndarray
    wide: int
    layer: tuple[np.ndarray, np.ndarray, np.ndarray]


def shares(trace: Trace, quantity: str, arm: int, step: int, layer: int) -> Shares:
    """`quantity` is saturated or dead. Networks that diverged are left out of the mean. An arm without the layer has
    nothing over time."""
    found, values = trace.at(quantity, arm, step)
    depth = values.shape[1]
    series = trace.read(quantity, arm, layer=min(layer, depth), stop=None if layer <= depth else 0, points=SHARE_POINTS)
    over_time = living(series.mean), low(series.low), high(series.high)
    values = values.T
    of_layers = living(values), low(values), high(values)
    last = series.last(min(trace.step, trace.experiment.settings.steps - 1))  # after the last update there is a scoring
    return Shares(found, of_layers, series.steps, last, width(series), over_time)


def low(values: np.ndarray) -> np.ndarray:
    return np.fmin.reduce(values, axis=1)


def high(values: np.ndarray) -> np.ndarray:
    return np.fmax.reduce(values, axis=1)


def saturation(trace: Trace, *, step: int, layer: int) -> go.Figure:
    """Share of saturated values and of dead units: above over the layers at a step, below over time for one layer."""
    if nothing(trace):
        return style.said(nothing(trace))
    figure = make_subplots(2, 2, vertical_spacing=0.17, horizontal_spacing=0.08, shared_yaxes="all")
    found, over, most, wide, several = [], [], 0.0, 1, len(trace.experiment.seeds) > 1
    for i in range(len(trace.experiment.arms)):
        color, label = style.color(i), style.label(trace, i)
        for column, name in enumerate(("saturated", "dead"), 1):
            told = shares(trace, name, i, step, layer)
            layers = np.arange(1, len(told.layers[0]) + 1)
            wide = max(wide, told.wide)
            for row, x, (mean, least, greatest) in ((1, layers, told.layers), (2, told.steps, told.layer)):
                if not len(x):
                    continue
                most, mixed = max(most, np.nanmax(greatest, initial=0)), row == 2 and told.wide > 1
                if several or mixed:
                    style.band(figure, style.numbers(x), least, greatest, color, label, False, row=row, col=column)
                figure.add_scatter(
                    x=style.numbers(x),
                    y=style.numbers(mean),
                    name=label,
                    legendgroup=label,
                    mode="lines+markers" if row == 1 or len(x) == 1 else "lines",
                    marker={"size": 5, "color": color},
                    line={"color": color, "width": 2, "dash": style.dash(i)},
                    showlegend=row == column == 1,
                    customdata=style.numbers(np.stack([told.last, least, greatest], 1)) if mixed else None,
                    meta={"what": "means", "to": True} if mixed else None,
                    hovertemplate=OVER_STEPS if mixed else f"{'layer' if row == 1 else 'step'} %{{x:,d}}: %{{y:.1%}}",
                    row=row,
                    col=column,
                )
        found.append(told.at)
        over.append(told.steps)
    when = when_of_arms(trace, found)
    alone = len({*found}) == 1 and len(found[0]) == 1  # else too long for an axis
    here = f",{when}" if alone else ""
    for column, what in enumerate(("saturated values", "dead units"), 1):
        figure.update_xaxes(title=f"layer{here}", row=1, col=column)
        figure.update_xaxes(title=f"step, layer {layer}", row=2, col=column)
        figure.update_yaxes(title=f"share of {what}", tickformat=".0%", range=[-0.03, 1.03], col=column)
    none = "No value here is saturated and no unit is dead. " if most == 0 else ""
    above = "" if alone else f"Upper charts{when}. "
    if wide > 1:
        above += f"{spanning('Lower charts: a point is the mean of', wide, uneven(over))} "
    if several or wide > 1:
        of = " and ".join(["steps"] * (wide > 1) + ["seeds"] * several)
        above += f"Bands go from the least to the greatest of the {of}. "
    left = lower(trace, layer, " of the lower charts")
    return style.finished(figure, height=520, note=none + above + flat(trace) + left + departed(trace))


def flat(trace: Trace) -> str:
    """Where the activation of each arm saturates, in words."""
    told = {}
    for settings in trace.experiment.arm_settings:
        below, above = ACTIVATIONS[settings.activation].flat
        ends = [f"below {below:.3g}"] * (below > -np.inf) + [f"above {above:.3g}"] * (above < np.inf)
        told[settings.activation] = " or ".join(ends) or "never"
    where = "; ".join(f"{name} {ends}" for name, ends in told.items()).replace("-", "−")  # the sign of the axes
    half = [ACTIVATIONS[name].label for name in told if ACTIVATIONS[name].flat == (0, np.inf)]
    usual = f" For {enumeration(half)} about half is usual: of inputs centered at 0, half lie below." if half else ""
    few = sorted({s.mini_batch for s in trace.experiment.arm_settings if s.mini_batch <= FEW})
    chance = f" With K = {enumeration([*map(str, few)])} healthy units are, too, by chance." if few else ""
    return (
        f"Saturated: the activation is flat there ({where}). A unit is dead where all of the mini-batch saturates it."
        + usual
        + chance
    )


PLOTS = {
    "saturation": Plot(
        "Saturation and dead units",
        "The share of values in the flat part of the activation, where almost no gradient passes, and of units "
        "that are there for the whole mini-batch.",
        saturation,
        (LAYER, STEP),
        lacks=no_steps,
    ),
}
