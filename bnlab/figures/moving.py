"""Moving averages: what batch norm will use at inference, against the mini-batch and against the population."""

from __future__ import annotations

from math import ceil, log, nan, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..moving import WITHOUT_WARNING, noise_left
from ..problems import enumeration
from ..record import evenly
from . import axes, style
from .options import AXIS, BATCH_ARM, LAYER, SEED, STEP, UNIT, Plot, choice, no_steps
from .style import UNSCORED, nothing

if TYPE_CHECKING:
    from ..reading import Trace

SHOWN = 360  # points of a line
CHECKS = 30  # population values drawn; more would hide the lines


class Line(NamedTuple):
    """One statistic of one unit over time: [n] each; at some steps, [m], the population, and how far from it the
    average was that inference used with the same weights: |moving - population|."""

    steps: np.ndarray
    batch: np.ndarray
    moving: np.ndarray
    checked: np.ndarray
    population: np.ndarray
    gap: np.ndarray


class Moving(NamedTuple):
    """Mean and variance of one unit over time, and what alpha means for them.

    noise: standard deviation of the moving mean of independent mini-batches with the last population variance; 0 where
    averages are frozen or mini-batches all alike.
    """

    mean: Line
    var: Line
    alpha: float
    noise: float


@WITHOUT_WARNING
def moving(trace: Trace, arm: int, seed: int, layer: int, unit: int) -> Moving:
    """One unit of one network over time. `seed` is its place in the seeds, `layer` counts from 1, `unit` from 0."""
    settings = trace.experiment.arm_settings[arm]
    checked, *found = trace.inference(arm, layer=layer, unit=unit)
    last = trace.diverged.get((arm, trace.experiment.seeds[seed]), (np.inf,))[0]
    some = np.flatnonzero(checked <= last)  # what a network is after it diverged says nothing
    some = some[evenly(len(some), CHECKS)]
    lines = []
    for name, whole, average in zip(("mean", "var"), found[:2], found[2:], strict=True):
        batch, averages = (
            trace.read(f"{kind}_{name}", arm, layer=layer, unit=unit, points=SHOWN) for kind in ("batch", "moving")
        )
        few = evenly(len(batch.steps), SHOWN)
        curves = batch.steps[few], batch.mean[few, seed], averages.mean[few, seed]
        whole, average = whole[some, seed], average[some, seed]
        lines.append(Line(*curves, checked[some], whole, np.abs(average - whole)))
    spread = float(lines[1].population[-1]) if len(some) else nan
    alike = settings.sampling == "epochs" and settings.mini_batch == settings.n_train
    noisy = settings.statistics == "batch" and not alike
    noise = noise_left(settings.alpha) * sqrt(spread / settings.mini_batch) if noisy else 0.0
    return Moving(*lines, settings.alpha, noise)


class Overview(NamedTuple):
    """All units of a layer at one step: moving average against population value, [d] each.

    off: |moving mean - population mean| in population standard deviations, [d].
    """

    step: int
    moving_mean: np.ndarray
    moving_var: np.ndarray
    population_mean: np.ndarray
    population_var: np.ndarray
    off: np.ndarray


def overview(trace: Trace, arm: int, seed: int, layer: int, step: int) -> Overview | None:
    """The units of a layer at the population step nearest to `step`; None where none is scored yet."""
    steps, *found = trace.inference(arm, layer=layer, near=step)
    if not len(steps):
        return None
    mean, var, moving_mean, moving_var = (values[0, seed] for values in found)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(moving_mean - mean) / np.sqrt(var)
    return Overview(int(steps[0]), moving_mean, moving_var, mean, var, off)


def rows_kept(steps: np.ndarray) -> str:
    """What to add where not every step of the unit statistics is drawn; steps [n]."""
    most = int(np.diff(steps).max()) if len(steps) > 1 else 1
    return f" The units' statistics are drawn at steps up to {most:,} apart." if most > 1 else ""


NO_BATCH_NORM = "This arm has no batch norm, so it has no {}. Choose or train an arm with batch norm."
SYMBOLS = {"mean": ("μ", "μ̄", "μ<sub>pop</sub>"), "var": ("σ²", "σ̄²", "σ²<sub>pop</sub>")}


