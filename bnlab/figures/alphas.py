"""Any alpha, afterwards: moving averages recomputed from the recorded batch statistics, and the losses they give."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import lineage, moving
from ..record import evenly
from . import axes, style
from .inference import SHOWN, three
from .lasting import wholly
from .looks import NOT_YET, finite_seeds, left_out, missing, newest_snapshot, not_finite
from .moving import NO_BATCH_NORM, subject
from .options import BATCH_ARM, LAYER, SEED, STEP, UNIT, Option, Plot
from .style import NOTHING

if TYPE_CHECKING:
    from ..reading import Trace


USED_UP = 1 / 4  # of the budget: rows of less than that are not thinned, whatever else a run keeps


def standing(trace: Trace, arm: int) -> str | None:
    """Why nothing is averaged in this arm, or was not from the first step on; None where it is."""
    settings = trace.experiment.arm_settings[arm]
    if settings.norm != "batch":
        return NO_BATCH_NORM.format("moving averages")
    if settings.frozen:
        return "This arm trains with its moving averages frozen: they stand still, whatever alpha is."
    if (at := lineage.changed(trace, arm, "statistics")) is not None:
        return (
            f"Up to step {at:,} this arm trained with its moving averages frozen:<br>nothing was averaged until then."
        )
    return None


def unknown(trace: Trace, arm: int, stop: int) -> str | None:
    """Why averages of another alpha of the steps before `stop` cannot be made for this arm; None where they can.

    Of a row that stands for a stride nothing can be averaged: holding it would not average the noise.
    """
    if wrong := standing(trace, arm):
        return wrong
    settings = trace.experiment.arm_settings[arm]
    if trace.step < 0:
        return NOTHING
    steps, _ = lineage.rows(trace, "batch_mean", arm, layer=1, unit=0, stop=stop)
    most = min(stop, trace.step + 1, settings.steps)
    if len(steps) == most and moving.complete(steps):
        return None
    if len(steps) and steps[0] > 0:
        return "This run is a fork, and what came before it was deleted;<br>averages need every step from the first."
    budget = trace.experiment.settings.budget_mb
    if in_full(trace) > USED_UP * budget * 1_000_000:
        do = f"The recording budget of {budget:,} MB was used up.<br>Train with a larger one, or fewer steps or units."
    else:  # they were thinned on purpose, as in a run that is shipped
        do = f"Train it again: every step is kept while the recording budget of {budget:,} MB lasts."
    return (
        f"Only {len(steps):,} of {most:,} steps of the unit statistics are kept in this run;<br>averages of another "
        f"alpha need every step.<br>{do}"
    )


def in_full(trace: Trace) -> int:
    """The bytes of all rows of a run so far, were every one kept as recorded."""
    tables = [columns for found in trace.layouts for columns in found.values()]
    width = sum(prod(shape) for columns in tables for _, shape in columns.values())
    return 4 * width * min(trace.step + 1, trace.experiment.settings.steps)


class AnyAlpha(NamedTuple):
    """One unit's moving mean or variance with another alpha, [n], plain and bias-corrected; `online` with the alpha of
    the training."""

    steps: np.ndarray
    again: np.ndarray
    corrected: np.ndarray
    online: np.ndarray
    checked: np.ndarray
    population: np.ndarray


def any_alpha(trace: Trace, name: str, arm: int, seed: int, layer: int, unit: int, alpha: float) -> AnyAlpha:
    """`name` is mean or var; `unit` counts from 0. Every step must be kept."""
    steps, new = lineage.rows(trace, f"batch_{name}", arm, layer=layer, unit=unit)
    _, online = lineage.rows(trace, f"moving_{name}", arm, layer=layer, unit=unit)
    again, corrected = (moving.moving_averages(new[:, seed], alpha, moving.START[name], how) for how in (False, True))
    checked, *population = lineage.population(trace, arm, layer, unit)
    values = population[0 if name == "mean" else 1][:, seed]
    few = evenly(len(steps), SHOWN)
    return AnyAlpha(steps[few], again[few], corrected[few], online[few, seed], checked, values)


def trained(trace: Trace, arm: int) -> str:
    """With which alpha the arm was trained, in words."""
    told, at = f"trained with α = {trace.experiment.arm_settings[arm].alpha:g}", lineage.changed(trace, arm, "alpha")
    return told if at is None else f"{told} from step {at:,} on"


def recomputed(trace: Trace, *, arm: int, seed: int, layer: int, unit: int, alpha: float) -> go.Figure:
    """Moving averages of the chosen alpha from the recorded statistics, plain and corrected; nothing is trained."""
    if wrong := unknown(trace, arm, trace.step + 1):
        return style.said(wrong)
    figure = make_subplots(1, 2, horizontal_spacing=0.13)
    color, z = style.color(arm), subject(trace, arm)
    for column, (name, symbol) in enumerate((("mean", "μ̄"), ("var", "σ̄²")), 1):
        told = any_alpha(trace, name, arm, seed, layer, unit - 1, alpha)
        for label, x, y, look in (
            (
                trained(trace, arm),
                told.steps,
                told.online,
                {"mode": "lines", "line": {"color": style.GRAY, "dash": "dot"}},
            ),
            (f"α = {alpha:g}", told.steps, told.again, {"mode": "lines", "line": {"color": color, "width": 2.2}}),
            (
                f"α = {alpha:g}, bias-corrected",
                told.steps,
                told.corrected,
                {"mode": "lines", "line": {"color": color, "dash": "dash", "width": 1.4}},
            ),
            (
                "population",
                told.checked,
                told.population,
                {"mode": "markers", "marker": {"color": style.GRAY, "symbol": "diamond", "size": 7}},
            ),
        ):
            figure.add_scatter(
                x=style.numbers(x), y=style.numbers(y), name=label, legendgroup=label, showlegend=column == 1,
                hovertemplate=f"step %{{x}}: {symbol} = %{{y:,.4g}}<extra>{label}</extra>", row=1, col=column, **look,
            )  # fmt: skip
        figure.update_xaxes(title="step", row=1, col=column)
        figure.update_yaxes(title=f"{symbol} of {z}, layer {layer}, unit {unit}", row=1, col=column)
    note = (
        "Nothing was trained for this. Bias-corrected: what is left of the start, 0 and 1, is divided out, as Adam "
        "does; the charts below have the plain average, as training has. " + stored(trace, arm)
    )
    if trace.first:
        note += f" The steps before {trace.first:,} are those of the run that this one was forked from."
    return style.finished(figure, note=note)


def stored(trace: Trace, arm: int) -> str:
    """What is kept for averages of any alpha, and what bounds it, in words."""
    s = trace.experiment.arm_settings[arm]
    rows = min(trace.step + 1, s.steps) - trace.first  # of the last update's weights there are scores alone
    size = 2 * 4 * s.depth * s.width * len(trace.experiment.seeds) * rows
    told = f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"
    return (
        "It needs every unit's mean and variance over the mini-batch at every step, 8 bytes together: "
        f"{told} for this arm, of the run's budget of {trace.experiment.settings.budget_mb:,} MB. Once that is "
        "used up, steps are thinned, and this chart says so instead."
    )


def last_snapshot(trace: Trace, arm: int) -> int | None:
    """The newest snapshot; of an arm that came to have no finite loss, at the last step at which it had one."""
    told = three(trace, arm, "test", "loss")
    fine = told.steps[told.there.any(1)] if len(told.steps) else told.steps
    over = len(fine) and (wholly(trace, arm) or fine[-1] < told.steps[-1])
    return newest_snapshot(trace, int(fine[-1]) if over else None)


def inference_needs(trace: Trace, *, arm: int, alpha: float) -> list[tuple[str, int, dict]]:
    step = last_snapshot(trace, arm)
    there = step is not None and unknown(trace, arm, step) is None
    return [("inference", step, {"alpha": alpha})] if there else []


def alpha_inference(trace: Trace, *, arm: int, alpha: float) -> go.Figure:
    """Test loss at the recorded snapshots with the moving averages of the chosen alpha."""
    step = last_snapshot(trace, arm)
    if wrong := unknown(trace, arm, step or 0):
        return style.said(wrong)
    if step is None:
        return style.said(NOT_YET)
    found = trace.look("inference", arm, step, alpha=alpha)
    if wrong := missing(found):
        return wrong
    there = finite_seeds(found)
    if not there.any():
        return not_finite(step, style.label(trace, arm), now=False)
    averaged, losses = found["step"][there][0], found["loss"][there].mean(0)
    told = three(trace, arm, "test", "loss")
    figure, few = go.Figure(), evenly(len(told.steps), SHOWN)
    for label, x, y, look in (
        ("population statistics", told.steps[few], told.population[few], {"color": style.GRAY, "dash": "dash"}),
        (
            trained(trace, arm),
            told.steps[few],
            told.moving[few],
            {"color": style.GRAY, "dash": "dot"},
        ),
        (f"α = {alpha:g}", averaged, losses, {"color": style.color(arm), "width": 2.2}),
    ):
        figure.add_scatter(
            x=style.numbers(x), y=style.numbers(y), name=label, mode="lines+markers", line=look,
            hovertemplate=f"step %{{x}}: %{{y:,.4g}}<extra>{label}</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="step t: the weights before update t")
    figure.update_yaxes(title="test loss E in inference mode", type="log")
    note = "The weights are those of the training; only the averages are recomputed."
    if step != newest_snapshot(trace):
        note += f" Drawn up to step {step:,}, the last at which {style.label(trace, arm)} has finite losses."
    return style.finished(figure, note=f"{note} {left_out(trace, {arm: there})}".strip())


def alphas_needs(trace: Trace, *, arm: int, step: int) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    there = at is not None and unknown(trace, arm, at) is None
    return [("alphas", at, {})] if there else []


def alpha_curve(trace: Trace, *, arm: int, step: int) -> go.Figure:
    """Inference loss against alpha at one step's weights, with its minimum and the population's loss."""
    if wrong := standing(trace, arm):
        return style.said(wrong)
    at = newest_snapshot(trace, step)
    found = trace.look("alphas", arm, at) if at is not None else None
    if found is None and (wrong := unknown(trace, arm, at or 0)):  # what has been looked at needs no rows any more
        return style.said(wrong)
    if at is None:
        return style.said(NOT_YET)
    if wrong := missing(found):
        return wrong
    there = finite_seeds(found)
    if not there.any():
        return not_finite(at, style.label(trace, arm))
    figure, best, alike = go.Figure(), [], []
    names = [f"{alpha:g}" for alpha in moving.ALPHAS]
    for split, dash in (("train", "dot"), ("test", "solid")):
        loss = found[f"{split}_loss"][there].mean(0)
        figure.add_scatter(
            x=names, y=style.numbers(loss), name=f"{split} set", mode="lines+markers",
            line={"color": style.color(arm), "dash": dash}, hovertemplate="α = %{x}: %{y:,.4g}<extra></extra>",
        )  # fmt: skip
        if np.isfinite(loss).any() and np.nanmax(loss) <= np.nanmin(loss) * (1 + 1e-6):
            alike.append(f"{style.amount(np.nanmin(loss))} on the {split} set")
        elif np.isfinite(loss).any():
            i = int(np.nanargmin(loss))
            best.append(f"least on the {split} set at α = {names[i]} ({style.amount(loss[i])})")
            figure.add_scatter(
                x=[names[i]], y=[float(loss[i])], mode="markers", showlegend=False, hoverinfo="skip",
                marker={"symbol": "circle-open", "size": 16, "color": style.color(arm), "line": {"width": 2}},
            )  # fmt: skip
    steps, losses, _ = trace.scores(arm, "test", "population")
    curves = [found[f"{split}_loss"][there].mean(0) for split in ("train", "test")]
    axis = axes.logarithmic(axes.decades(*curves))
    if at in steps:
        known = losses[list(steps).index(at)][there].mean()
        with np.errstate(divide="ignore"):
            where = style.free_end(np.log10(curves), np.log10(known))
        style.reference(figure, float(known), "population statistics, test set", where=where)
    figure.update_xaxes(title="α, weight of the old value (not to scale)", type="category")
    figure.update_yaxes(title="loss E in inference mode", **axis)
    if alike:
        why = "nothing has come in yet, " if at == 0 else ""
        best.append(f"{why}every α gives the same ({', '.join(alike)})")
    told = f": {'; '.join(best)}" if best else ""
    note = f"Weights of step {at:,}{told}. {left_out(trace, {arm: there})}"
    return style.finished(figure, note=note.strip())


TENTHS, HUNDREDTHS, THOUSANDTHS = np.arange(0, 0.9, 0.1), np.arange(0.9, 0.99, 0.01), np.arange(0.99, 0.9995, 0.001)
FINE = (*(round(x, 6) for x in (*TENTHS, *HUNDREDTHS, *THOUSANDTHS)), 0.9995, 0.9999, 1.0)  # finer towards 1
ALPHA = Option(
    "alpha", "number", "alpha α", "Weight of the old value in the recomputed moving averages.",
    low=0, high=1, default="0.99", marks=FINE,
)  # fmt: skip
PLOTS = {
    "recomputed": Plot(
        "Any alpha, afterwards",
        "Moving averages play no role in training. Move alpha: the averages are recomputed from recorded statistics.",
        recomputed,
        (BATCH_ARM, SEED, LAYER, UNIT, ALPHA),
    ),
    "alpha_inference": Plot(
        "Inference loss with this alpha",
        "How the network would score at each snapshot had it averaged with the chosen alpha, without bias correction.",
        alpha_inference,
        (BATCH_ARM, ALPHA),
        inference_needs,
    ),
    "alpha_curve": Plot(
        "Inference loss against alpha",
        "Small alphas are noisy, large ones late; the ring marks the least loss. Without bias correction.",
        alpha_curve,
        (BATCH_ARM, STEP),
        alphas_needs,
    ),
}
