"""Mistakes on purpose, one outlier, two examples: what batch norm does where it is used wrongly or cannot work."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go

from ..data import DATASETS
from ..probes.broken import MISTAKES
from . import style
from .alphas import unknown
from .inference import without
from .looks import NOT_YET, missing, newest_snapshot
from .options import STEP, About, Option

if TYPE_CHECKING:
    from ..reading import Trace


def broken_needs(trace: Trace, *, step: int, **_: object) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    return [("broken", at, {})] if at is not None else []


SWAPPED, POLLUTED = (list(MISTAKES).index(name) for name in ("alpha swapped", "polluted"))


class Costs(NamedTuple):
    """One arm's test loss and accuracy with each of MISTAKES, [mistakes], mean over the seeds; NaN: not known."""

    loss: np.ndarray
    accuracy: np.ndarray


def costs(trace: Trace, arm: int, at: int, found: dict[str, np.ndarray]) -> Costs:
    loss, accuracy = (found[name].mean(0).astype(np.float64) for name in ("loss", "accuracy"))
    if unknown(trace, arm, at):
        loss[SWAPPED] = accuracy[SWAPPED] = np.nan
    return Costs(loss, accuracy)


def mistakes(trace: Trace, *, step: int, mistake: str) -> go.Figure:
    """What each mistake costs, in test loss, for every arm with batch norm; one of them told at length."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    arms = [arm for arm, settings in enumerate(trace.experiment.arm_settings) if settings.norm == "batch"]
    if not arms:
        return style.said("No arm of this run has batch norm, so nothing of this can go wrong.")
    figure, chosen, symptoms, stems = go.Figure(), int(mistake), [], []
    labels, told = zip(*MISTAKES.values(), strict=True)
    for place, arm in enumerate(arms):
        found = trace.look("broken", arm, at)
        if wrong := missing(found):
            return wrong
        cost, name, color = costs(trace, arm, at, found), style.label(trace, arm), style.color(arm)
        y = np.arange(len(labels)) + (place + 1) / (len(arms) + 1) - 0.5
        loss = np.where(np.isfinite(cost.loss), cost.loss, np.nan)
        side = np.where(loss < loss[0], "middle left", "middle right").tolist()
        text = [f"{value:.3g}" if np.isfinite(value) else "" for value in loss]
        figure.add_scatter(
            x=style.numbers(loss), y=style.numbers(y), name=name, mode="markers+text", legendgroup=name,
            marker={"color": color, "symbol": style.symbol(arm), "size": 10}, text=text, textposition=side,
            customdata=[f"{label}: {value}<br>{what}" for label, value, what in zip(labels, text, told, strict=True)],
            hovertemplate="%{customdata}<extra>" + name + "</extra>", cliponaxis=False,
            selectedpoints=None if chosen == 0 else [0, chosen], unselected={"marker": {"opacity": 0.25}},
        )  # fmt: skip
        gaps = np.full(len(labels), np.nan)
        ends = np.stack([np.full_like(loss, loss[0]), loss, gaps], 1).ravel(), np.stack([y, y, gaps], 1).ravel()
        stems.append((name, color, *ends))
        symptoms.append(symptom(trace, arm, at, cost, chosen))
    for name, color, x, y in stems:  # from what it should be to what it is
        figure.add_scatter(
            x=style.numbers(x), y=style.numbers(y), mode="lines", line={"color": color, "width": 2}, opacity=0.4,
            legendgroup=name, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    figure.update_layout(margin={"r": 64})
    figure.update_xaxes(title="test loss E; the line begins at what it should be", type="log", tickformat="~g")
    figure.update_yaxes(range=[len(labels) - 0.5, -0.5], tickvals=list(range(len(labels))), ticktext=labels)
    note = (
        f"{labels[chosen].capitalize()}. {told[chosen]} {' '.join(symptoms)}"
        if chosen
        else "Press a mistake to see its symptom in numbers."
    )
    why = unknown(trace, arms[0], at)
    if why and not chosen:
        note += f" {labels[SWAPPED].capitalize()} is not known here: {why.replace('<br>', ' ')}"
    return style.finished(
        figure, height=120 + 50 * len(MISTAKES), note=f"Weights of step {at}, computed, not told. {note}"
    )


def symptom(trace: Trace, arm: int, at: int, cost: Costs, chosen: int) -> str:
    """What a mistake does to one arm, as a sentence."""
    name, loss, accuracy = style.label(trace, arm), cost.loss, cost.accuracy
    why = unknown(trace, arm, at) if chosen == SWAPPED else None
    if why:
        return f"{name}: not known. {why.replace('<br>', ' ')}"
    right = "" if np.isnan(accuracy[0]) else f", {accuracy[chosen]:.1%} right instead of {accuracy[0]:.1%}"
    said = f"{name}: test loss {loss[chosen]:.3g} instead of {loss[0]:.3g}{right}."
    if loss[chosen] < loss[0]:
        said += (
            " It is lower because statistics of the test set have leaked in: this is no longer a test."
            if chosen == POLLUTED
            else " It is lower here; the mistake happens to suit these weights, and need not at another step."
        )
    return said


MISTAKE = Option(
    "mistake", "choice", "Mistake", "What was done wrong; the rest stays faint.",
    {str(i): mistake.label for i, mistake in enumerate(MISTAKES.values())}, buttons=True,
)  # fmt: skip


def outlier(trace: Trace, *, step: int) -> go.Figure:
    """How much one outlier changes the prediction of another example of its mini-batch, in training mode."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    labels, values, colors, regression = [], [], [], False
    for arm, settings in enumerate(trace.experiment.arm_settings):
        if settings.mini_batch == 1:
            continue
        regression |= DATASETS[settings.data].task == "regression"
        found = trace.look("broken", arm, at)
        if wrong := missing(found):
            return wrong
        labels.append(style.label(trace, arm))
        values.append(float(found["outlier"].max()))
        colors.append(style.color(arm))
    if not labels:
        return style.said("K = 1: a mini-batch holds no other example that an outlier could reach.")
    figure = go.Figure(
        go.Bar(
            y=labels,
            x=values,
            orientation="h",
            marker={"color": colors},
            text=[f"{v:.3g}" for v in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        )
    )
    title = f"greatest change of a {'prediction (in deviations of the target)' if regression else 'probability'}"
    figure.update_xaxes(title=title, rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    note = (
        f"Step {at}. The inputs of one example grow a hundredfold; these are the others of its mini-batch. "
        "Only batch norm lets it through."
    )
    return style.finished(figure, height=140 + 36 * len(labels), note=note)


def single_needs(trace: Trace, *, step: int) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    return [("single", at, {})] if at is not None else []


def two_examples(trace: Trace, *, step: int) -> go.Figure:
    """The share of the gradient that passes each batch norm, with the run's mini-batches and with two examples."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    normed = [settings for settings in trace.experiment.arm_settings if settings.norm == "batch"]
    if not normed:
        return style.said(without(trace, "gradient that its norm could take away"))
    if all(settings.statistics == "moving" for settings in normed):
        return style.said("Batch norm trains with frozen averages here: it takes nothing of the gradient away.")
    figure, alone = go.Figure(), []
    for arm, settings in enumerate(trace.experiment.arm_settings):
        found = trace.look("single", arm, at)
        if wrong := missing(found):
            return wrong
        layers, name = np.arange(1, found["passing"].shape[1] + 1), style.label(trace, arm)
        if np.isfinite(found["alone"]).any():  # a network that has diverged has no outputs to compare
            alone.append(f"{np.nanmax(found['alone']):.1g} ({name})")
        if settings.norm == "batch" and settings.statistics == "batch":
            lines = {settings.mini_batch: ("passing", "solid"), 2: ("passing_of_two", "dot")}  # one line for K = 2
            for K, (key, dash) in lines.items():
                figure.add_scatter(
                    x=layers, y=style.numbers(found[key].mean(0)), name=f"{name}, K = {K}", mode="lines+markers",
                    line={"color": style.color(arm), "dash": dash},
                    marker={"symbol": style.symbol(arm) + ("-open" if dash == "dot" else "")},
                    hovertemplate=f"layer %{{x}}: %{{y:.3g}}<extra>{name}, K = {K}</extra>",
                )  # fmt: skip
    figure.update_xaxes(title="layer l (1 is next to the input)")
    figure.update_yaxes(title="share of the gradient that passes the norm", range=[-0.03, 1.03])
    note = (
        f"Step {at}. Batch norm's backward pass takes two of the K dimensions of each unit's gradient away: its mean, "
        "and its component along â. Of two examples nothing is left but for δ. In inference mode single examples work: "
        f"alone and in a batch, outputs differ by at most {', '.join(alone) or 'nothing: all have diverged'}."
    )
    return style.finished(figure, note=note)


ABOUT = {
    "mistakes": About(
        "Broken on purpose",
        "The mistakes everyone makes, and what each costs on the test set.",
        mistakes,
        (MISTAKE, STEP),
        broken_needs,
    ),
    "outlier": About(
        "One outlier, another's prediction",
        "In training mode batch norm couples the examples of a mini-batch; layer norm and none do not.",
        outlier,
        (STEP,),
        broken_needs,
    ),
    "two_examples": About(
        "Two examples, or one",
        "What batch norm's backward pass lets through. Dotted: mini-batches of two, of which almost nothing is left.",
        two_examples,
        (STEP,),
        single_needs,
    ),
}
