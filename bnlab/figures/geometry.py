"""Scale invariance, weight norms and angles of updates, and the norm undone by its own gamma and beta."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..optimizers import OPTIMIZERS
from ..probes.invariance import FACTORS
from ..problems import series
from ..record import EVERYTHING
from . import style
from .lasting import confine, lasting, parted
from .looks import NOT_YET, absent, each, empty, finished, layered, line, middle, seeds, titled
from .losses import measure, unit
from .means import present
from .options import LAYER, STEP, Option, Plot, having, lower
from .style import amount

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings


POINTS = 300  # of a line over the training


def invariant(settings: Settings) -> bool:
    """Whether the scale of a layer's weights is divided out by the norm that follows: right behind the layer, or behind
    an activation that a positive factor passes through. Frozen moving averages do not follow the scale."""
    if settings.norm == "none" or settings.frozen:
        return False
    return settings.placement == "before" or settings.activation in ("linear", "relu", "leaky_relu")


def counting(settings: Settings) -> str:
    """The learning rate that counts below a norm: what the angle of an update goes with."""
    return "η/‖W‖" + {1: "", 2: "²"}[OPTIMIZERS[settings.optimizer].power]


def invariance(trace: Trace, *, step: int, layer: int, c: float) -> go.Figure:
    """One layer's weights multiplied by c: loss, gradient, effective learning rate."""
    told = each(trace, "invariance", step, layer=layer)
    if isinstance(told, go.Figure):
        return told
    at, arms = told[0], [one for one in told[1] if one[0] in having(trace, layer)]
    left = lower(trace, layer).strip(), *absent(trace, at, told[1])
    if not arms:
        return style.said(" ".join(filter(None, left)))
    figure, numbers, moves = make_subplots(1, 3, horizontal_spacing=0.1), [], []
    for arm, name, found in arms:
        settings, factors = trace.experiment.arm_settings[arm], np.nanmax(found["factor"], 0)
        here = int(np.abs(np.log(factors / c)).argmin())
        loss, gradient, rate = (found[key] for key in ("loss", "gradient", "rate"))
        fixed = invariant(settings)
        for column, values in enumerate((loss, gradient, rate if fixed else np.full_like(rate, np.nan)), 1):
            line(figure, factors, values, name, arm, column, column == 1)
            figure.add_scatter(
                x=factors[[here]], y=style.numbers(middle(values[:, [here]])), mode="markers", showlegend=False,
                legendgroup=name,
                marker={"color": style.color(arm), "symbol": f"{style.symbol(arm)}-open", "size": 15},
                hoverinfo="skip", row=1, col=column,
            )  # fmt: skip
        rate = float(middle(rate[:, here]))
        effective = f", {counting(settings)} {amount(rate)}" if fixed and np.isfinite(rate) else ""
        both = seeds_mean(loss[:, here], 4, unit(trace, "loss", arm)), seeds_mean(gradient[:, here])
        numbers.append("{}: loss {}, ‖dE/dW‖ {}{}.".format(name, *both, effective))
        if settings.norm != "none" and not fixed:
            why = "its moving averages stand still." if settings.frozen else "h stands in between."
            moves.append(f"{name} moves: {why}")
    every = [trace.experiment.arm_settings[arm] for arm, *_ in arms]
    rates = " or ".join(dict.fromkeys(counting(s) for s in list(filter(invariant, every)) or every))
    titled(figure, "c", measure(trace, "loss"), "‖dE/dW‖ of the layer", f"effective learning rate {rates}")
    figure.update_xaxes(type="log")
    some = any(np.nan_to_num(found["gradient"]).any() for *_, found in arms)  # infinite ones have no place either
    empty(figure, 2, "" if some else "The gradient is 0 in every network.")
    empty(figure, 3, "" if any(map(invariant, every)) else "No norm here divides the scale out.")
    note = f"Step {at:,}, {trace.experiment.training_mode}, weights and bias of layer {layer} times c; marked, and "
    note += f"here: c = {factors[here]:g}."
    law = (
        "Where the norm divides the scale out, the loss does not move (but for δ) and the gradient falls as 1/c: what "
        f"counts is {rates}, drawn for those arms only (van Laarhoven 2017)."
    )
    if any(s.optimizer == "adam" for s in every):
        law += " Adam's steps do not shrink with the gradient: there it is η/‖W‖."
    turned = {name: present(q["angle"])[layer - 1] for _, name, q in arms}
    angles = series(f"{name} {amount(angle, 2)}°" for name, angle in turned.items() if np.isfinite(angle))
    update = f"The next update turns the layer's weights by: {angles}." if angles else ""
    return finished(figure, style.HEIGHT, note, *numbers, *moves, law, update, seeds(trace), *left)


