"""Predicted against measured: how gradients and signals grow from layer to layer in the initial networks."""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theory
from ..data import split
from . import style
from .gradients import NOTHING, fitted_factor, nothing
from .looks import finished
from .options import About

if TYPE_CHECKING:
    from ..experiment import Settings
    from ..reading import Trace

BARS = 12  # of an arm in a panel, about; arms take turns, so that they do not cover each other
QUANTILES = 15  # sizes of inputs that stand for the examples


class Prediction(NamedTuple):
    """One arm at step 0. measured and predicted: signal gradient, weight gradient (norms) and forward variance, each
    [L]; low and high: range of the measured over the seeds. The predicted gradients start at layer L's measured one.
    factors: per layer towards the input, of the norm of the signal gradient, (measured, predicted)."""

    measured: tuple[np.ndarray, np.ndarray, np.ndarray]
    low: tuple[np.ndarray, np.ndarray, np.ndarray]
    high: tuple[np.ndarray, np.ndarray, np.ndarray]
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray]
    factors: tuple[float, float]
    lost_at_depth: float
    note: str


@lru_cache(32)
def sizes(data: str, standardize: bool) -> tuple[float, ...]:
    """Mean squares over the features of training examples: QUANTILES of them."""
    x = split(data, standardize)[0].x.astype(float)
    return tuple(np.quantile(np.square(x - x.mean(0)).mean(1), (np.arange(QUANTILES) + 0.5) / QUANTILES))


@lru_cache(64)
def of(s: Settings) -> tuple[theory.Growth, theory.Profile]:
    """What the theory says of these settings."""
    K = s.mini_batch if s.statistics == "batch" else None
    law = (s.activation, s.init, s.init_gain, s.norm, s.placement, K, s.delta)
    n_in = split(s.data, s.standardize)[0].x.shape[1]
    profile = theory.profile(*law, depth=s.depth, width=s.width, n_in=n_in, sizes=sizes(s.data, s.standardize))
    return theory.growth(*law), profile


def prediction(trace: Trace, arm: int) -> Prediction | None:
    """None where step 0 was not recorded."""
    found = []
    for quantity in ("signal_grad_norm", "grad_norm", "a_std"):
        try:
            at, values = trace.at(quantity, arm, 0)
        except KeyError:
            return None
        if at != 0:
            return None
        found.append(np.square(values.astype(float)) if quantity == "a_std" else values.astype(float))
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = [np.exp(np.log(values).mean(0)) for values in found]
    growth, profile = of(trace.experiment.arm_settings[arm])
    scaled = (profile.signal_norm * middle[0][-1], profile.weight_norm * middle[1][-1], profile.forward_variance)
    factors = fitted_factor(middle[0]), fitted_factor(profile.signal_norm)
    return Prediction(
        tuple(middle), tuple(v.min(0) for v in found), tuple(v.max(0) for v in found), scaled, factors,
        growth.lost_at_depth, growth.note,
    )  # fmt: skip


FORK = "A fork does not begin with initial weights, which the theory is about. Look at its parent."
PANELS = ("signal gradient ‖dE/da‖ (norm)", "weight gradient ‖dE/dW‖ (norm)", "variance of a")


def predicted(trace: Trace) -> go.Figure:
    """Points: the initial networks, measured. Lines: the theory."""
    figure, notes = make_subplots(1, 3, horizontal_spacing=0.09), []
    for arm, settings in enumerate(trace.experiment.arm_settings):
        told = prediction(trace, arm)
        if told is None:
            return style.said(FORK if trace.first else nothing(trace) or NOTHING)
        every, small = -(-settings.depth // BARS), settings.depth > 30  # many marks and bars are no picture
        layers, name, rgb = np.arange(1, settings.depth + 1), style.label(trace, arm), style.color(arm)
        for column in (1, 2, 3):
            m, low, high, p = (q[column - 1] for q in (told.measured, told.low, told.high, told.predicted))
            there = np.isfinite(m) & (m > 0)
            barred = there & (layers % every == (arm * every // len(trace.experiment.arms)) % every)
            figure.add_scatter(
                x=layers[there], y=style.numbers(m[there]), mode="markers", name=f"{name}: measured", legendgroup=name,
                marker={"color": rgb, "symbol": style.symbol(arm), "size": 4 if small else 7}, showlegend=column == 1,
                error_y=None if len(trace.experiment.seeds) == 1 else {
                    "array": style.numbers(np.where(barred, high - m, np.nan)[there]), "width": 2, "thickness": 1.2,
                    "arrayminus": style.numbers(np.where(barred, m - low, np.nan)[there]),
                },
                hovertemplate=f"layer %{{x}}: %{{y:.3g}}<extra>{name}, measured</extra>", row=1, col=column,
            )  # fmt: skip
            drawn = np.isfinite(p) & (p > 1e-300)
            figure.add_scatter(
                x=layers[drawn], y=p[drawn], mode="lines" if settings.depth > 1 else "markers",
                name=f"{name}: predicted", legendgroup=name, showlegend=column == 1,
                line={"color": rgb, "dash": style.dash(arm), "width": 1.5},
                marker={"color": rgb, "symbol": "line-ew", "size": 22, "line": {"color": rgb, "width": 1.5}},
                hovertemplate=f"layer %{{x}}: %{{y:.3g}}<extra>{name}, predicted</extra>", row=1, col=column,
            )  # fmt: skip
        notes.append(f"{name}: {words(told)}")
    for column, title in enumerate(PANELS, 1):
        depth = max(settings.depth for settings in trace.experiment.arm_settings)
        figure.update_xaxes(title="layer l", **style.layers(depth), row=1, col=column)
        figure.update_yaxes(title=title, type="log", row=1, col=column)
    said = "Step 0. Factors are of norms, not squared norms, per layer towards the input, fitted to the middle layers. "
    return finished(figure, 440, said.strip(), *notes)


def words(told: Prediction) -> str:
    """Both factors, their ratio, and the depth at which the signal is lost."""
    measured, law = told.factors
    if not (np.isfinite(measured) and np.isfinite(law)):
        return f"too few layers for a factor. {told.note}".strip()
    lost = (
        "never lost" if told.lost_at_depth == inf else f"a millionth of the top's after {told.lost_at_depth:.0f} layers"
    )
    said = f"×{measured:.3g} measured, ×{law:.3g} predicted, ratio {measured / law:.3f}; by the law {lost}."
    return f"{said} {told.note}".strip()


ABOUT = {
    "predicted": About(
        "Predicted and measured, before the first update",
        "Lines are theory, points the initial networks, bars (at some layers, where there are many) their range over "
        "the seeds: gradients and forward variance per layer for this activation, init, norm and placement "
        "(Schoenholz 2017, Yang 2019).",
        predicted,
    ),
}