def moving_averages(trace: Trace, *, arm: int, seed: int, layer: int, unit: int, scale: str) -> go.Figure:
    """Batch statistic, moving average and population value of one unit over time, and how far apart they are."""
    if trace.experiment.arm_settings[arm].norm != "batch":
        return style.said(NO_BATCH_NORM.format("moving averages"))
    if nothing(trace):
        return style.said(nothing(trace))
    told, color, z = moving(trace, arm, seed, layer, unit - 1), style.color(arm), subject(trace, arm)
    looks = looks_of(color, style.dash(arm), style.mode(told.mean.moving))
    figure = make_subplots(2, 2, shared_xaxes=True, vertical_spacing=0.05, horizontal_spacing=0.13, row_heights=[3, 2])
    unseen = []
    for column, name in enumerate(SYMBOLS, 1):
        one, (now, mean, whole) = getattr(told, name), SYMBOLS[name]
        with np.errstate(invalid="ignore"):  # both are infinite where it diverged
            apart = one.moving - one.batch
        for row, label, symbol, x, y in (
            (1, "mini-batch", now, one.steps, one.batch),
            (1, "moving average", mean, one.steps, one.moving),
            (1, "population", whole, one.checked, one.population),
            (2, "moving − mini-batch", f"|{mean} − {now}|", one.steps, np.abs(apart)),
            (2, "moving − population", f"|{mean} − {whole}|", one.checked, one.gap),
        ):
            figure.add_scatter(
                x=style.numbers(x), y=style.numbers(y), name=label, legendgroup=label, **looks[label],
                showlegend=column == 1 and label != "mini-batch", row=row, col=column,
                hovertemplate=f"step %{{x}}: {symbol} = %{{y:,.4g}}<extra>{label}</extra>",
            )  # fmt: skip
        kind = axes.logarithmic(axes.decades(one.batch, one.moving, one.population)) if scale == "log" else {}
        figure.update_yaxes(title=f"{now} of {z}, unit {unit}", row=1, col=column, **(kind if name == "var" else {}))
        if name == "var" and kind:
            both = {"mini-batch": one.batch, "population": one.population}
            unseen += [f"{what} {now}" for what, values in both.items() if hidden(values)]
        gaps = axes.positive(np.abs(apart), one.gap)
        figure.update_yaxes(title=f"gap of {mean}", row=2, col=column, **gaps)
        if gaps["type"] == "log":
            both = {"mini-batch": apart, "population": one.gap}
            unseen += [f"moving − {what} of {mean}" for what, gap in both.items() if hidden(gap)]
        figure.update_xaxes(title="step", row=2, col=column)
    figure.add_scatter(  # a dot as small as those drawn could not be seen in the legend
        x=[None], y=[None], mode="markers", marker={"color": color, "size": 7},
        name="mini-batch", legendgroup="mini-batch", legendrank=1,
    )  # fmt: skip
    if np.isfinite(told.noise) and told.noise > 0 and len(told.mean.steps):
        figure.add_trace(noise_line(told), row=2, col=1)
    frozen = trace.experiment.arm_settings[arm].frozen
    note = (FROZEN if frozen else memory(told.alpha)) + rows_kept(told.mean.steps)
    if unseen:
        note += f" Not seen, as it is 0, which has no place on a logarithmic axis: {enumeration(unseen)}."
    return style.finished(figure, height=520, note=note + end(trace, arm, seed))


def looks_of(color: str, dash: str, mode: str) -> dict[str, dict[str, object]]:
    """How each curve of an arm with this color and dash is drawn; `mode` of those with a value at every step."""
    marks = {"mode": "markers", "marker": {"color": style.GRAY, "size": 7, "symbol": "diamond-open"}}
    return {
        "mini-batch": {"mode": "markers", "marker": {"color": color, "size": 3}, "opacity": 0.7},  # read through
        "moving average": {"mode": mode, "line": {"color": color, "width": 3, "dash": dash}},
        "population": marks,
        "moving − mini-batch": {"mode": mode, "line": {"color": color, "width": 1}, "opacity": 0.8},
        "moving − population": marks | {"mode": "lines+markers", "line": {"color": style.GRAY, "width": 1.5}},
    }


def noise_line(told: Moving) -> go.Scatter:
    """The noise from the first step to the last; add_hline puts its words at the wrong height of a logarithmic axis."""
    return go.Scatter(
        x=told.mean.steps[[0, -1]].tolist(),
        y=[told.noise] * 2,
        mode="lines",
        line={"color": style.GRAY, "width": 1.2, "dash": "dot"},
        name="noise of independent mini-batches",
        hovertemplate="√((1−α)/(1+α) σ²<sub>pop</sub>/K) = %{y:,.3g}<extra></extra>",
    )


def hidden(values: np.ndarray) -> bool:
    """Whether all that there is of a curve is 0."""
    return bool((values == 0).any()) and not np.nan_to_num(values).any()


