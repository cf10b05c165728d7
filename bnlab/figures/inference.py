"""The inference phase: three kinds of statistics for one network, and why their losses differ, from the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go

from .. import lineage, moving
from ..data import DATASETS
from ..trace import EVERYTHING
from . import style
from .gradients import NOTHING
from .moving import NO_BATCH_NORM
from .options import BATCH_ARM, About, choice

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings

KINDS = {"batch": "mini-batch", "moving": "moving averages", "population": "population"}
SHOWN = 400  # points of a line
SCORINGS = 120  # of the scores over time
LOOKS = {"batch": ("dot", "circle"), "moving": ("solid", "square"), "population": ("dash", "diamond")}


class Three(NamedTuple):
    """One arm's score over a split with each kind of statistics: steps [n], values [n], of all seeds one."""

    steps: np.ndarray
    batch: np.ndarray
    moving: np.ndarray
    population: np.ndarray


def three(trace: Trace, arm: int, split: str, quantity: str, over=np.mean) -> Three:
    """`over` makes one of the values of the seeds."""
    steps, found = np.array([], int), []
    for kind in KINDS:
        steps, loss, accuracy = trace.scores(arm, split, kind, SCORINGS)
        values = loss if quantity == "loss" else accuracy
        found.append(np.full(len(steps), np.nan) if values is None else over(values, 1))
    return Three(steps, *found)


def three_losses(trace: Trace, *, arm: int, split: str, quantity: str) -> go.Figure:
    """The same weights on the same data, normalized in three ways."""
    settings = trace.experiment.arm_settings[arm]
    if settings.norm != "batch":
        return style.said(without(trace, "statistics to choose from"))
    if quantity == "accuracy" and DATASETS[settings.data].task == "regression":
        return style.said("A regression has no accuracy. Look at the loss.")
    told = three(trace, arm, split, quantity)
    if not len(told.steps):
        return style.said(NOTHING)
    figure, seeds = go.Figure(), len(trace.experiment.seeds)
    low, high = (three(trace, arm, split, quantity, over) for over in (np.min, np.max))
    for kind, words in KINDS.items():
        dash, symbol = LOOKS[kind]
        if seeds > 1:
            rgb = style.color(arm) if kind == "moving" else style.GRAY
            x = style.numbers(told.steps)
            style.band(figure, x, getattr(low, kind), getattr(high, kind), rgb, kind, False, 0.12)
        figure.add_scatter(
            x=style.numbers(told.steps),
            y=style.numbers(getattr(told, kind)),
            mode="lines+markers",
            legendgroup=kind,
            name=f"{split} set, {words} statistics"
            if kind != "moving"
            else f"{split} set, {words} (α = {settings.alpha:g})",
            line={"color": style.color(arm) if kind == "moving" else style.GRAY, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 7},
            hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{words}</extra>",
        )
    figure.update_xaxes(title="step t: the weights before update t")
    unit = "mean squared error" if DATASETS[settings.data].task == "regression" else "cross-entropy E (nats)"
    log = {"type": "log", "tickformat": "~g", "dtick": "D2"} if quantity == "loss" else {}
    figure.update_yaxes(title=unit if quantity == "loss" else "accuracy (share of examples)", **log)
    note = explained(told, settings, cause(trace, arm, int(told.steps[widest(told, 1)])))
    over = f" Means over {seeds} seeds; bands from the least to the greatest." if seeds > 1 else ""
    return style.finished(figure, note=note + over)


class Cause(NamedTuple):
    """Why moving averages are off the population of the weights before update t, in the layer where they are most.

    name: mean, in units of the square root of population variance + delta, or var, relative to that sum; root mean
    squares over the units of the layer. mini_batches: noise and bias together.
    """

    name: str
    layer: int
    total: float
    warm_up: float
    lag: float
    mini_batches: float


def found_before(trace: Trace, name: str, arm: int, t: int) -> np.ndarray | None:
    """The moving mean or var [seeds, L, d] that inference before update t uses; None where it is not kept."""
    alpha, start = trace.experiment.arm_settings[arm].alpha, moving.START[name]
    if t == 0:
        return np.float64(start)
    if t == trace.first and (before := lineage.parent(trace)):
        return found_before(before[0], name, before[1], t)
    rows = trace.read(f"moving_{name}", arm, start=t - 1, stop=t + 1, points=EVERYTHING)
    if t - 1 in rows.steps:
        return rows.mean[0].astype(np.float64)
    if t in rows.steps and alpha > 0:  # of a thinned run: take the last mini-batch out again
        new = trace.read(f"batch_{name}", arm, start=t, stop=t + 1, points=EVERYTHING).mean[0].astype(np.float64)
        return (rows.mean[0] - (1 - alpha) * new) / alpha
    return None


