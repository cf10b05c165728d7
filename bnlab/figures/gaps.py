"""Why moving averages are off the population, and what the practitioner's shortcut to the population costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import lineage, moving
from ..sampling import parts_of_at_least
from ..settings import SAMPLING, about
from . import style
from .alphas import standing, unknown
from .inference import each_of
from .looks import NOT_YET, finished, finite_seeds, left_out, missing, newest_snapshot, not_finite
from .means import present
from .moving import NO_BATCH_NORM, SYMBOLS
from .options import BATCH_ARM, LAYER, STEP, Plot, choice

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings


class Parts(NamedTuple):
    """For each of ALPHAS: root mean square over the units of a layer and the seeds of the gap and its parts, in
    population standard deviations of the unit (mean) or relative (var), [alphas] each. `law`: what mini-batches would
    make of layer 1 were its values normal."""

    total: np.ndarray
    warm_up: np.ndarray
    lag: np.ndarray
    mini_batches: np.ndarray
    law: np.ndarray


def gap_parts(
    trace: Trace, found: dict[str, np.ndarray], name: str, arm: int, layer: int, at: int, corrected: bool
) -> Parts:
    """The Parts from what the probe `off` saw at step `at`: of the averages that inference before that update finds,
    against the population of the same weights."""
    sizes = np.square(found["parts"][:, ("mean", "var").index(name), layer - 1])  # [seeds, alphas, PARTS]
    total, warm_up, lag, mini_batches, without_start = np.sqrt(present(sizes)).T
    settings, alphas = trace.experiment.arm_settings[arm], np.array(moving.ALPHAS)
    N = settings.n_train if settings.sampling == "epochs" else None
    law = np.array([moving.law(name, alpha, settings.mini_batch, N, at) for alpha in moving.ALPHAS])
    if corrected:
        came_in = np.where(alphas < 1, 1 - alphas**at, 1.0)
        total, lag, mini_batches, law = without_start, lag / came_in, mini_batches / came_in, law / came_in
        warm_up = np.where(alphas < 1, 0.0, warm_up)
    return Parts(total, warm_up, lag, mini_batches, law)


def why_off_needs(trace: Trace, *, arm: int, step: int, **_: object) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    later = at is not None and at > trace.first  # else there is nothing to train again
    return [("off", at, {})] if later and not of_two_kinds(trace, arm, at) and unknown(trace, arm, at) is None else []


def of_two_kinds(trace: Trace, arm: int, at: int) -> str | None:
    """Why the averages before update `at` are no single sum over mini-batches of one kind; None where they are."""
    if wrong := standing(trace, arm):
        return wrong
    for name in ("batch_size", "sampling"):
        if (when := lineage.changed(trace, arm, name)) is not None and when < at:
            return (
                f"At step {when:,} this arm changed its {about(name).label.lower()}: its mini-batches are of two kinds."
                "<br>Look at the arm as it was, or at an earlier step."
            )
    return None


def why_off(trace: Trace, *, arm: int, layer: int, step: int, start: str) -> go.Figure:
    """Warm-up, lag and mini-batches: the parts of the moving averages' gap, against alpha."""
    at = newest_snapshot(trace, step)
    found = trace.look("off", arm, at) if at else None
    if wrong := no_gap(trace, arm, at, found is None):
        return style.said(wrong)
    if wrong := missing(found):
        return wrong
    there = finite_seeds(found)
    if not there.any():
        return not_finite(at, style.label(trace, arm))
    found = {name: values[there] for name, values in found.items()}
    told = {name: gap_parts(trace, found, name, arm, layer, at, start == "corrected") for name in SYMBOLS}
    if not all(np.isfinite(one.total).any() for one in told.values()):
        return style.said("The population of this layer has no spread: there is nothing to measure the gap in.")
    figure = make_subplots(1, 2, horizontal_spacing=0.13)
    for column, (name, one) in enumerate(told.items(), 1):
        for drawn in gap_lines(one, style.color(arm), column == 1):
            figure.add_trace(drawn, row=1, col=column)
        unit = "in σ<sub>pop</sub>" if name == "mean" else "relative to σ²<sub>pop</sub>"
        figure.update_yaxes(title=f"gap of {SYMBOLS[name][1]}, {unit}", type="log", row=1, col=column)
    figure.update_xaxes(title="α (not to scale)", type="category")
    settings = trace.experiment.arm_settings[arm]
    best = [f"{SYMBOLS[name][1]} is nearest at α = {NAMES[np.nanargmin(one.total)]}" for name, one in told.items()]
    notes = [
        f"Layer {layer}, against the population of the weights before update {at:,}: {', '.join(best)}.",
        "Root mean square over the units.",
    ]
    if layer == 1:
        notes.append(beside_the_law(told, settings))
    notes.append(
        f"The dotted law (noise and bias) holds for layer 1 with mini-batches drawn {SAMPLING[settings.sampling]}; "
        "for σ̄² it assumes normal values."
    )
    if layer == 1 and settings.standardize and settings.placement == "before":
        notes.append(first_layer(trace, arm, at))
    notes.append(trained_again(int(found["replayed"][0]), at, settings.alpha))
    return finished(figure, 460, *notes, left_out(trace, {arm: there}))


