"""The contest of two explanations: covariate shift against smoothness, measured on the same runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from . import style
from .inference import NOT_YET, missing, newest_snapshot
from .moving import evenly
from .options import STEP, About

if TYPE_CHECKING:
    from ..reading import Trace

Needs = list[tuple[str, int, dict]]


def newest(*probes: str, **options: object):
    """What a figure needs that draws these probes at the newest snapshot, up to its step if it has one."""

    def needs(trace: Trace, *, step: int | None = None, **_: object) -> Needs:
        at = newest_snapshot(trace, step)
        return [(probe, at, dict(options)) for probe in probes] if at is not None else []

    return needs


def often(probe: str, most: int, **options: object):
    """What a figure needs that draws a probe over time: some of the snapshots, beside what was looked at live."""

    def needs(trace: Trace) -> Needs:
        steps = trace.snapshots()
        return [(probe, steps[i], dict(options)) for i in evenly(len(steps), most)]

    return needs


def looks(trace: Trace, probe: str, arm: int) -> tuple[np.ndarray, dict[str, np.ndarray]] | go.Figure:
    """All good looks of a probe at an arm, or the figure that says why there is none."""
    at = newest_snapshot(trace)
    if at is None:
        return style.said(NOT_YET)
    if wrong := missing(trace.look(probe, arm, at)):
        return wrong
    return trace.looks(probe, arm)


def smoothness(trace: Trace) -> go.Figure:
    """Loss range, gradient predictiveness and effective smoothness along the gradient, over the training."""
    figure = make_subplots(1, 3, horizontal_spacing=0.1)
    for arm in range(len(trace.experiment.arms)):
        told = looks(trace, "gradient_line", arm)
        if isinstance(told, go.Figure):
            return told
        steps, found = told
        name, rgb = style.label(trace, arm), style.color(arm)
        loss = found["loss"][:, :, 1:].mean(1)
        change = found["change"].mean(1)
        for column, (low, high) in enumerate(((loss.min(1), loss.max(1)), (change.min(1), change.max(1))), 1):
            style.band(figure, steps, low, high, rgb, name, False, row=1, col=column)
            for values, dash in ((low, "dot"), (high, style.dash(arm))):
                line(figure, steps, values, name, arm, column, dash, shown=column == 1 and values is high)
        line(figure, steps, found["smoothness"].mean(1), name, arm, 3, style.dash(arm), shown=False)
    for column, title in enumerate(
        ("loss E along the gradient", "change of the gradient ‖Δg‖", "effective smoothness ‖Δg‖/‖Δw‖"), 1
    ):
        figure.update_xaxes(title="step", row=1, col=column)
        figure.update_yaxes(title=title, type="log", exponentformat="power", row=1, col=column)
    note = (
        "Training mode, the coming mini-batch, steps of 1/2 to 4 learning rates along its gradient: bands from "
        "the least "
        "to the greatest. Not the band over trainings with several learning rates; for that, load the experiment "
        "below. "
        "Santurkar et al. 2018."
    )
    return style.finished(figure, height=440, note=note)


def line(figure: go.Figure, x, y, name: str, arm: int, column: int, dash: str, shown: bool) -> None:
    figure.add_scatter(
        x=x, y=style.numbers(np.where(y > 0, y, np.nan)), name=name, legendgroup=name, showlegend=shown,
        mode="lines+markers", line={"color": style.color(arm), "dash": dash, "width": 1.6},
        marker={"symbol": style.symbol(arm), "size": 6},
        hovertemplate=f"%{{x}}: %{{y:.3g}}<extra>{name}</extra>", row=1, col=column,
    )  # fmt: skip


def covariate_shift(trace: Trace, *, step: int) -> go.Figure:
    """How much each layer's gradient changes when the layers below take their update, and how far inputs drift."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    figure = make_subplots(1, 3, horizontal_spacing=0.1)
    for arm in range(len(trace.experiment.arms)):
        found = trace.look("shift", arm, at)
        if wrong := missing(found):
            return wrong
        name = style.label(trace, arm)
        layers, every = found["layer"][0], np.arange(1, found["drift"].shape[1] + 1)
        line(figure, layers, found["relative"].mean(0), name, arm, 1, style.dash(arm), True)
        line(figure, every, found["drift"].mean(0), name, arm, 3, style.dash(arm), False)
        figure.add_scatter(
            x=layers, y=style.numbers(found["cosine"].mean(0)), name=name, legendgroup=name, showlegend=False,
            mode="lines+markers", line={"color": style.color(arm), "dash": style.dash(arm), "width": 1.6},
            marker={"symbol": style.symbol(arm), "size": 6},
            hovertemplate=f"layer %{{x}}: %{{y:.4f}}<extra>{name}</extra>", row=1, col=2,
        )  # fmt: skip
    titles = ("change ‖G − G′‖/‖G‖", "cosine of G and G′", "drift of a, in its standard deviations")
    for column, title in enumerate(titles, 1):
        figure.update_xaxes(title="layer l", row=1, col=column)
        figure.update_yaxes(title=title, row=1, col=column)
    for column in (1, 3):
        figure.update_yaxes(type="log", exponentformat="power", row=1, col=column)
    note = (
        f"Step {at}, training mode. G is a layer's weight gradient, G′ the same after only the layers below took their "
        "update (Santurkar et al. 2018, def. 2.1). Drift: how far the unit means of the pre-activations move in one "
        "update on the same mini-batch."
    )
    return style.finished(figure, height=440, note=note)