def seeds_mean(values: np.ndarray, digits: int = 3, unit: str = "") -> str:
    """The middle() of the seeds' values [seeds] in words; where all are 0, which has no place in it, 0."""
    mean = float(middle(values) if (values > 0).any() else present(values))
    return amount(mean, digits) + unit * bool(np.isfinite(mean))


def undone(trace: Trace, *, step: int, layer: int) -> go.Figure:
    """gamma and beta undo a layer's norm on one mini-batch: the loss stays, the gradients do not."""
    normed = [arm for arm, settings in enumerate(trace.experiment.arm_settings) if settings.norm == "batch"]
    if not normed:
        return style.said("No arm has batch norm, so there is nothing to undo.")
    told = each(trace, "undo", step, normed, layer=layer)
    if isinstance(told, go.Figure):
        return told
    at, there = told
    most = max(trace.experiment.arm_settings[arm].depth for arm in normed)
    instead = f"No arm with batch norm has more layers than {most}: layer {most} is shown." if most < layer else ""
    layer = min(layer, most)
    arms = [one for one in there if one[0] in having(trace, layer)]
    left = lower(trace, layer, of=normed).strip(), *absent(trace, at, there, normed)
    if not arms:
        return style.said(" ".join(filter(None, [instead, *left])))
    figure, losses = make_subplots(1, 2, horizontal_spacing=0.12), []
    for arm, name, found in arms:
        layers = np.arange(1, found["cosine"].shape[1] + 1)
        line(figure, layers, found["gradient_with"], f"{name}, norm undone", arm, 1, True)
        line(figure, layers, found["gradient_without"], f"{name}, no norm there", arm, 1, True, pale=True)
        line(figure, layers, found["cosine"], name, arm, 2, False, log=False)
        both = (amount(float(present(found[f"loss_{which}"])), 6) for which in ("with", "without"))
        losses.append(f"{name} {' and '.join(both)}{unit(trace, 'loss', arm)}")
    titled(figure, "layer l", "‖dE/dW‖")
    figure.update_xaxes(title="layer l", row=1, col=2)
    figure.update_yaxes(title="cosine of the two gradients", row=1, col=2)
    settings = [trace.experiment.arm_settings[arm] for arm, *_ in arms]
    note = (
        f"Step {at:,}, {trace.experiment.training_mode}: in layer {layer} γ = √(σ² + δ) and β = μ, "
        "the statistics it normalizes with, so its output equals its input. "
        f"The loss is that of a network without the norm there ({'; '.join(losses)})."
    )
    differ = (
        f"But from layer {layer} down the gradients differ: μ and σ of the mini-batch still depend on the weights "
        "below. What changes is the path of learning."
    )
    same = "Frozen moving averages depend on no weights: there the gradients are the same, nothing is left of the norm."
    kinds = {s.statistics for s in settings}
    words = [differ] * ("batch" in kinds) + [same] * ("moving" in kinds)
    return finished(figure, style.HEIGHT, note, *words, instead, seeds(trace), *left)


