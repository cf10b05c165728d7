"""The contest of two explanations: covariate shift against smoothness, measured on the same runs."""

from __future__ import annotations

from itertools import pairwise
from math import inf, log10
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..probes.curvature import limit
from ..problems import series
from . import style
from .dials import NONE_BELOW, ROUGHNESS
from .lasting import bounds, confine, finite, lasting, lost, parted, room, ruling
from .looks import Needs, all_lost, each, empty, finished, line, looks, middle, newest, often, seeds, some, titled
from .losses import measure
from .options import STEP, Plot, choice, having, lower

if TYPE_CHECKING:
    from ..reading import Trace

LINE_HEIGHT = 24  # pixels that a name takes, of a chart's height with its margins


def smoothness(trace: Trace, *, direction: str) -> go.Figure:
    """Loss range, gradient predictiveness and roughness over the training, along the gradient or update."""
    figure, drawn = make_subplots(1, 3, horizontal_spacing=0.1), ([], [], [])
    for arm in range(len(trace.experiment.arms)):
        told = looks(trace, direction, arm)
        if isinstance(told, go.Figure):
            return told
        steps, found = told
        name, rgb = style.label(trace, arm), style.color(arm)
        three = found["loss"][..., 1:], found["change"], found["smoothness"]  # [n, seeds, ...]
        for column, values in enumerate(three[:2], 1):
            lengths = middle(values.swapaxes(0, 1))
            low, high = (edge.reduce(lengths, 1) for edge in (np.fmin, np.fmax))
            style.band(figure, steps, low, high, rgb, name, False, row=1, col=column)
            line(figure, steps, low[None], name, arm, column, column == 1, what="least")
            line(figure, steps, high[None], name, arm, column, False, pale=True, what="greatest")
        line(figure, steps, three[2].T, name, arm, 3, False)
        for all_arms, values in zip(drawn, three, strict=True):
            all_arms.append((arm, values[:, lasting(trace, arm)]))
    if not any(np.isfinite(one.y).any() for one in figure.data):
        return all_lost(trace.step, now=False)
    loss_title = f"{measure(trace, 'loss')} along the {DIRECTIONS[direction]}"
    titled(figure, "step", loss_title, "change of the gradient ‖Δg‖", ROUGHNESS)
    confined = [confine(figure, trace, all_arms, column, log=True) for column, all_arms in enumerate(drawn, 1)]
    words, along = trace.experiment.training_mode, "1/2 to 4 learning rates along its gradient"
    if direction == "update_line":
        along = "1/2 to 4 times the optimizer's own next update, decay included"
    note = (
        f"{words[0].upper()}{words[1:]}, the next mini-batch, steps of {along}: "
        "bands from the least to the greatest. Where the gradient is tiny, loss and gradient hardly change. This is "
        "not the band over trainings with several learning rates, which is a chart of its own below."
    )
    n = len(trace.experiment.seeds)
    several = f"Geometric means over {n} seeds; in the roughness the bands are their range." if n > 1 else ""
    return finished(figure, 440, note, several, some(trace, direction), *parted(trace, any(confined)))


def covariate_shift(trace: Trace, *, step: int) -> go.Figure:
    """How much each layer's gradient changes when the layers below take their update, and how far inputs drift."""
    deep = having(trace, 2)
    told = each(trace, "shift", step, deep) if deep else style.said(NONE_BELOW)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(1, 3, horizontal_spacing=0.1)
    for arm, name, found in arms:
        layers, every = np.nanmax(found["layer"], 0), np.arange(1, found["drift"].shape[1] + 1)
        line(figure, layers, found["relative"], name, arm, 1, True)
        line(figure, layers, found["cosine"], name, arm, 2, False, log=False)
        line(figure, every, found["drift"], name, arm, 3, False)
    titles = ("change ‖G − G′‖/‖G‖", "cosine of G and G′", "drift of the input, in standard deviations")
    for column, title in enumerate(titles, 1):
        figure.update_xaxes(title="layer l", row=1, col=column)
        figure.update_yaxes(title=title, row=1, col=column)
    for column, words in ((1, "No gradient changes."), (3, "No input drifts.")):
        figure.update_yaxes(type="log", row=1, col=column)
        empty(figure, column, words)
    noisy = any(s.noise_shift or s.noise_scale for s in trace.experiment.arm_settings)
    note = (
        f"Step {at:,}, {trace.experiment.training_mode}. G is a layer's weight gradient, G′ the same after only the "
        "layers below took their update (Santurkar et al. 2018, def. 2.1). Drift: how far mean and spread of what the "
        "layer reads move when the layers below take it, on the same mini-batch. The data that layer 1 reads do not "
        "move; no drift is shown where a unit's spread is only rounding error."
        + (" Noisy batch norm: afterwards with the noise of the next step, as the next step sees it." if noisy else "")
    )
    return finished(figure, 440, note, seeds(trace), *lost(trace, at).values(), lower(trace, 2).strip())


