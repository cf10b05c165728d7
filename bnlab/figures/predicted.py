"""Predicted against measured: how gradients and signals grow from layer to layer in the initial networks."""

from __future__ import annotations

from functools import lru_cache
from math import inf, log
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theory
from ..data import split
from ..problems import enumeration
from ..profile import Profile, profile
from . import style
from .looks import empty, finished
from .means import geometric_norm
from .options import Plot, no_steps
from .style import nothing
from .verdict import HEALTHY, fitted_factor, share

if TYPE_CHECKING:
    from ..experiment import Settings
    from ..reading import Trace

BARS = 12  # of an arm in a panel, about; arms take turns, so that they do not cover each other
RISING = 1.01  # factor per layer above which a signal grows; below, it is constant but for the theory's last digits
STEADY = 1.5  # fold over all layers, up to which a signal that has a limit is the same from end to end
QUANTILES = 15  # sizes of inputs that stand for the examples


class Prediction(NamedTuple):
    """One arm at step 0. measured and predicted: signal gradient, weight gradient (norms) and forward variance, each
    [L]; low and high: range of the measured over the seeds that have some there, whose geometric mean is measured;
    silent: how many seeds have no gradient in some layer. The predicted gradients start at layer L's measured one.
    factors: of each of the three per layer (measured, predicted), the gradients' towards the input, the variance's
    towards the top. limit: what the predicted factor of the signal gradient becomes in ever deeper networks."""

    measured: tuple[np.ndarray, np.ndarray, np.ndarray]
    low: tuple[np.ndarray, np.ndarray, np.ndarray]
    high: tuple[np.ndarray, np.ndarray, np.ndarray]
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray]
    factors: tuple[tuple[float, float], ...]
    limit: float
    lost_at_depth: float
    note: str
    silent: int = 0


class Sizes(NamedTuple):
    """Mean squares over the features: of QUANTILES examples that stand for all, their mean over all, and that of the
    examples' mean."""

    each: tuple[float, ...]
    mean: float
    common: float


@lru_cache(32)
def sizes(data: str, standardize: bool) -> Sizes:
    x = split(data, standardize)[0].x.astype(float)
    squares = np.square(x).mean(1)
    chosen = np.quantile(squares, (np.arange(QUANTILES) + 0.5) / QUANTILES)
    return Sizes(tuple(chosen), float(squares.mean()), float(np.square(x.mean(0)).mean()))


@lru_cache(64)
def of(s: Settings) -> tuple[theory.Growth, Profile]:
    """What the theory says of these settings before the first update."""
    noise = (s.noise_shift, s.noise_scale) if s.norm == "batch" else (0.0, 0.0)
    norm = "frozen" if s.frozen else s.norm
    law = (s.activation, s.init, s.init_gain, norm, s.placement, s.mini_batch, s.delta, noise)
    n_in = split(s.data, s.standardize)[0].x.shape[1]
    each, mean, common = sizes(s.data, s.standardize)
    each = (mean,) if norm == "batch" else each
    expected = profile(*law, depth=s.depth, width=s.width, n_in=n_in, sizes=each, common=common)
    growth = theory.growth(*law)
    if s.frozen:
        at = "Frozen moving averages stand at 0 and 1: batch norm does nothing but for δ"
        at += " and the noise." if any(noise) else "."
        growth = growth._replace(note=f"{at} {growth.note}".strip())
    return growth, expected


def prediction(trace: Trace, arm: int) -> Prediction | None:
    """None where step 0 is not kept as recorded."""
    found = []
    for quantity in ("signal_grad_norm", "grad_norm", "a_std"):
        try:
            at, values = trace.at(quantity, arm, 0)
        except KeyError:
            return None
        if at != range(1):
            return None
        found.append(np.square(values.astype(float)) if quantity == "a_std" else values.astype(float))
    middle = [geometric_norm(values) for values in found]
    ends = [[over(np.where(v > 0, v, np.nan), 0) for v in found] for over in (np.fmin.reduce, np.fmax.reduce)]
    growth, expected = of(trace.experiment.arm_settings[arm])
    variance = expected.forward_variance  # beyond these the theory follows it no more
    variance = np.where((variance > theory.TINY) & (variance < theory.HUGE), variance, np.nan)
    with np.errstate(invalid="ignore"):  # infinite growth of no gradient
        scaled = (expected.signal_norm * middle[0][-1], expected.weight_norm * middle[1][-1], variance)
    both = list(zip(map(fitted_factor, middle), map(fitted_factor, scaled), strict=True))
    with np.errstate(divide="ignore"):
        factors = *both[:2], tuple(np.divide(1.0, both[2]))
    return Prediction(
        tuple(middle), *map(tuple, ends), scaled, factors,
        growth.signal_norm, expected.lost_at_depth, growth.note, int((found[0] == 0).any(1).sum()),
    )  # fmt: skip


