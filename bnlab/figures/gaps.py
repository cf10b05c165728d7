"""Why moving averages are off the population, and what the practitioner's shortcut to the population costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import moving
from . import style
from .inference import FORK, NOT_YET, START, missing, newest_snapshot
from .moving import NO_BATCH_NORM
from .options import BATCH_ARM, LAYER, STEP, About

if TYPE_CHECKING:
    from ..reading import Trace


class Parts(NamedTuple):
    """For each of ALPHAS: root mean square over the units of a layer of the gap and its parts, in population standard
    deviations of the unit (mean) or relative (var), [alphas] each; `law`: the noise of independent mini-batches."""

    total: np.ndarray
    warm_up: np.ndarray
    lag: np.ndarray
    noise: np.ndarray
    law: np.ndarray


def gap_parts(trace: Trace, name: str, arm: int, layer: int, step: int, corrected: bool) -> Parts | None:
    """The gap at `step`; None before the second look at the population."""
    steps, mean, var = trace.population(arm, layer=layer)
    if len(steps) < 2:
        return None
    n = min(step, int(steps[-1]))
    new = trace.read(f"batch_{name}", arm, layer=layer, stop=n, points=2**40)
    if len(new.steps) < 2:
        return None
    whole = moving.between(steps, (mean, var)[name == "var"], int(new.steps[-1]) + 1)[new.steps]
    spread = np.sqrt(var[-1]) if name == "mean" else var[-1]
    found = []
    for alpha in moving.ALPHAS:
        parts = moving.gap(new.mean, whole, alpha, moving.START[name], corrected, new.steps)
        found.append([moving.rms(part / spread) for part in parts])
    settings = trace.experiment.arm_settings[arm]
    law = [float(moving.noise_of_independent(alpha, 1.0, settings.mini_batch, n)) for alpha in moving.ALPHAS]
    if name == "var":  # of normal values: the variance of a variance is 2/K of its square
        law = [np.sqrt(2) * one for one in law]
    return Parts(*np.array(found).T, np.array(law))


def why_off(trace: Trace, *, arm: int, layer: int, step: int, start: str) -> go.Figure:
    """Warm-up, lag and noise of the moving averages against alpha."""
    if trace.experiment.arm_settings[arm].norm != "batch":
        return style.said(NO_BATCH_NORM.format("moving averages"))
    if trace.first:
        return style.said(FORK)
    figure = make_subplots(1, 2, horizontal_spacing=0.13)
    names, best = [f"{alpha:g}" for alpha in moving.ALPHAS], []
    lines = {
        "total": ("whole gap", {"color": style.color(arm), "width": 3}),
        "warm_up": ("warm-up: the start is 0 and 1", {"color": style.COLORS[4], "dash": "dashdot"}),
        "lag": ("lag: the weights have moved", {"color": style.COLORS[5], "dash": "dash"}),
        "noise": ("noise: K is finite", {"color": style.COLORS[3], "dash": "solid"}),
        "law": ("noise of independent mini-batches", {"color": style.GRAY, "dash": "dot"}),
    }
    for column, (name, symbol) in enumerate((("mean", "μ̄"), ("var", "σ̄²")), 1):
        told = gap_parts(trace, name, arm, layer, step, start == "corrected")
        if told is None:
            return style.said("The population has not been measured twice yet. It comes with the scores.")
        for part, (words, line) in lines.items():
            values = getattr(told, part)
            figure.add_scatter(
                x=names, y=style.numbers(np.where(values > 0, values, np.nan)), name=words, legendgroup=part,
                mode="lines+markers", line=line, showlegend=column == 1, row=1, col=column,
                hovertemplate=f"α = %{{x}}: %{{y:.3g}}<extra>{words}</extra>",
            )  # fmt: skip
        i = int(np.nanargmin(told.total))
        best.append(f"{symbol} is nearest at α = {names[i]}")
        figure.add_scatter(
            x=[names[i]], y=[float(told.total[i])], mode="markers", showlegend=False, hoverinfo="skip",
            row=1, col=column,
            marker={"symbol": "circle-open", "size": 16, "color": style.color(arm), "line": {"width": 2}},
        )  # fmt: skip
        top = float(np.nanmax(told.total))
        reach = [np.log10(top) - 6, np.log10(top) + 0.5] if top > 0 else None  # what is below a millionth is nothing
        unit = "in σ<sub>pop</sub>" if name == "mean" else "relative to σ²<sub>pop</sub>"
        figure.update_xaxes(title="α (not to scale)", type="category", row=1, col=column)
        figure.update_yaxes(
            title=f"gap of {symbol}, {unit}", type="log", exponentformat="power", range=reach, row=1, col=column
        )
    settings = trace.experiment.arm_settings[arm]
    drawn = (
        "in epochs, so their noise is below the law"
        if settings.sampling == "epochs"
        else "with replacement, as the law assumes"
    )
    said = f"Layer {layer}: {', '.join(best)}. Root mean square over its units. Mini-batches are drawn {drawn}; "
    return style.finished(figure, height=460, note=f"{said}for σ̄² the law holds for normal values.")


PRACTICE = (8, 32, 128)


def practice_needs(trace: Trace, *, arm: int, step: int) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    there = trace.experiment.arm_settings[arm].norm == "batch" and at is not None
    return [("practice", at, {"batch_size": K}) for K in PRACTICE] if there else []


def in_practice(trace: Trace, *, arm: int, step: int) -> go.Figure:
    """The practitioner's statistics against the population's, layer by layer, for three mini-batch sizes."""
    settings = trace.experiment.arm_settings[arm]
    if settings.norm != "batch":
        return style.said(NO_BATCH_NORM.format("statistics"))
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    figure, told = make_subplots(1, 2, horizontal_spacing=0.13), []
    for i, K in enumerate(PRACTICE):
        found = trace.look("practice", arm, at, batch_size=K)
        if wrong := missing(found):
            return wrong
        layers = np.arange(1, found["mean_off"].shape[1] + 1)
        for column, name in ((1, "mean_off"), (2, "std_ratio")):
            figure.add_scatter(
                x=layers, y=style.numbers(found[name].mean(0)), name=f"mini-batches of {K}", legendgroup=str(K),
                showlegend=column == 1, mode="lines+markers", row=1, col=column,
                line={"color": style.COLORS[i + 3], "dash": style.DASHES[i]}, marker={"symbol": style.SYMBOLS[i]},
                hovertemplate=f"layer %{{x}}: %{{y:.4g}}<extra>K = {K}</extra>",
            )  # fmt: skip
        told.append(f"{found['loss_mini_batches'].mean():.3g} with K = {K}")
    figure.update_xaxes(title="layer l (1 is next to the input)")
    figure.update_yaxes(title="difference of means, in σ<sub>pop</sub>", row=1, col=1)
    figure.update_yaxes(title="ratio of standard deviations", row=1, col=2)
    style.reference(figure, 1.0, "the population's", column=2)
    passes = settings.n_train / settings.mini_batch
    note = (
        f"Step {at}. Test loss {found['loss_population'].mean():.3g} with the population's statistics; "
        f"{', '.join(told)}. Either is one pass over {settings.n_train} examples: as many as {passes:.0f} training "
        "steps see, without a backward pass."
    )
    return style.finished(figure, note=note)


ABOUT = {
    "why_off": About(
        "Why they are off",
        "The gap between moving average and population in its three parts, which add up unit by unit.",
        why_off,
        (BATCH_ARM, LAYER, STEP, START),
    ),
    "in_practice": About(
        "Population statistics in practice",
        "Pooled over mini-batches that normalize by themselves, instead of layer by layer over all examples: "
        "off more for smaller mini-batches and in higher layers.",
        in_practice,
        (BATCH_ARM, STEP),
        practice_needs,
    ),
}
