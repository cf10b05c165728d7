"""Whole trainings that differ in their learning rate alone, as one band: how much does the choice of it matter?

Another thing than the loss along the gradient of one training, with which it is easily confused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go

from . import style
from .lasting import lost
from .looks import NOT_YET, finished
from .losses import measure
from .means import present
from .options import Plot
from .smoothing import smoothed, taken, width

if TYPE_CHECKING:
    from ..reading import Trace

SMOOTHING, POINTS = 10, 200
ALONE = (
    "This needs arms that differ in nothing but their learning rate. Load Several learning rates, at the foot of the "
    "page."
)


class Band(NamedTuple):
    """Arms that share all but the learning rate: which, and at `steps` [n] the least and the greatest of their losses,
    each smoothed over `window` steps, mean over its seeds. From where a network diverged on there is no greatest:
    infinity."""

    arms: tuple[int, ...]
    rates: tuple[float, ...]
    steps: np.ndarray
    low: np.ndarray
    high: np.ndarray
    window: int


def bands(trace: Trace) -> list[Band]:
    groups: dict[object, list[int]] = {}
    for arm, settings in enumerate(trace.experiment.arm_settings):
        groups.setdefault(settings.model_copy(update={"learning_rate": 1.0}), []).append(arm)
    return [band(trace, tuple(arms)) for arms in groups.values() if len(arms) > 1]


def band(trace: Trace, arms: tuple[int, ...]) -> Band:
    lines = []
    for arm in arms:
        series = trace.read("loss", arm, points=POINTS)
        line = smoothed(series.steps, present(series.mean, 1), SMOOTHING)
        when = [step for (a, _), (step, _) in trace.diverged.items() if a == arm]
        lines.append(np.where(series.steps > min(when), np.inf, line) if when else line)
    with np.errstate(invalid="ignore"):
        low, high = np.fmin.reduce(lines), np.fmax.reduce(lines)
    rates = tuple(trace.experiment.arm_settings[arm].learning_rate for arm in arms)
    return Band(arms, rates, series.steps, low, high, taken(SMOOTHING, width(series)))


def names(trace: Trace, told: list[Band]) -> list[str]:
    """What the labels of each band's arms have in common, word by word; all of them where that tells nothing."""
    labels = [[trace.experiment.arms[arm].label for arm in one.arms] for one in told]
    found = [
        " ".join(w for w in one[0].split() if all(w in s.split() for s in one)).rstrip(" ,;:=(η") for one in labels
    ]
    names = [s if s and found.count(s) == 1 else " + ".join(one) for s, one in zip(found, labels, strict=True)]
    return [style.escaped(name) for name in names]


def learning_rates(trace: Trace) -> go.Figure:
    """One band of losses for each group of arms that share all but their learning rate."""
    if trace.step < 0 or not trace.experiment.settings.steps:
        return style.said(NOT_YET)
    told = bands(trace)
    if not told:
        return style.said(ALONE)
    figure, notes = go.Figure(), []
    ends = [values[np.isfinite(values)] for one in told for values in (one.low, one.high)]
    top = 2 * max((values.max() for values in ends if values.size), default=1.0)  # where what diverged is drawn
    for one, name in zip(told, names(trace, told), strict=True):
        arm = one.arms[0]
        high = np.where(np.isinf(one.high), top, one.high)
        style.band(figure, one.steps, one.low, high, style.color(arm), name, True, opacity=0.25)
        for y, dash in ((one.low, style.dash(arm)), (high, "dot")):
            figure.add_scatter(
                x=one.steps, y=style.numbers(np.where(np.isfinite(y), y, np.nan)), mode="lines", legendgroup=name,
                line={"color": style.color(arm), "width": 1.6, "dash": dash}, showlegend=False,
                hovertemplate=f"step %{{x}}: %{{y:,.4g}}<extra>{name}</extra>",
            )  # fmt: skip
        rates = ", ".join(f"{rate:g}" for rate in sorted(one.rates))
        with np.errstate(divide="ignore", invalid="ignore"):  # all have diverged, or a loss is 0
            end = one.high[-1] / one.low[-1] if len(one.high) else np.nan
        wide = "" if np.isnan(end) else "without a top" if np.isinf(end) else f"×{style.amount(end)} wide"
        notes.append(f"{name}: η = {rates}{', at the end ' + wide if wide else ''}.")
    figure.update_xaxes(title="step t (updates)")
    figure.update_yaxes(title=measure(trace, "loss"), type="log")
    note = (
        f"Whole trainings, mini-batch loss, mean of {max(one.window for one in told)} steps and of the seeds: from the "
        "least to the greatest (dotted) of the arms that share all but their learning rate. In a narrow "
        "band the learning rate hardly matters. Not the loss along the gradient, which looks around one training."
    )
    end = "drawn as the band's upper end from there on"
    gone = [words.replace("left out", end) for words in lost(trace, trace.step).values()]
    return finished(figure, style.HEIGHT, note, *notes, *gone)


PLOTS = {
    "learning_rates": Plot(
        "Trainings with several learning rates",
        "How much does the learning rate matter? One band over whole trainings, with and without a norm.",
        learning_rates,
    ),
}