def scale_over_time(trace: Trace, *, layer: int) -> go.Figure:
    """Weight norm, relative update and angle of an update, of one layer over the training."""
    figure, missed, drawn = make_subplots(1, 3, horizontal_spacing=0.1), False, ([], [], [])
    for arm in having(trace, layer):
        try:
            told = [
                trace.read(quantity, arm, layer=layer, points=POINTS) for quantity in ("weight_norm", "update_ratio")
            ]
        except KeyError:
            return style.said(NOT_YET)
        turned = angles(trace, arm, layer)
        missed |= len(told[0].steps) > 1 and (not len(turned[0]) or turned[0][0] > told[0].steps[0] + 1)
        lines = [*((series.steps, series.mean) for series in told), turned]
        for column, ((steps, values), all_arms) in enumerate(zip(lines, drawn, strict=True), 1):
            name = style.label(trace, arm)
            line(figure, steps, values.T, name, arm, column, column == 1, log=column > 1, marks=False)
            all_arms.append((arm, values[:, lasting(trace, arm)]))
    titled(figure, "step", "‖W‖", "update ratio ‖ΔW‖/‖W‖", "angle of an update in degrees")
    figure.update_yaxes(type="linear", row=1, col=1)
    confined = [confine(figure, trace, all_arms, i, log=i > 1) for i, all_arms in enumerate(drawn, 1)]
    note = (
        f"Layer {layer}. The angle between W before and after an update follows exactly from both norms and ‖ΔW‖, by "
        "the law of cosines. Right before a norm, under plain gradient descent without momentum and decay, the update "
        "is at right angles to W: there ‖W‖ can only grow, and the angle, in radians, is about the update ratio."
    )
    note += " Of older steps only summaries are kept, from which no angle follows." if missed else ""
    several = seeds(trace).replace("geometric means", "means (geometric where the axis is logarithmic)")
    return finished(figure, style.HEIGHT, note, several, lower(trace, layer).strip(), *parted(trace, any(confined)))


def angles(trace: Trace, arm: int, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and degrees [n, seeds] by which each of their updates turns a layer's weights, mean over the steps that
    a point stands for. Only of steps that are kept as recorded, the following one too."""
    windows = trace.exact(arm, "layers")
    start = windows[0][0] if windows else 0
    for (_, stop), (following, _) in pairwise(windows):
        start = start if following == stop else following
    norm, update = (
        trace.read(quantity, arm, start=start, layer=layer, points=EVERYTHING)
        for quantity in ("weight_norm", "update_ratio")
    )
    here = np.flatnonzero(np.diff(norm.steps) == 1)
    before, after = (norm.mean[here + k].astype(float) for k in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):  # sin²(angle / 2) keeps small angles, which a cosine loses
        square = (update.mean[here] * before) ** 2 - (after - before) ** 2
        angle = np.rad2deg(2 * np.arcsin(np.sqrt(np.clip(square / (4 * before * after), 0, 1))))
    steps = norm.steps[here]
    edges = np.arange(0, len(steps), max(1, -(-len(steps) // POINTS)))
    if not len(edges):
        return steps, angle
    return steps[edges], np.add.reduceat(angle, edges) / np.diff(edges, append=len(steps))[:, None]


TOP = LAYER._replace(default="last")  # where what is below shows most
FACTOR = Option(
    "c", "number", "Factor c", "The layer's weights and bias are multiplied by it.",
    low=FACTORS[0], high=FACTORS[-1], default="1", marks=FACTORS,
)  # fmt: skip
PLOTS = {
    "invariance": Plot(
        "Scale invariance",
        "Flat lines: the scale of the layer's weights means nothing there.",
        invariance,
        (TOP, STEP, FACTOR),
        layered("invariance"),
    ),
    "scale_over_time": Plot(
        "Weight norm, update ratio and angle",
        "Growing weights below a norm lower the learning rate that counts: updates turn them less and less.",
        scale_over_time,
        (TOP,),
    ),
    "undone": Plot(
        "The reset that changes nothing and everything",
        "gamma and beta can undo the normalization, yet that does not remove batch norm.",
        undone,
        (TOP, STEP),
        layered("undo"),
    ),
}
