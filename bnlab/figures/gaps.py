"""Why moving averages are off the population, and what the practitioner's shortcut to the population costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import lineage, moving
from ..settings import about
from ..train import FORWARD
from . import style
from .alphas import START, unknown
from .inference import without
from .looks import NOT_YET, missing, newest_snapshot
from .options import BATCH_ARM, LAYER, STEP, About

if TYPE_CHECKING:
    from ..reading import Trace


class Parts(NamedTuple):
    """For each of ALPHAS: root mean square over the units of a layer of the gap and its parts, in population standard
    deviations of the unit (mean) or relative (var), [alphas] each. `noise_law`, `bias_law`: what independent normal
    values would have in layer 1."""

    total: np.ndarray
    warm_up: np.ndarray
    lag: np.ndarray
    bias: np.ndarray
    noise: np.ndarray
    noise_law: np.ndarray
    bias_law: np.ndarray


def gap_parts(trace: Trace, name: str, arm: int, layer: int, step: int, corrected: bool) -> Parts | None:
    """The gap of the averages that inference before update `step` finds, against the population of the same weights;
    None before the second look at the population. Between two looks the population is taken from a straight line."""
    steps, mean, var = lineage.population(trace, arm, layer)
    n = min(step, trace.step + 1, trace.experiment.settings.steps)
    if len(steps) < 2 or n < 2:
        return None
    _, new = lineage.rows(trace, f"batch_{name}", arm, layer=layer, stop=n)
    mean, var = (moving.between(steps, q.astype(np.float64), n + 1) for q in (mean, var))
    whole, unit = (mean, np.sqrt(var)) if name == "mean" else (var, var)
    found, laws = [], []
    settings = trace.experiment.arm_settings[arm]
    K, N = settings.mini_batch, settings.n_train if settings.sampling == "epochs" else None
    for alpha in moving.ALPHAS:
        parts = moving.gap(new, whole, alpha, moving.START[name], unit[:-1], corrected)
        scaled = [np.divide(part, unit[-1], out=np.full_like(part, np.nan), where=unit[-1] > 0) for part in parts]
        found.append([moving.rms(part) for part in scaled])
        came_in = 1.0 if corrected and alpha < 1 else 1 - alpha**n
        noise = (moving.noise_of_means if name == "mean" else moving.noise_of_variances)(alpha, K, n)
        bias = moving.bias_of_variances(K, N) if name == "var" else 0.0
        laws.append([noise * came_in / max(1 - alpha**n, 1e-300), bias * came_in])
    return Parts(*np.array(found).T, *np.array(laws).T)


def why_off(trace: Trace, *, arm: int, layer: int, step: int, start: str) -> go.Figure:
    """Warm-up, lag, bias and noise of the moving averages against alpha."""
    if wrong := unknown(trace, arm, step):
        return style.said(wrong)
    for name in ("batch_size", "sampling"):
        if (at := lineage.changed(trace, arm, name)) is not None and at < step:
            return style.said(
                f"At step {at} this arm changed its {about(name).label.lower()}: noise and bias are then of two kinds."
                "<br>Look at the arm as it was, or at an earlier step."
            )
    figure = make_subplots(1, 2, horizontal_spacing=0.13)
    names, best, measured = [f"{alpha:g}" for alpha in moving.ALPHAS], [], []
    settings = trace.experiment.arm_settings[arm]
    nearest = int(np.abs(np.array(moving.ALPHAS) - settings.alpha).argmin())
    lines = {
        "total": ("whole gap", {"color": style.color(arm), "width": 3}),
        "warm_up": ("warm-up: the start is 0 and 1", {"color": style.COLORS[4], "dash": "dashdot"}),
        "lag": ("lag: the weights have moved", {"color": style.COLORS[5], "dash": "dash"}),
        "bias": ("bias: mini-batches differ in the mean", {"color": style.GRAY, "dash": "longdash"}),
        "noise": ("noise: K is finite", {"color": style.COLORS[3], "dash": "solid"}),
        "noise_law": ("law of the noise, layer 1", {"color": style.COLORS[3], "dash": "dot"}),
        "bias_law": ("law of the bias, layer 1", {"color": style.GRAY, "dash": "dot"}),
    }
    for column, (name, symbol) in enumerate((("mean", "μ̄"), ("var", "σ̄²")), 1):
        told = gap_parts(trace, name, arm, layer, step, start == "corrected")
        if told is None or np.isnan(told.total).all():
            return style.said("The population has not been measured twice yet. It comes with the scores.")
        for part, (words, line) in lines.items():
            values = getattr(told, part)
            figure.add_scatter(
                x=names, y=style.numbers(np.where(values > 0, values, np.nan)), name=words, legendgroup=part,
                mode="lines" if part.endswith("law") else "lines+markers", line=line,
                showlegend=column == (2 if part == "bias_law" else 1), row=1, col=column,
                hovertemplate=f"α = %{{x}}: %{{y:.3g}}<extra>{words}</extra>",
            )  # fmt: skip
        i = int(np.nanargmin(told.total))
        best.append(f"{symbol} is nearest at α = {names[i]}")
        if told.noise_law[nearest] > 0:
            measured.append(f"{told.noise[nearest] / told.noise_law[nearest]:.2g} times the law's for {symbol}")
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
    said = f"Layer {layer}, against the population of the weights before update {step}: "
    said += f"{', '.join(best)}. Root mean square over the units. "
    if measured:
        said += f"At α = {names[nearest]} the noise measured is {' and '.join(measured)}; "
    said += "the law is layer 1's, of independent examples, for σ̄² normal ones. "
    if layer == 1 and settings.standardize and settings.placement == "before":
        said += (
            "Layer 1 is special: its inputs are standardized and never move, so its μ_pop is 0, where the averages "
            "start; choose a higher layer to see lag and warm-up. "
        )
    return style.finished(figure, height=460, note=f"{said}Between two scorings the population is interpolated.")


PRACTICE = (8, 32, 128)


def practice_needs(trace: Trace, *, arm: int, step: int) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    there = trace.experiment.arm_settings[arm].norm == "batch" and at is not None
    return [("practice", at, {"batch_size": K}) for K in PRACTICE] if there else []


def pieces(N: int, K: int) -> str:
    """Into what the practitioner's pass divides N examples where mini-batches of about K are asked for."""
    count = max(1, N // K)
    if count == 1:
        return f"all {N} examples at once"
    return f"{count} mini-batches of {N // count}" + (f" or {N // count + 1}" if N % count else "")


def in_practice(trace: Trace, *, arm: int, step: int) -> go.Figure:
    """The practitioner's statistics against the population's, layer by layer, for three mini-batch sizes."""
    settings = trace.experiment.arm_settings[arm]
    if settings.norm != "batch":
        return style.said(without(trace, "statistics"))
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    figure, told = make_subplots(1, 2, horizontal_spacing=0.13), []
    for i, K in enumerate(PRACTICE):
        found = trace.look("practice", arm, at, batch_size=K)
        if wrong := missing(found):
            return wrong
        layers, size = np.arange(1, found["mean_off"].shape[1] + 1), pieces(settings.n_train, K)
        for column, name in ((1, "mean_off"), (2, "std_ratio")):
            figure.add_scatter(
                x=layers, y=style.numbers(found[name].mean(0)), name=size, legendgroup=str(K),
                showlegend=column == 1, mode="lines+markers", row=1, col=column,
                line={"color": style.COLORS[i + 3], "dash": style.DASHES[i]}, marker={"symbol": style.SYMBOLS[i]},
                hovertemplate=f"layer %{{x}}: %{{y:.4g}}<extra>{size}</extra>",
            )  # fmt: skip
        told.append(f"{found['loss_mini_batches'].mean():.3g} with {size}")
    figure.update_xaxes(title="layer l (1 is next to the input)")
    figure.update_yaxes(title="difference of means, in σ<sub>pop</sub>", row=1, col=1)
    figure.update_yaxes(title="ratio of standard deviations", row=1, col=2)
    style.reference(figure, 1.0, "the population's", column=2)
    steps = FORWARD * settings.n_train / settings.mini_batch
    note = (
        f"Step {at}. Test loss {found['loss_population'].mean():.3g} with the population's statistics; "
        f"{', '.join(told)}. Either is one pass over {settings.n_train} examples, as much as "
        f"{steps:.2g} training steps: forward only, {FORWARD:g} of what an example costs in training."
    )
    return style.finished(figure, note=note)


ABOUT = {
    "why_off": About(
        "Why they are off",
        "The gap between moving average and population in its four parts, which add up unit by unit.",
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