def dials(trace: Trace) -> go.Figure:
    """Both dials of every arm: shift across, smoothness up; how fast it learned beside its name."""
    at = newest_snapshot(trace)
    if at is None:
        return style.said(NOT_YET)
    figure, notes = go.Figure(), []
    for arm in range(len(trace.experiment.arms)):
        for probe in ("shift", "gradient_line"):
            if wrong := missing(trace.look(probe, arm, at)):
                return wrong
        shift = 1 - np.nanmean(trace.looks("shift", arm)[1]["cosine"])
        smooth = np.exp(np.nanmean(np.log(trace.looks("gradient_line", arm)[1]["smoothness"])))
        loss = trace.read("loss", arm, points=400)
        halved = np.flatnonzero(loss.mean.mean(1) < loss.mean[0].mean() / 2)
        when = f"loss halved at step {loss.steps[halved[0]]}" if len(halved) else "loss not halved"
        name = style.label(trace, arm)
        figure.add_scatter(
            x=[float(max(shift, 1e-9))], y=[float(smooth)], name=name, mode="markers+text", text=[f"{name}: {when}"],
            textposition="top center", marker={"color": style.color(arm), "symbol": style.symbol(arm), "size": 16},
            hovertemplate=f"shift %{{x:.3g}}, smoothness %{{y:.3g}}<extra>{name}: {when}</extra>", cliponaxis=False,
        )  # fmt: skip
        notes.append(f"{name}: shift {shift:.2g}, smoothness {smooth:.2g}, {when}.")
    figure.update_xaxes(title="covariate shift: 1 − cosine of G and G′", type="log", exponentformat="power")
    figure.update_yaxes(title="effective smoothness (less is smoother)", type="log", exponentformat="power")
    figure.update_layout(margin={"t": 70, "r": 60})
    said = (
        "Means over layers and over all looks of the run. If shift were what matters, what learns fast would "
        "stand left; if smoothness, low. "
    )
    return style.finished(figure, height=460, note=said + " ".join(notes))


def curvature(trace: Trace) -> go.Figure:
    """The Hessian's top eigenvalue over the training against 2/learning rate."""
    figure, limits = go.Figure(), {}
    for arm, settings in enumerate(trace.experiment.arm_settings):
        told = looks(trace, "curvature", arm)
        if isinstance(told, go.Figure):
            return told
        steps, found = told
        top, name = found["top"].mean(1), style.label(trace, arm)
        figure.add_scatter(
            x=steps, y=style.numbers(np.where(top > 0, top, np.nan)), name=name, mode="lines+markers",
            line={"color": style.color(arm), "dash": style.dash(arm)},
            marker={"symbol": style.symbol(arm), "size": 8},
            hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{name}</extra>",
        )  # fmt: skip
        limits[2 / settings.learning_rate] = f"2/η, η = {settings.learning_rate:g}"
    for limit, name in limits.items():
        style.reference(figure, limit, name)
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="largest eigenvalue of the Hessian", type="log", exponentformat="power")
    note = (
        "Mini-batch loss in training mode, Lanczos with 10 Hessian-vector products. Below the line gradient descent is "
        "stable along the steepest direction (Cohen et al. 2021)."
    )
    return style.finished(figure, note=note)


ABOUT = {
    "dials": About(
        "Two dials, and how fast it learns",
        "Which of the two explanations does the speed follow? Each arm once.",
        dials,
        (),
        newest("shift", "gradient_line"),
    ),
    "smoothness": About(
        "The loss along the gradient",
        "How far one can trust the gradient: the less loss and gradient change a few steps further, the smoother.",
        smoothness,
        (),
        often("gradient_line", 6),
    ),
    "covariate_shift": About(
        "Internal covariate shift",
        "How much the layers below, taking their own update, change what a layer's gradient is.",
        covariate_shift,
        (STEP,),
        newest("shift"),
    ),
    "curvature": About(
        "Largest curvature",
        "Gradient descent is stable in the steepest direction while this is below 2/η.",
        curvature,
        (),
        often("curvature", 4, iterations=10),
    ),
}