def end(trace: Trace, arm: int, seed: int) -> str:
    """What to add where the network shown has diverged; `seed` is its place in the seeds."""
    where = trace.diverged.get((arm, trace.experiment.seeds[seed]))
    return f" This network diverged at step {where[0]:,}; nothing is drawn after it." if where else ""


def subject(trace: Trace, arm: int) -> str:
    """What the arm's batch norm normalizes: a, or z after the activation."""
    return {"before": "a", "after": "z"}[trace.experiment.arm_settings[arm].placement]


FROZEN = "This arm trains with its moving averages frozen: they stand still, and no mini-batch comes in."


def memory(alpha: float) -> str:
    """What alpha means, in words."""
    if alpha >= 1:
        return "α = 1: the old value has all the weight; the averages stay at their start, 0 and 1."
    forgotten = ceil(log(0.1) / log(alpha)) if alpha > 0 else 1
    steps = "step" if forgotten == 1 else "steps"
    told = f"α = {alpha:g}: the old value has weight {alpha:g}; "
    return told + f"the weight of the start (0 and 1) falls to a tenth in {forgotten:,} {steps}."


def units_overview(trace: Trace, *, arm: int, seed: int, layer: int, step: int) -> go.Figure:
    """Every unit of a layer as a dot: population value across, moving average up; on the diagonal they agree."""
    if trace.experiment.arm_settings[arm].norm != "batch":
        return style.said(NO_BATCH_NORM.format("moving averages"))
    told = None if nothing(trace) else overview(trace, arm, seed, layer, step)
    if told is None:
        return style.said(nothing(trace) or UNSCORED)
    if not np.isfinite(told.moving_mean).any():
        return style.said(f"No finite moving average is kept of step {told.step:,}.{end(trace, arm, seed)}")
    figure = make_subplots(1, 2, horizontal_spacing=0.13)
    units = np.arange(1, len(told.off) + 1, dtype=np.int16)
    pairs = (told.population_mean, told.moving_mean), (told.population_var, told.moving_var)
    for column, ((across, up), (_, mean, whole)) in enumerate(zip(pairs, SYMBOLS.values(), strict=True), 1):
        there = np.concatenate([across, up])
        there = there[np.isfinite(there) & ((there > 0) | (column == 1))]
        ends = [there.min(), there.max()] if there.size else [0, 1]
        figure.add_scatter(
            x=ends,
            y=ends,
            mode="lines",
            line={"color": style.GRAY, "width": 1, "dash": "dot"},
            name="equal",
            showlegend=False,
            hoverinfo="skip",
            row=1,
            col=column,
        )
        figure.add_scatter(
            x=style.numbers(across),
            y=style.numbers(up),
            customdata=units,
            mode="markers",
            name=f"units of layer {layer}",
            showlegend=False,
            marker={"color": style.color(arm), "size": 7, "opacity": 0.75},
            hovertemplate=f"unit %{{customdata}}: {mean} = %{{y:,.4g}}, {whole} = %{{x:,.4g}}<extra></extra>",
            row=1,
            col=column,
        )
        kind = {"type": "linear"} if column == 1 else axes.positive(across, up)
        figure.update_xaxes(title=f"{whole} of {subject(trace, arm)}", **kind, row=1, col=column)
        figure.update_yaxes(title=mean, **kind, row=1, col=column)
    off = told.off[np.isfinite(told.off)]
    note = f"Step {told.step:,}, layer {layer}: the dotted line is where both agree."
    if off.size:
        note += f" The median unit's moving mean is {np.median(off):.2g} population standard deviations off."
    return style.finished(figure, height=420, note=note + end(trace, arm, seed))


SCALE = choice(
    "scale",
    "Vertical axis",
    "How the variance is drawn; a mean may be negative and stays linear.",
    AXIS,
)._replace(default="log")  # it begins at 1, often far above what it is to follow
PLOTS = {
    "moving_averages": Plot(
        "Moving averages",
        "One unit's mean and variance: of each mini-batch, their moving averages, and over the whole training set. "
        "Inference uses the moving averages; the lower row shows how far they are from the population's values.",
        moving_averages,
        (BATCH_ARM, SEED, LAYER, UNIT, SCALE),
        lacks=no_steps,
    ),
    "units_overview": Plot(
        "All units of a layer",
        "Each dot is a unit: its population value across, its moving average up. On the dotted line both agree.",
        units_overview,
        (BATCH_ARM, SEED, LAYER, STEP),
        lacks=no_steps,
    ),
}
