"""gamma and beta of a layer over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..record import evenly
from . import style
from .lasting import bounds, lasting, room, ruled, wholly
from .moving import NO_BATCH_NORM, end
from .options import BATCH_ARM, LAYER, SEED, UNIT, Plot, no_steps
from .points import percentiles
from .style import nothing

if TYPE_CHECKING:
    from ..reading import Trace


class Learned(NamedTuple):
    """gamma or beta over time: percentiles 5, 25, 50, 75, 95 over units and seeds, [n, 5], and one unit's line [n]."""

    steps: np.ndarray
    bands: np.ndarray
    unit: np.ndarray


SPREAD = (5, 25, 50, 75, 95)
SHADE = 0.18  # opacity of a band
SPREAD_POINTS = 150  # a point is a percentile over all units and seeds


def learned(trace: Trace, name: str, arm: int, seed: int, layer: int, unit: int) -> Learned:
    """`name` is gamma or beta. Networks that diverge are left out of the percentiles, unless all do."""
    series = trace.read(name, arm, layer=layer, points=SPREAD_POINTS)
    few = evenly(len(series.steps), SPREAD_POINTS)
    values = series.mean[few]
    some = values[:, lasting(trace, arm)]
    return Learned(series.steps[few], percentiles(some.reshape(len(few), -1), SPREAD), values[:, seed, unit])


def gamma_beta(trace: Trace, *, arm: int, seed: int, layer: int, unit: int) -> go.Figure:
    """gamma and beta of a layer over time: bands over its units and one unit's line."""
    if trace.experiment.arm_settings[arm].norm != "batch":
        return style.said(NO_BATCH_NORM.format("γ and β"))
    if nothing(trace):
        return style.said(nothing(trace))
    figure = make_subplots(1, 2, horizontal_spacing=0.13)
    color = style.color(arm)
    for column, (name, symbol, start) in enumerate((("gamma", "γ", 1), ("beta", "β", 0)), 1):
        told = learned(trace, name, arm, seed, layer, unit - 1)
        x, first = style.numbers(told.steps), column == 1
        for low, high, label, shade in ((0, 4, "5 to 95%", SHADE), (1, 3, "25 to 75%", 1 - (1 - SHADE) ** 2)):
            style.band(
                figure, x, told.bands[:, low], told.bands[:, high], color, label, False, SHADE, row=1, col=column
            )
            figure.add_scatter(  # the legend's sample: as dark as where the bands lie over each other
                x=[None], y=[None], mode="lines", line={"width": 0}, fill="toself", fillcolor=style.faded(color, shade),
                name=label, legendgroup=label, showlegend=first, hoverinfo="skip", row=1, col=column,
            )  # fmt: skip
        for label, y, look in (
            ("median unit", told.bands[:, 2], {"color": color, "width": 2.2, "dash": style.dash(arm)}),
            (f"unit {unit}", told.unit, {"color": style.GRAY, "width": 1.5}),
        ):
            figure.add_scatter(
                x=x,
                y=style.numbers(y),
                mode=style.mode(y),
                line=look,
                name=label,
                legendgroup=label,
                showlegend=first,
                hovertemplate=f"step %{{x}}: {symbol} = %{{y:,.4g}}<extra>{label}</extra>",
                row=1,
                col=column,
            )
        lasts = wholly(trace, arm) or seed in lasting(trace, arm)
        ends = bounds(trace, [(arm, told.bands), *[(arm, told.unit)] * lasts])
        if ends:
            figure.update_yaxes(range=room(min(ends[0], start), max(ends[1], start)), row=1, col=column)
        style.reference(figure, start, "", column)
        figure.update_yaxes(title=f"{symbol} of layer {layer}", row=1, col=column)
        figure.update_xaxes(title="step", row=1, col=column)
    note = "Bands: percentiles over all units and seeds. Dotted: the start, γ = 1 and β = 0." + end(trace, arm, seed)
    if any(a == arm for a, _ in trace.diverged):
        note += ruled(trace, [arm])
    return style.finished(figure, height=380, note=note)


PLOTS = {
    "gamma_beta": Plot(
        "Gamma and beta",
        "The standard deviation γ and the mean β that a layer's units have learned to give their output.",
        gamma_beta,
        (BATCH_ARM, SEED, LAYER, UNIT),
        lacks=no_steps,
    ),
}
