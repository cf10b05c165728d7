"""Traces in, plotly figures out. A figure first computes a small typed tuple, which the tests check, then draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from ..registry import Registry
from . import (
    alphas,
    broken,
    contest,
    curves,
    dials,
    distributions,
    gamma_beta,
    gaps,
    geometry,
    gradients,
    inference,
    jacobians,
    moving,
    predicted,
    rates,
    saturation,
    single,
    surface,
)
from .options import STEP, About, Option, asked, choice

if TYPE_CHECKING:
    from ..reading import Trace

AXIS = {"linear": "linear", "log": "log"}
SMOOTHING = choice(
    "smoothing",
    "Smoothing",
    "Mean over this many last steps; the raw line stays behind it.",
    {"10": "10 steps", "1": "none", "50": "50 steps", "200": "200 steps"},
)
SPLITS = choice(
    "splits",
    "Shown",
    "Losses of the mini-batches at every step, and of the whole sets at the scored steps.",
    {
        "batch+test": "mini-batch and test",
        "batch+train+test": "mini-batch, train, test",
        "batch": "mini-batch",
        "train+test": "train and test",
    },
)
KIND = choice(
    "statistics",
    "Statistics",
    "What batch norm normalizes with when the whole sets are scored.",
    {"moving": "moving averages", "population": "population", "batch": "mini-batch"},
)
X = choice("x", "Horizontal axis", "Scale of the steps.", AXIS)
Y = choice("y", "Vertical axis", "Scale of the values.", AXIS)
WHICH = choice(
    "which",
    "Gradient",
    "The error arriving at a layer's pre-activations, or the gradient of its weights.",
    {"signal_grad_norm": "signal gradient", "grad_norm": "weight gradient"},
)
SCALE = choice("scale", "Vertical axis", "Scale of the norms.", {"log": "log", "linear": "linear"})

NEAR = 64  # snapshots before the newest among which one is sought that has been looked at

FIGURES: Registry[About] = Registry("figure")
FIGURES["loss"] = About(
    "Loss",
    "Does it fall? A network whose gradients vanish stays at the dotted line: chance.",
    curves.loss,
    (SPLITS, KIND, SMOOTHING, X, Y),
)
FIGURES["accuracy"] = About(
    "Accuracy",
    "The share of examples that are right; the dotted line is guessing.",
    curves.accuracy,
    (SPLITS, KIND, SMOOTHING, X, Y),
)
FIGURES["gradient_flow"] = About(
    "Gradient flow",
    "A straight line on the logarithmic axis is a constant factor per layer: falling to the left, the signal "
    "vanishes on its way to the input; rising to the left, it explodes.",
    gradients.gradient_flow,
    (STEP, SCALE),
)
FIGURES["gradient_heatmap"] = About(
    "Gradient over time",
    "Each row is a layer, each column a step: watch the lower layers wake up, or stay dark.",
    gradients.gradient_heatmap,
    (WHICH,),
)
for more in (
    moving,
    gamma_beta,
    distributions,
    saturation,
    predicted,
    inference,
    alphas,
    gaps,
    broken,
    single,
    dials,
    contest,
    rates,
    jacobians,
    geometry,
    surface,
):
    FIGURES |= more.ABOUT


def check(name: str, trace: Trace, query: Mapping[str, str]) -> None:
    """Raises KeyError for an unknown name and ValueError with a sentence for a bad option."""
    asked(FIGURES[name].options, query, trace)


def draw(name: str, trace: Trace, query: Mapping[str, str]) -> go.Figure:
    """The figure `name` with options from a query's text.

    Raises KeyError for an unknown name and ValueError with a sentence for a bad option.
    """
    about = FIGURES[name]
    return about.draw(trace, **asked(about.options, query, trace))


def needs(name: str, trace: Trace, query: Mapping[str, str]) -> list[tuple[str, int, dict]]:
    """The looks (probe, step, options) that the figure draws and that have not been taken yet. Raises as draw()."""
    about = FIGURES[name]
    if about.needs is None:
        return []
    wanted = about.needs(trace, **asked(about.options, query, trace))
    return [(probe, step, of) for probe, step, of in wanted if trace.look(probe, 0, step, **of) is None]


def settle(name: str, trace: Trace, query: Mapping[str, str]) -> None:
    """Let the trace end at its newest snapshot at which all looks are there that the figure draws; leave it where there
    is none. While a run trains, its newest snapshot has seldom been looked at yet; that of a run which has ended comes.
    Raises as draw()."""
    if trace.run.ended or not needs(name, trace, query):
        return
    for step in reversed(trace.snapshots()[-NEAR:]):
        trace.horizon = step
        if not needs(name, trace, query):
            return
    trace.horizon = None


__all__ = ["FIGURES", "About", "Option", "check", "draw", "needs", "settle"]
