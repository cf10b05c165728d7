"""Mistakes on purpose, one outlier, two examples: what batch norm does where it is used wrongly or cannot work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from . import style
from .inference import NOT_YET, missing, newest_snapshot
from .options import STEP, About, Option

if TYPE_CHECKING:
    from ..reading import Trace


def broken_needs(trace: Trace, *, step: int, **_: object) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    return [("broken", at, {})] if at is not None else []


MISTAKES = (  # as probes/broken.py returns them
    ("as it should be", "Moving averages, the test set as it is."),
    ("scored in train mode", "Mini-batch statistics, the test set in the order of its labels."),
    (
        "averages polluted",
        "Training mode has blended the sorted test set into the averages; then scored rightly.",
    ),
    ("never updated", "The moving averages still are 0 and 1."),
    ("alpha and momentum swapped", "The old value weighs 1 − α."),
    ("variance unbiased", "K/(K−1) times the variance that training divides by."),
    ("test inputs shifted", "Every input moved by one standard deviation; moving averages."),
    ("shifted, train mode", "The same, normalized by its own mini-batches: they take the shift out again."),
)


def mistakes(trace: Trace, *, step: int, mistake: str) -> go.Figure:
    """What each mistake costs, in test loss, for every arm with batch norm; one of them told at length."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    figure, chosen, symptoms = go.Figure(), int(mistake), []
    for arm, settings in enumerate(trace.experiment.arm_settings):
        found = trace.look("broken", arm, at)
        if wrong := missing(found):
            return wrong
        if settings.norm != "batch":
            continue
        loss, accuracy, name = found["loss"].mean(0), found["accuracy"].mean(0), style.label(trace, arm)
        figure.add_bar(
            y=[name for name, _ in MISTAKES], x=style.numbers(loss), name=name, orientation="h",
            marker={"color": style.color(arm), "pattern": {"shape": ("", "/", "x", ".", "-", "+")[arm]}},
            opacity=1, customdata=[said for _, said in MISTAKES], cliponaxis=False,
            hovertemplate="%{y}: %{x:.4g}<br>%{customdata}<extra></extra>",
            text=[f"{value:.3g}" for value in loss], textposition="outside",
            selectedpoints=None if chosen == 0 else [0, chosen], unselected={"marker": {"opacity": 0.25}},
        )  # fmt: skip
        right = "" if np.isnan(accuracy[0]) else f", {accuracy[chosen]:.1%} right instead of {accuracy[0]:.1%}"
        symptoms.append(f"{name}: test loss {loss[chosen]:.3g} instead of {loss[0]:.3g}{right}.")
    if not figure.data:
        return style.said("No arm has batch norm, so nothing of this can go wrong.")
    figure.update_layout(margin={"r": 48})
    figure.update_xaxes(title="test loss E", type="log", exponentformat="power")
    figure.update_yaxes(autorange="reversed")
    name, what = MISTAKES[chosen]
    note = (
        f"{name.capitalize()}. {what} {' '.join(symptoms)}"
        if chosen
        else "Press a mistake to see its symptom in numbers."
    )
    return style.finished(
        figure, height=120 + 50 * len(MISTAKES), note=f"Weights of step {at}, computed, not told. {note}"
    )


MISTAKE = Option(
    "mistake", "choice", "Mistake", "What was done wrong; the rest stays faint.",
    {str(i): name for i, (name, _) in enumerate(MISTAKES)}, buttons=True,
)  # fmt: skip


def outlier(trace: Trace, *, step: int) -> go.Figure:
    """How much one outlier changes the prediction of another example of its mini-batch, in training mode."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    labels, values, colors = [], [], []
    for arm in range(len(trace.experiment.arms)):
        found = trace.look("broken", arm, at)
        if wrong := missing(found):
            return wrong
        labels.append(style.label(trace, arm))
        values.append(float(found["outlier"].max()))
        colors.append(style.color(arm))
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
    figure.update_xaxes(title="greatest change of a probability", rangemode="tozero")
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
    figure, alone = go.Figure(), []
    for arm, settings in enumerate(trace.experiment.arm_settings):
        found = trace.look("single", arm, at)
        if wrong := missing(found):
            return wrong
        layers, name = np.arange(1, found["passing"].shape[1] + 1), style.label(trace, arm)
        alone.append(f"{name} {found['alone'].max():.1g}")
        for key, K, dash in (("passing", settings.mini_batch, "solid"), ("passing_of_two", 2, "dot")):
            if settings.norm == "batch":
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
        f"alone and in a batch, outputs differ by at most {', '.join(alone)}."
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
