"""The inference phase: three kinds of statistics, any alpha afterwards, and what goes wrong without a mini-batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import moving
from ..data import DATASETS
from . import style
from .gradients import NOTHING
from .looks import NOT_YET, missing, newest_snapshot
from .moving import NO_BATCH_NORM, evenly, subject
from .options import BATCH_ARM, LAYER, SEED, STEP, UNIT, About, Option, choice

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings

KINDS = {"batch": "mini-batch", "moving": "moving averages", "population": "population"}
SHOWN = 400  # points of a line
SCORINGS = 120  # of the scores over time
FORK = "This run is a fork; what came before is recorded in its parent. Look there."
LOOKS = {"batch": ("dot", "circle"), "moving": ("solid", "square"), "population": ("dash", "diamond")}


class Three(NamedTuple):
    """One arm's score over a split with each kind of statistics: steps [n], values [n], mean over the seeds."""

    steps: np.ndarray
    batch: np.ndarray
    moving: np.ndarray
    population: np.ndarray


def three(trace: Trace, arm: int, split: str, quantity: str) -> Three:
    steps, found = np.array([], int), []
    for kind in KINDS:
        steps, loss, accuracy = trace.scores(arm, split, kind, SCORINGS)
        values = loss if quantity == "loss" else accuracy
        found.append(np.full(len(steps), np.nan) if values is None else values.mean(1))
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
    figure = go.Figure()
    for kind, words in KINDS.items():
        dash, symbol = LOOKS[kind]
        figure.add_scatter(
            x=style.numbers(told.steps),
            y=style.numbers(getattr(told, kind)),
            mode="lines+markers",
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
    return style.finished(figure, note=explained(told, settings, cause(trace, arm, int(told.steps[widest(told, 1)]))))


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
    rows = trace.read(f"moving_{name}", arm, start=t - 1, stop=t + 1, points=2**40)
    if t - 1 in rows.steps:
        return rows.mean[0].astype(np.float64)
    if t in rows.steps and alpha > 0:  # of a thinned run: take the last mini-batch out again
        new = trace.read(f"batch_{name}", arm, start=t, stop=t + 1, points=2**40).mean[0].astype(np.float64)
        return (rows.mean[0] - (1 - alpha) * new) / alpha
    return None


def cause(trace: Trace, arm: int, t: int) -> Cause | None:
    """The gap of the recorded averages in its parts, where it is widest; None where they are not kept, or not known
    from the beginning. The population between two scorings is taken from a straight line."""
    settings = trace.experiment.arm_settings[arm]
    steps, *population = trace.population(arm)
    if trace.first or t not in steps:
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


def unknown(trace: Trace, arm: int, stop: int) -> str | None:
    """Why averages of another alpha of the steps before `stop` cannot be made for this arm; None where they can.

    Of a row that stands for a stride nothing can be averaged: holding it would not average the noise.
    """
    settings = trace.experiment.arm_settings[arm]
    if settings.norm != "batch":
        return without(trace, "moving averages")
    if settings.statistics == "moving":
        return "This arm trains with its moving averages frozen: they stand still, whatever alpha is."
    if trace.first:
        return FORK
    if trace.step < 0:
        return NOTHING
    steps = trace.read("batch_mean", arm, layer=1, unit=0, stop=stop, points=2**40).steps
    most = min(stop, trace.step + 1, settings.steps)
    if len(steps) == most and moving.complete(steps):
        return None
    return (
        f"Only {len(steps)} of {most} steps of the unit statistics are kept in this run;<br>averages of another alpha "
        "need every step.<br>Train it with a larger recording budget, or for fewer steps."
    )


def without(trace: Trace, what: str) -> str:
    """What to say where the arm that is shown has no batch norm."""
    if any(settings.norm == "batch" for settings in trace.experiment.arm_settings):
        return NO_BATCH_NORM.format(what)
    return f"No arm of this run has batch norm, so it has no {what}.<br>Train an arm with batch norm in the Lab."


class AnyAlpha(NamedTuple):
    """One unit's moving mean or variance with another alpha, [n]; `online` with the alpha of the training."""

    steps: np.ndarray
    again: np.ndarray
    online: np.ndarray
    checked: np.ndarray
    population: np.ndarray


def any_alpha(trace: Trace, name: str, arm: int, seed: int, layer: int, unit: int, alpha: float, corrected: bool):
    """`name` is mean or var; `unit` counts from 0. Every step must be kept."""
    new = trace.read(f"batch_{name}", arm, layer=layer, unit=unit, points=2**40)
    online = trace.read(f"moving_{name}", arm, layer=layer, unit=unit, points=2**40)
    again = moving.moving_averages(new.mean[:, seed], alpha, moving.START[name], corrected)
    checked, *population = trace.population(arm, layer=layer, unit=unit)
    values = population[0 if name == "mean" else 1][:, seed]
    few = evenly(len(new.steps), SHOWN)
    return AnyAlpha(new.steps[few], again[few], online.mean[few, seed], checked, values)


def recomputed(trace: Trace, *, arm: int, seed: int, layer: int, unit: int, alpha: float, start: str) -> go.Figure:
    """Moving averages of the chosen alpha from the recorded batch statistics; nothing is trained."""
    settings = trace.experiment.arm_settings[arm]
    if wrong := unknown(trace, arm, trace.step + 1):
        return style.said(wrong)
    figure = make_subplots(1, 2, horizontal_spacing=0.13)
    color, z = style.color(arm), subject(trace, arm)
    for column, (name, symbol) in enumerate((("mean", "μ̄"), ("var", "σ̄²")), 1):
        told = any_alpha(trace, name, arm, seed, layer, unit - 1, alpha, start == "corrected")
        for label, x, y, look in (
            (
                f"trained with α = {settings.alpha:g}",
                told.steps,
                told.online,
                {"mode": "lines", "line": {"color": style.GRAY, "dash": "dot"}},
            ),
            (f"α = {alpha:g}", told.steps, told.again, {"mode": "lines", "line": {"color": color, "width": 2.2}}),
            (
                "population",
                told.checked,
                told.population,
                {"mode": "markers", "marker": {"color": style.GRAY, "symbol": "diamond", "size": 7}},
            ),
        ):
            figure.add_scatter(
                x=style.numbers(x), y=style.numbers(y), name=label, legendgroup=label, showlegend=column == 1,
                hovertemplate=f"step %{{x}}: {symbol} = %{{y:.4g}}<extra>{label}</extra>", row=1, col=column, **look,
            )  # fmt: skip
        figure.update_xaxes(title="step", row=1, col=column)
        figure.update_yaxes(title=f"{symbol} of {z}, layer {layer}, unit {unit}", row=1, col=column)
    note = "Nothing was trained for this. Every step's batch statistics are kept, so this is exact."
    return style.finished(figure, note=note)


def inference_needs(trace: Trace, *, arm: int, alpha: float) -> list[tuple[str, int, dict]]:
    step = newest_snapshot(trace)
    there = step is not None and unknown(trace, arm, step) is None
    return [("inference", step, {"alpha": alpha})] if there else []


def alpha_inference(trace: Trace, *, arm: int, alpha: float) -> go.Figure:
    """Test loss at the recorded snapshots with the moving averages of the chosen alpha."""
    settings = trace.experiment.arm_settings[arm]
    step = newest_snapshot(trace)
    if wrong := unknown(trace, arm, step or 0):
        return style.said(wrong)
    if step is None:
        return style.said(NOT_YET)
    found = trace.look("inference", arm, step, alpha=alpha)
    if wrong := missing(found):
        return wrong
    told = three(trace, arm, "test", "loss")
    figure, few = go.Figure(), evenly(len(told.steps), SHOWN)
    for label, x, y, look in (
        ("population statistics", told.steps[few], told.population[few], {"color": style.GRAY, "dash": "dash"}),
        (
            f"trained with α = {settings.alpha:g}",
            told.steps[few],
            told.moving[few],
            {"color": style.GRAY, "dash": "dot"},
        ),
        (f"α = {alpha:g}", found["step"][0], found["loss"].mean(0), {"color": style.color(arm), "width": 2.2}),
    ):
        figure.add_scatter(
            x=style.numbers(x), y=style.numbers(y), name=label, mode="lines+markers", line=look,
            hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{label}</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="step t: the weights before update t")
    figure.update_yaxes(title="test loss E in inference mode", type="log", tickformat="~g", dtick="D2")
    return style.finished(figure, note="The weights are those of the training; only the averages are made anew.")


def alphas_needs(trace: Trace, *, arm: int, step: int) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    there = at is not None and unknown(trace, arm, at) is None
    return [("alphas", at, {})] if there else []


def alpha_curve(trace: Trace, *, arm: int, step: int) -> go.Figure:
    """Inference loss against alpha at one step's weights, with its minimum and the population's loss."""
    at = newest_snapshot(trace, step)
    if wrong := unknown(trace, arm, at or 0):
        return style.said(wrong)
    if at is None:
        return style.said(NOT_YET)
    found = trace.look("alphas", arm, at)
    if wrong := missing(found):
        return wrong
    figure, best = go.Figure(), []
    names = [f"{alpha:g}" for alpha in moving.ALPHAS]
    for split, dash in (("train", "dot"), ("test", "solid")):
        loss = found[f"{split}_loss"].mean(0)
        figure.add_scatter(
            x=names, y=style.numbers(loss), name=f"{split} set", mode="lines+markers",
            line={"color": style.color(arm), "dash": dash}, hovertemplate="α = %{x}: %{y:.4g}<extra></extra>",
        )  # fmt: skip
        if np.isfinite(loss).any():
            i = int(np.nanargmin(loss))
            best.append(f"least on the {split} set at α = {names[i]} ({loss[i]:.3g})")
            figure.add_scatter(
                x=[names[i]], y=[float(loss[i])], mode="markers", showlegend=False, hoverinfo="skip",
                marker={"symbol": "circle-open", "size": 16, "color": style.color(arm), "line": {"width": 2}},
            )  # fmt: skip
    steps, losses, _ = trace.scores(arm, "test", "population")
    if at in steps:
        style.reference(figure, float(losses[list(steps).index(at)].mean()), "population statistics, test set")
    figure.update_xaxes(title="α, weight of the old value (not to scale)", type="category")
    figure.update_yaxes(title="loss E in inference mode")
    return style.finished(figure, note=f"Weights of step {at}: {'; '.join(best)}.")


SPLIT = choice("split", "Data", "Which examples are scored.", {"test": "test set", "train": "training set"})
QUANTITY = choice("quantity", "Score", "What is drawn.", {"loss": "loss", "accuracy": "accuracy"})
ALPHA = Option(
    "alpha",
    "number",
    "alpha α",
    "Weight of the old value in the moving averages made anew.",
    low=0,
    high=1,
    default="0.99",
)
FINE = tuple(
    round(x, 6) for x in (*np.arange(0, 0.9, 0.1), *np.arange(0.9, 0.99, 0.01), *np.arange(0.99, 0.9995, 0.001))
)
ALPHA = ALPHA._replace(marks=(*FINE, 0.9995, 0.9999, 1.0))
START = choice(
    "start",
    "Start",
    "Plain: the averages start at 0 and 1. Corrected: what is left of the start is divided out, as Adam does.",
    {"plain": "plain", "corrected": "bias-corrected"},
)
ABOUT = {
    "three_losses": About(
        "Three statistics, one network",
        "The same weights on the same data: what changes is only what batch norm normalizes with.",
        three_losses,
        (BATCH_ARM, SPLIT, QUANTITY),
    ),
    "recomputed": About(
        "Any alpha, afterwards",
        "Moving averages play no role in training. Move alpha: the averages are made anew from recorded statistics.",
        recomputed,
        (BATCH_ARM, SEED, LAYER, UNIT, ALPHA, START),
    ),
    "alpha_inference": About(
        "Inference loss with this alpha",
        "How the network would score at each snapshot had it averaged with the chosen alpha.",
        alpha_inference,
        (BATCH_ARM, ALPHA),
        inference_needs,
    ),
    "alpha_curve": About(
        "Inference loss against alpha",
        "Small alphas are noisy, large ones late; the ring marks the least loss.",
        alpha_curve,
        (BATCH_ARM, STEP),
        alphas_needs,
    ),
}