def cause(trace: Trace, arm: int, t: int) -> Cause | None:
    """The gap of the recorded averages in its parts, where it is widest; None where they are not kept, or not known
    from the beginning. The population between two scorings is taken from a straight line."""
    settings = trace.experiment.arm_settings[arm]
    steps, *population = lineage.population(trace, arm)
    new = any(
        lineage.changed(trace, arm, name) is not None for name in ("alpha", "batch_size", "sampling", "statistics")
    )
    if new:
        return None
    if t not in steps or steps[0] > 0:
        return None
    at, worst = list(steps).index(t), None
    mean, var = (q[at].astype(np.float64) for q in population)
    unit = {"mean": np.sqrt(var + settings.delta), "var": var + settings.delta}  # what the norm divides by
    for name, values, last in zip(unit, population, (mean, var), strict=True):
        found = found_before(trace, name, arm, t)
        if found is None or not np.isfinite(found).all():
            return None
        old = settings.alpha**t
        warm_up = old * (moving.START[name] - last)
        lag = moving.averaged(steps, values, t, settings.alpha) - (1 - old) * last
        parts = [found - last, warm_up, lag, found - last - warm_up - lag]
        scaled = [np.divide(q, unit[name], out=np.zeros_like(q), where=unit[name] > 0) for q in parts]
        sizes = np.array([[moving.rms(q[:, l]) for l in range(q.shape[1])] for q in scaled])
        l = int(np.nan_to_num(sizes[0]).argmax())
        if worst is None or sizes[0, l] > worst.total:
            worst = Cause(name, l + 1, *(float(size) for size in sizes[:, l]))
    return worst


def explained(told: Three, settings: Settings, found: Cause | None) -> str:
    """Why the three differ, from the numbers at hand; `found` is the cause where they are widest apart after step 0."""
    alpha, worst, later = settings.alpha, widest(told), widest(told, 1)
    t, losses = int(told.steps[later]), "{:.3g} with moving averages, {:.3g} with population statistics. "
    said = f"Widest apart at step {int(told.steps[worst])}: "
    said += losses.format(told.moving[worst], told.population[worst])
    if told.steps[worst] == 0:
        said += "Nothing has come in yet: the averages are the 0 and 1 they started at. "
        if t > 0:
            said += f"After that, at step {t}: {losses.format(told.moving[later], told.population[later])}"
    if settings.statistics == "moving":
        said += "This arm trains with its averages frozen: they stand still while the weights move. "
    elif found is not None and t > 0:
        symbol, unit = {
            "mean": ("μ̄", "√(σ²_pop + δ)"),
            "var": ("σ̄²", "(σ²_pop + δ)"),
        }[found.name]
        parts = {
            f"warm-up, as α^t = {alpha**t:.1g} of the 0 and 1 they started at is still in them": found.warm_up,
            f"lag, as the weights have moved in the 1/(1−α) = {1 / max(1 - alpha, 1e-12):.3g} steps that they are "
            "behind": found.lag,
            f"the noise and bias of mini-batches of {settings.mini_batch}": found.mini_batches,
        }
        most = max(parts, key=parts.__getitem__)
        said += (
            f"{symbol} is furthest off in layer {found.layer}, by {found.total:.2g} {unit}, "
            f"and the largest part is {most}: warm-up {found.warm_up:.2g}, "
            f"lag {found.lag:.2g}, mini-batches {found.mini_batches:.2g}. "
        )
    newest = f"{told.moving[-1]:.3g} against {told.population[-1]:.3g}; with mini-batch statistics {told.batch[-1]:.3g}"
    return f"{said}At the newest step: {newest}."


def widest(told: Three, first: int = 0) -> int:
    """The place where the losses with moving averages and with population statistics are furthest apart, among those
    from step `first` on where there are any."""
    apart = np.abs(np.nan_to_num(told.moving, nan=0, posinf=1e30) - np.nan_to_num(told.population, nan=0, posinf=1e30))
    return int(np.where(told.steps >= first, apart, -1).argmax())


def without(trace: Trace, what: str) -> str:
    """What to say where the arm that is shown has no batch norm."""
    if any(settings.norm == "batch" for settings in trace.experiment.arm_settings):
        return NO_BATCH_NORM.format(what)
    return f"No arm of this run has batch norm, so it has no {what}.<br>Train an arm with batch norm in the Lab."


SPLIT = choice("split", "Data", "Which examples are scored.", {"test": "test set", "train": "training set"})
QUANTITY = choice("quantity", "Score", "What is drawn.", {"loss": "loss", "accuracy": "accuracy"})
ABOUT = {
    "three_losses": About(
        "Three statistics, one network",
        "The same weights on the same data: what changes is only what batch norm normalizes with.",
        three_losses,
        (BATCH_ARM, SPLIT, QUANTITY),
    ),
}