def no_gap(trace: Trace, arm: int, at: int | None, unseen: bool) -> str | None:
    """Why there is no gap to speak of before update `at`, or none that can be measured any more; None where there is.
    What has been looked at needs no rows."""
    if wrong := of_two_kinds(trace, arm, at or 0) or (unseen and unknown(trace, arm, at or 0)):
        return wrong
    if at is None:
        return NOT_YET
    if at == 0:
        return "Before update 0 nothing has been averaged yet. Choose a later step."
    if at == trace.first:
        return "At its first step a fork has trained no step yet. Choose a later step, or the run it was forked from."
    return None


NAMES = [f"{alpha:g}" for alpha in moving.ALPHAS]
LINES = {
    "total": ("whole gap", {"width": 3}),
    "warm_up": ("warm-up: the start is 0 and 1", {"color": style.COLORS[4], "dash": "dashdot"}),
    "lag": ("lag: the weights have moved", {"color": style.COLORS[5], "dash": "dash"}),
    "mini_batches": ("mini-batches: K is finite", {"color": style.COLORS[3], "dash": "solid"}),
    "law": ("their law, layer 1", {"color": style.COLORS[3], "dash": "dot"}),
}


def gap_lines(told: Parts, color: str, legend: bool) -> Iterator[go.Scatter]:
    """The gap and its parts against alpha, and a ring around the least gap; `color` is the arm's."""
    least = 1e-6 * np.nanmax(told.total)  # what is smaller is nothing beside the gap
    for part, (words, line) in LINES.items():
        values = getattr(told, part)
        yield go.Scatter(
            x=NAMES, y=style.numbers(np.where(values > least, values, np.nan)), name=words, legendgroup=part,
            mode="lines" if part == "law" else "lines+markers", line={"color": color} | line, showlegend=legend,
            hovertemplate=f"α = %{{x}}: %{{y:,.3g}}<extra>{words}</extra>",
        )  # fmt: skip
    i = int(np.nanargmin(told.total))
    yield go.Scatter(
        x=[NAMES[i]], y=[float(told.total[i])], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 16, "color": color, "line": {"width": 2}},
    )  # fmt: skip


def beside_the_law(told: dict[str, Parts], settings: Settings) -> str:
    """How large the mini-batch part of layer 1 is beside its law, at the alpha nearest to the arm's own."""
    i = int(np.abs(np.array(moving.ALPHAS) - settings.alpha).argmin())
    shares = [
        f"{one.mini_batches[i] / one.law[i]:.2g} times the law's for {SYMBOLS[name][1]}"
        for name, one in told.items()
        if one.law[i] > 0
    ]
    if not shares:
        return ""
    return f"At α = {NAMES[i]} the mini-batch part (K = {settings.mini_batch:,}) is {' and '.join(shares)}."


def trained_again(replayed: int, at: int, alpha: float) -> str:
    """Of which steps the population was measured, and what the others weigh."""
    if replayed >= at:
        return "Every step was trained again for this, to the last bit, and the population measured along the way."
    return (
        f"Over the last {replayed} steps, trained again for this to the last bit, the population was measured; "
        f"older ones, which hold {style.amount(alpha**replayed, 1)} of the average at α = {alpha:g}, "
        "are interpolated between scorings."
    )


def first_layer(trace: Trace, arm: int, at: int) -> str:
    """What is special about the lowest layer, whose inputs are standardized."""
    steps, mean, var = trace.population(arm, layer=1)
    said = "Layer 1 is special: its inputs are standardized and never move"
    before = steps <= at
    if not (np.abs(mean[before]) > STILL * np.sqrt(var[before])).any():  # Adam moves its bias by rounding
        said += ", so its population mean is 0, where the averages start"
    higher = trace.experiment.arm_settings[arm].depth > 1
    return said + ("; choose a higher layer to see lag and warm-up." if higher else ".")


STILL = 0.01  # population standard deviations: a mean that is nearer to 0 is called 0
SMALL = 64  # examples; a step of fewer takes hardly less time on a processor, as measured
PRACTICE = (8, 32, 128)  # beside the run's own K