FORK = "A fork does not begin with initial weights, which the theory is about. Look at its parent."
THINNED = (
    "Of this run's first steps only means are kept, as its recording budget was used up, so nothing is known of the "
    "initial networks alone. Train it again: a new run keeps its first step, whatever the budget."
)
PANELS = ("signal gradient ‖dE/da‖ (norm)", "weight gradient ‖dE/dW‖ (norm)", "variance of a")


def predicted(trace: Trace) -> go.Figure:
    """Points: the initial networks, measured. Lines: the theory."""
    figure, lines, all_measured = make_subplots(1, 3, horizontal_spacing=0.09), {}, []
    for arm, settings in enumerate(trace.experiment.arm_settings):
        told = prediction(trace, arm)
        if told is None:
            return style.said(FORK if trace.first else nothing(trace) or THINNED)
        every, small = -(-settings.depth // BARS), settings.depth > 30  # many marks and bars are no picture
        all_measured.append(told.measured)
        layers, name, rgb = np.arange(1, settings.depth + 1), style.label(trace, arm), style.color(arm)
        for column in (1, 2, 3):
            m, low, high, p = (q[column - 1] for q in (told.measured, told.low, told.high, told.predicted))
            there = np.isfinite(m) & (m > 0)
            barred = there & (layers % every == (arm * every // len(trace.experiment.arms)) % every)
            figure.add_scatter(
                x=layers[there], y=style.numbers(m[there]), mode="markers", name=f"{name}: measured", legendgroup=name,
                marker={"color": rgb, "symbol": style.symbol(arm), "size": 4 if small else 7},
                error_y=None if len(trace.experiment.seeds) == 1 else {
                    "array": style.numbers(np.where(barred, high - m, np.nan)[there]), "width": 2, "thickness": 1.2,
                    "arrayminus": style.numbers(np.where(barred, m - low, np.nan)[there]),
                },
                hovertemplate=f"layer %{{x}}: %{{y:,.3g}}<extra>{name}, measured</extra>", row=1, col=column,
            )  # fmt: skip
            drawn = np.isfinite(p) & (p > 1e-300)
            figure.add_scatter(
                x=layers[drawn], y=p[drawn], mode="lines" if settings.depth > 1 else "markers",
                name=f"{name}: predicted", legendgroup=name,
                line={"color": rgb, "dash": style.dash(arm), "width": 1.5},
                marker={"color": rgb, "symbol": "line-ew", "size": 22, "line": {"color": rgb, "width": 1.5}},
                hovertemplate=f"layer %{{x}}: %{{y:,.3g}}<extra>{name}, predicted</extra>", row=1, col=column,
            )  # fmt: skip
        lines.setdefault(words(told, len(trace.experiment.seeds)), []).append(name)  # arms may differ in η alone
    listed: set[str] = set()
    for drawn in figure.data:  # once each, by the first that plotly lists: it leaves out what has no points
        drawn.showlegend = len(drawn.x) > 0 and drawn.name not in listed
        listed |= {drawn.name} if drawn.showlegend else set()
    for column, title in enumerate(PANELS, 1):
        figure.update_xaxes(title="layer l", row=1, col=column)
        figure.update_yaxes(title=title, type="log", row=1, col=column)
        empty(figure, column, unseen(np.concatenate([measured[column - 1] for measured in all_measured])))
    said = [f"{enumeration(names)}: {line}" for line, names in lines.items()]
    return finished(figure, 440, "\n".join([SAID, *said]))


SAID = "Factors per layer at step 0, measured / predicted: of norms towards the input, of the variance towards the top."
OFF = 1.5  # fold: how far a measured layer may be off its line without a word


def unseen(values: np.ndarray) -> str:
    """Why none of these values has a place on a logarithmic axis."""
    none = values == 0
    if none.all():
        return "0 in every layer."
    return "0 or not finite in every layer." if none.any() else "Finite in no layer."


def words(told: Prediction, seeds: int) -> str:
    """Factors of the three, where lines are off by far, the depth at which the signal is lost, the law's note."""
    said = []
    for name, both in zip(("‖dE/da‖", "‖dE/dW‖", "var a"), told.factors, strict=True):
        if all(map(np.isfinite, both)):
            said.append(f"{name} ×{style.amount(both[0])} / ×{style.amount(both[1])}")
    if not said:
        said.append("too few layers for a factor")
    elif np.isinf(told.limit):
        said.insert(0, "no line for the gradients, whose mean growth is infinite in theory")
    elif not np.isfinite(told.measured[0][-1]):
        said.insert(0, "no line for the gradients, which are not finite")
    elif told.measured[0][-1] == 0:
        said.insert(0, "no line for the gradients, of which none comes to layer L")
    if 0 < told.silent < seeds:
        verb = "has" if told.silent == 1 else "have"
        said.append(f"over the seeds that have some: {told.silent} of {seeds} {verb} no gradient in some layer")
    return f"{'. '.join(filter(None, [', '.join(said), off(told), ending(told)]))}. {told.note}".strip()


def off(told: Prediction) -> str:
    """Which of the three are off their line by more than OFF in some layer, and how far."""
    found = []
    for name, m, p in zip(("‖dE/da‖", "‖dE/dW‖", "var a"), told.measured, told.predicted, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.abs(np.log(m / p))
        apart = np.where(np.isfinite(apart), apart, 0)
        at = int(apart.argmax())
        if apart[at] > np.log(OFF):
            times = m[at] / p[at]
            found.append(f"{name} ×{style.amount(times, style.enough_digits([1.0, times], OFF))} at layer {at + 1}")
    return f"More than a factor of {OFF:g} from theory, at worst: {', '.join(found)}" if found else ""


def ending(told: Prediction) -> str:
    """Where the theory leads: what its line shows of these layers, the factor of ever deeper networks, and where the
    signal is lost or has exploded."""
    law = told.factors[0][1]
    if not np.isfinite(law):
        return ""
    far = f" (in the limit of many layers ×{told.limit:.3f})" if abs(told.limit / law - 1) > 0.01 else ""
    if told.lost_at_depth < inf:
        return f"In theory the signal has fallen to a millionth after {told.lost_at_depth:,.0f} layers{far}"
    line = told.predicted[0]
    arrives, depth, rises = float(line[0] / line[-1]), len(line), told.limit > RISING
    if rises and min(law, arrives) > RISING:
        millionfold = f"a millionfold over {log(1e6) / log(law):,.0f}"
        if arrives > HEALTHY:
            return f"In theory the signal explodes: it grows {millionfold} layers{far}"
        return f"In theory the signal grows ×{style.amount(arrives)} over these {depth} layers, {millionfold}{far}"
    if not rises and 1 / STEADY < arrives < STEADY:
        return f"In theory the signal is never lost{far}"
    change = "grows" if rises else "hardly changes"
    limit = f"in the limit of many layers it {change} (×{told.limit:.3f} per layer)"
    return f"In theory layer 1 gets {share(arrives, depth)}; {limit}"


PLOTS = {
    "predicted": Plot(
        "Predicted and measured, before the first update",
        "Lines are theory, points the initial networks, bars (at some layers, where there are many) their range over "
        "the seeds: gradients and forward variance per layer for this activation, init, norm and placement "
        "(Schoenholz 2017, Yang 2019). Factors are fitted to the middle layers; theory often speaks of squared norms, "
        "whose factors are the squares of these. The gradients' lines begin at layer L's measured value: "
        "the theory predicts factors, not sizes. That of ‖dE/dW‖ supposes ‖Σ x δᵀ‖² = Σ ‖x‖² ‖δ‖² over the examples, "
        "as if their inputs were at right angles; where they resemble each other (raw data, deep layers that collapse) "
        "it is off.",
        predicted,
        lacks=no_steps,
    ),
}