def curvature(trace: Trace) -> go.Figure:
    """The Hessian's top eigenvalue over the training against what the optimizer is stable below."""
    figure, drawn, limits, above = make_subplots(1, 1), [], {}, []
    arms = range(len(trace.experiment.arms))
    rule = ruling(trace, arms) or arms  # of one that diverged no line stretches the axis
    for arm, settings in enumerate(trace.experiment.arm_settings):
        told = looks(trace, "curvature", arm)
        if isinstance(told, go.Figure):
            return told
        steps, found = told
        top, name, stable = found["top"], style.label(trace, arm), limit(settings)
        line(figure, steps, top.T, name, arm, 1, True)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn.append((arm, np.log10(top[:, lasting(trace, arm)])))
        words = "2(1 + 0.9)/η" if settings.optimizer == "momentum" else "2/η"
        words += " − λ" if settings.weight_decay else ""
        if np.isfinite(stable) and stable > 0 and arm in rule:
            limits[stable] = f"{words}, η = {settings.learning_rate:g}"
            limits[stable] += f", λ = {settings.weight_decay:g}" if settings.weight_decay else ""
        beyond, n = int((top > stable).any(0).sum()), top.shape[1]
        above += [name + (f" ({beyond} of {n} seeds)" if n > 1 else "")] if beyond else []
    titled(figure, "step", "largest eigenvalue of the Hessian")
    ends = bounds(trace, drawn)
    shown = np.array([*(ends or finite([values for _, values in drawn])), *np.log10(list(limits))])
    if shown.size:
        figure.update_yaxes(range=room(shown.min(), shown.max()))
        curves = [values for _, values in drawn for values in values.T]
        for stable, name in told_apart(limits, np.ptp(shown)).items():
            style.reference(figure, stable, name, where=style.free_end(curves, np.log10(stable)))
    notes = [f"Mini-batch loss, {trace.experiment.training_mode}. Lanczos, 10 iterations: a lower bound."]
    if limits:
        notes.append("Below the line gradient descent on a quadratic is stable (Cohen et al. 2021).")
    if any(s.weight_decay for s in trace.experiment.arm_settings):
        notes.append("The Hessian is that of the loss; weight decay adds λ to it, so the loss may have that much less.")
    if above:
        notes.append(
            f"Beyond it at times: {series(above)}. On a quadratic that would diverge; another loss may bend back, "
            "and every mini-batch has its own."
        )
    if any(s.optimizer == "adam" for s in trace.experiment.arm_settings):
        notes.append("Adam scales every parameter's step by itself, so no single line marks where it is stable.")
    several = seeds(trace), some(trace, "curvature")
    return finished(figure, style.HEIGHT, *notes, *several, *parted(trace, bool(ends)))


def told_apart(names: dict[float, str], decades: float) -> dict[float, str]:
    """The names of lines on a logarithmic axis of so many decades, none printed over another: lines too close for that
    are named one below the other, in their order, above the uppermost."""
    found, together = {}, []
    for y, following in pairwise([*sorted(names), inf]):
        together.insert(0, names[y])
        found[y] = ""
        if log10(following / y) > decades * len(together) * LINE_HEIGHT / style.HEIGHT:
            found[y], together = "<br>".join(together), []
    return found


DIRECTIONS = {"gradient_line": "gradient", "update_line": "update"}
DIRECTION = choice(
    "direction",
    "Direction",
    "Along the gradient, or along the optimizer's own update, which compares arms with different optimizers.",
    {"gradient_line": "the gradient", "update_line": "the optimizer's update"},
)


def smoothness_needs(trace: Trace, *, direction: str) -> Needs:
    return often(direction, 6)(trace)


PLOTS = {
    "smoothness": Plot(
        "The loss along the gradient",
        "How far one can trust the gradient: the less loss and gradient change a few steps further, the smoother.",
        smoothness,
        (DIRECTION,),
        smoothness_needs,
    ),
    "covariate_shift": Plot(
        "Internal covariate shift",
        "How much a layer's gradient changes when the layers below take their update.",
        covariate_shift,
        (STEP,),
        newest("shift"),
    ),
    "curvature": Plot(
        "Largest curvature",
        "Gradient descent on a quadratic is stable in the steepest direction while this is below 2/η.",
        curvature,
        (),
        often("curvature", 4, iterations=10),
    ),
}