def sizes(settings: Settings) -> dict[int, str]:
    """The mini-batch sizes that are looked at, each with what it is called; of two that divide alike the run's own."""
    N, K = settings.n_train, settings.mini_batch
    found = {parts_of_at_least(size, N): size for size in (*PRACTICE, *([K] if K > 1 else []))}
    return {
        size: cut(N, size) + (f" (for the run's K = {K:,})" if size == K else "") for size in sorted(found.values())
    }


def practice_needs(trace: Trace, *, arm: int, step: int) -> list[tuple[str, int, dict]]:
    at, settings = newest_snapshot(trace, step), trace.experiment.arm_settings[arm]
    there = settings.norm == "batch" and at is not None
    return [("practice", at, {"batch_size": K}) for K in sizes(settings)] if there else []


def cut(N: int, K: int) -> str:
    """Into what the practitioner's pass divides N examples where mini-batches of about K are asked for."""
    count = parts_of_at_least(K, N)
    each = each_of(N, count)
    return f"{count:,} mini-batches of {each}" if count > 1 else f"{each} examples at once"


def in_practice(trace: Trace, *, arm: int, step: int) -> go.Figure:
    """The practitioner's statistics against the population's, layer by layer, for some mini-batch sizes."""
    settings = trace.experiment.arm_settings[arm]
    if settings.norm != "batch":
        return style.said(NO_BATCH_NORM.format("statistics"))
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    figure, told, off = make_subplots(1, 2, horizontal_spacing=0.13), [], []
    for i, (K, size) in enumerate(sizes(settings).items()):
        found = trace.look("practice", arm, at, batch_size=K)
        if wrong := missing(found):
            return wrong
        there = finite_seeds(found)
        if not there.any():
            return not_finite(at, style.label(trace, arm))
        found = {name: values[there] for name, values in found.items()}
        means, ratios = (found[name].mean(0) for name in ("mean_off", "std_ratio"))
        layers, own = np.arange(1, len(means) + 1), settings.mini_batch == K
        color = style.color(arm) if own else style.COLORS[i % 3 + 3]
        for column, values in ((1, means), (2, ratios)):
            figure.add_scatter(
                x=layers, y=style.numbers(values), name=size, legendgroup=str(K),
                showlegend=column == 1, mode="lines+markers", row=1, col=column,
                line={"color": color, "dash": style.DASHES[i], "width": 3 if own else 2},
                marker={"symbol": style.SYMBOLS[i]},
                hovertemplate=f"layer %{{x}}: %{{y:,.4g}}<extra>{size}</extra>",
            )  # fmt: skip
        told.append(f"{style.amount(present(found['loss_mini_batches']))} with {size}")
        if len(layers) > 1 and np.isfinite(means).all() and np.isfinite(ratios).all():
            off.append((size, int(means.argmax()) + 1, int(np.abs(np.log(ratios)).argmax()) + 1))
    figure.update_xaxes(title="layer l (1 is next to the input)")
    figure.update_yaxes(title="difference of means, in σ<sub>pop</sub>", row=1, col=1)
    figure.update_yaxes(title="ratio of standard deviations", row=1, col=2)
    ratios = np.array([line.y for line in figure.data if line.yaxis == "y2"])
    style.reference(figure, 1.0, "the population's", column=2, where=style.free_end(ratios, 1.0))
    N, K = settings.n_train, settings.mini_batch
    note = (
        f"Step {at:,}. Test loss {style.amount(present(found['loss_population']))} with the population's statistics; "
        f"{', '.join(told)}. "
    )
    if off:
        size, mean, std = off[0]
        note += f"With {size} the means are furthest off in layer {mean}, the standard deviations in layer {std}. "
    steps = style.amount(N / 3 / K, 2)  # backward are two products more for each of forward
    note += f"Each costs one forward pass over {N:,} examples, in multiply-adds as much as {steps} training steps with "
    note += f"K = {K:,}"
    fewer = "; in time fewer where layers are small and a step of so few examples is mostly overhead"
    note += f"{fewer if K < SMALL else ''}."
    return style.finished(figure, note=f"{note} {left_out(trace, {arm: there})}".strip())


START = choice(
    "start",
    "Start",
    "Plain: the averages start at 0 and 1. Corrected: what is left of the start is divided out, as Adam does.",
    {"plain": "plain", "corrected": "bias-corrected"},
)
PLOTS = {
    "why_off": Plot(
        "Why they are off",
        "The gap between moving average and population in its three parts, which add up unit by unit.",
        why_off,
        (BATCH_ARM, LAYER, STEP, START),
        why_off_needs,
    ),
    "in_practice": Plot(
        "Population statistics in practice",
        "Pooled over mini-batches that normalize by themselves, instead of layer by layer over all examples: exact in "
        "layer 1, whose inputs are the same. Above it the error grows as the mini-batches get smaller.",
        in_practice,
        (BATCH_ARM, STEP),
        practice_needs,
    ),
}
