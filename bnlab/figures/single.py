"""One example alone, and two: what batch norm does without a mini-batch, and what two examples leave of a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from ..settings import ALONE
from . import style
from .looks import NOT_YET, finite_seeds, left_out, missing, newest, newest_snapshot, not_finite, those
from .means import present
from .options import STEP, Plot, no_batch_norm

if TYPE_CHECKING:
    from ..reading import Trace


def alone(trace: Trace, *, step: int) -> go.Figure:
    """How far the outputs for single examples are from those of the same examples in a batch, in either mode."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    names = [style.title(trace, arm) for arm in range(len(trace.experiment.arms))]
    figure, top, colors = go.Figure(), 0.0, [style.color(arm) for arm in range(len(names))]
    told: dict[str, list[float]] = {"alone_in_training": [], "alone": []}
    kept = {}
    for arm in range(len(names)):
        found = trace.look("single", arm, at)
        if wrong := missing(found):
            return wrong
        kept[arm] = finite_seeds(found)
        for key, values in told.items():  # looks of older runs have not seen training mode
            there = found.get(key, np.array([np.nan]))
            values.append(float(np.nanmax(there)) if np.isfinite(there).any() else np.nan)
            top = max(top, np.nan_to_num(values[-1]))
    for key, mode, pattern in (("alone_in_training", "training mode", "/"), ("alone", "inference mode", "")):
        figure.add_bar(
            y=names, x=style.numbers(np.array(told[key])), name=mode, orientation="h", cliponaxis=False,
            marker={"color": colors, "pattern": {"shape": pattern}, "line": {"color": colors, "width": 1}},
            text=[style.amount(v, 2) for v in told[key]], textposition="outside",
            hovertemplate="%{y}: %{text}<extra>" + mode + "</extra>", legendgroup=mode, showlegend=False,
        )  # fmt: skip
        figure.add_scatter(  # the legend's sample: of a mode and no arm, so of no arm's color
            x=[None], y=[None], mode="lines", line={"width": 0}, fill="toself", fillcolor=style.GRAY,
            fillpattern={"shape": pattern, "bgcolor": style.faded(style.GRAY, 0.25)}, name=mode, legendgroup=mode,
            hoverinfo="skip",
        )  # fmt: skip
    figure.update_layout(barmode="group")
    figure.update_xaxes(title="greatest difference<br>of an output", range=[0, 1.3 * max(top, 1.0)])
    figure.update_yaxes(ticklabelstandoff=8, range=[len(names) - 0.5, -0.5])
    note = (
        f"Step {at:,}. Each of 32 test examples computed alone, against all at once. In inference mode there is only "
        "rounding between them: a single example needs no mini-batch. In training mode batch norm subtracts a lone "
        f"example from itself and answers β, whatever it is; so the lab refuses such a training: “{ALONE}”"
    )
    note = f"{note} {left_out(trace, kept)}".strip()
    return style.finished(figure, height=150 + 60 * len(names), note=note)


def two_examples(trace: Trace, *, step: int) -> go.Figure:
    """The share of the gradient that passes each batch norm, with the run's mini-batches and with two examples."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    normed = [settings for settings in trace.experiment.arm_settings if settings.norm == "batch"]
    if all(settings.frozen for settings in normed):
        return style.said("Batch norm trains with frozen averages here: it takes nothing of the gradient away.")
    figure, there = go.Figure(), {}
    for arm, settings in enumerate(trace.experiment.arm_settings):
        found = trace.look("single", arm, at)
        if wrong := missing(found):
            return wrong
        layers, name = np.arange(1, found["passing"].shape[1] + 1), style.label(trace, arm)
        if settings.norm == "batch" and not settings.frozen:
            there[arm] = finite_seeds(found)
            if not there[arm].any():
                continue
            lines = {settings.mini_batch: ("passing", "solid"), 2: ("passing_of_two", "dot")}  # one line for K = 2
            for K, (key, dash) in lines.items():
                figure.add_scatter(
                    x=layers, y=style.numbers(present(found[key])), name=f"{name}, K = {K:,}", mode="lines+markers",
                    line={"color": style.color(arm), "dash": dash},
                    marker={"symbol": style.symbol(arm) + ("-open" if dash == "dot" else "")},
                    hovertemplate=f"layer %{{x}}: %{{y:.1%}}<extra>{name}, K = {K:,}</extra>",
                )  # fmt: skip
    if not figure.data:
        return not_finite(at, those(trace, there))
    figure.update_xaxes(title="layer l (1 is next to the input)")
    figure.update_yaxes(title="share of the gradient that passes the norm", tickformat=".0%", range=[-0.03, 1.03])
    note = (
        f"Step {at:,}. Batch norm's backward pass takes two of the K dimensions of each unit's gradient away: its "
        "mean, and its component along â. Of two examples nothing is left but for δ."
    )
    return style.finished(figure, note=f"{note} {left_out(trace, there)}".strip())


PLOTS = {
    "alone": Plot(
        "One example alone",
        "What a network answers to a single example, against its answer to the same example in a batch.",
        alone,
        (STEP,),
        newest("single"),
    ),
    "two_examples": Plot(
        "Two examples",
        "What batch norm's backward pass lets through. Dotted: mini-batches of two, of which almost nothing is left.",
        two_examples,
        (STEP,),
        newest("single"),
        no_batch_norm,
    ),
}
