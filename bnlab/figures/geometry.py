"""The loss surface, scale invariance and the norm undone by its own gamma and beta."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..probes.invariance import FACTORS
from ..trace import EVERYTHING
from . import style
from .lasting import lost
from .looks import NOT_YET, each, finished, layered, line, middle, mode, newest_snapshot, present, seeds, titled
from .options import ARM, LAYER, STEP, About, Option, choice

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings

POINTS = 17  # a side of the surface
CLIPPED = 0.98  # the quantile of the losses of a surface at which its colors end


def surface_needs(trace: Trace, *, step: int, plane: str, **_: object) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    if at is None or (plane == "path" and len(trace.snapshots()) < 2):
        return []
    return [(plane, at, {"points": POINTS})]


def surface(trace: Trace, *, step: int, plane: str, look: str, arm: int, beside: int) -> go.Figure:
    """The loss around the weights of two arms, on one color scale."""
    if plane == "path" and len(trace.snapshots()) < 2:
        return style.said("A path needs two snapshots of the weights. Train on, or choose random directions.")
    told = each(trace, plane, step, points=POINTS)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    asked = (arm, min(beside, len(trace.experiment.arms) - 1))
    shown = {arm: found for arm, _, found in arms if arm in asked and np.isfinite(found["loss"][0]).any()}
    if not shown:
        return style.said(f"Both networks had diverged by step {at}. Choose an earlier step, or other arms.")
    titles = [style.label(trace, a) + ("" if a in shown else ": diverged") for a in asked]
    solid = look == "surface"  # two below each other: beside each other they are too small on a phone
    places = [(1, 1), (2, 1)] if solid else [(1, 1), (1, 2)]
    form = {"rows": 2, "cols": 1, "specs": [[{"type": "surface"}]] * 2, "vertical_spacing": 0.04}
    figure = make_subplots(**(form if solid else {"rows": 1, "cols": 2}), subplot_titles=titles)
    every = np.log10(np.maximum(np.concatenate([found["loss"][0].ravel() for found in shown.values()]), 1e-9))
    low, high = (float(q) for q in np.quantile(every[np.isfinite(every)], (0, CLIPPED)))
    across, up = (
        ("first direction (in the weights' own norms, unit by unit)", "second direction (likewise)")
        if plane == "landscape"
        else ("first principal direction (distance ‖ΔW‖)", "second principal direction (‖ΔW‖)")
    )
    shares = []
    for (row, column), a in zip(places, asked, strict=True):
        here = {"row": row, "col": column}
        if not solid:
            figure.update_xaxes(title=across, **here)
            figure.update_yaxes(title=up, **here)
        if a not in shown:
            continue
        found, name = shown[a], style.label(trace, a)
        x, y = (found["at"][0],) * 2 if plane == "landscape" else (found["across"][0], found["up"][0])
        z = np.log10(np.maximum(found["loss"][0], 1e-9))
        path = found["path"][0] if plane == "path" else np.zeros((1, 2))
        if plane == "path":
            shares.append(f"{name} {' + '.join(f'{share:.0%}' for share in found['share'][0])}")
        text = {"customdata": found["loss"][0], "hovertemplate": f"loss %{{customdata:.4g}}<extra>{name}</extra>"}
        marks = {
            "mode": "lines+markers", "showlegend": False, "line": {"color": "white"},
            "marker": {"color": "white", "size": 5, "line": {"color": "black", "width": 1}},
            "hovertemplate": "snapshot %{pointNumber}<extra></extra>",
        }  # fmt: skip
        if solid:
            figure.add_surface(x=x, y=y, z=np.clip(z, low, high), coloraxis="coloraxis", **text, **here)
            height = np.clip(between(x, y, z, path), low, high) + 0.01 * (high - low)
            marks |= {"line": {"color": "white", "width": 4}, "marker": marks["marker"] | {"size": 3}}
            figure.add_scatter3d(x=path[:, 0], y=path[:, 1], z=height, **marks, **here)
            continue
        figure.add_contour(
            x=x, y=y, z=z, coloraxis="coloraxis", contours={"start": low, "end": high, "size": (high - low) / 14 or 1},
            line={"width": 0.6}, **text, **here,
        )  # fmt: skip
        figure.add_scatter(x=style.numbers(path[:, 0]), y=style.numbers(path[:, 1]), **marks, **here)
    if solid:
        room = 0.03 * (high - low) or 0.1
        figure.update_scenes(
            xaxis_title="first", yaxis_title="second", zaxis_title="log₁₀ E", aspectmode="cube",
            zaxis_range=[low - room, high + room], camera_eye={"x": 1.8, "y": 1.8, "z": 1.1},
        )  # fmt: skip
    bar = {"title": {"text": "log₁₀ E", "side": "right"}, "tickformat": ".2f"}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": bar})
    how = (
        "along two random directions, each unit's scaled to the norm of its own weights: 1 is as far as the weights "
        "are long (Li et al. 2018)"
        if plane == "landscape"
        else "in the plane of the first two principal components of the path of the recorded snapshots (white)"
    )
    if shares:
        how += f", which hold of the path's variance: {', '.join(shares)}"
    fresh = any(trace.experiment.arm_settings[a].norm == "batch" for a in shown) and "frozen" not in mode(trace)
    note = (
        f"Step {at}, {'the first seed, ' if len(trace.experiment.seeds) > 1 else 'seed '}{trace.experiment.seeds[0]}: "
        f"the loss of one mini-batch {how}. {mode(trace).capitalize()}"
        + (", batch norm's statistics taken anew at every point" if fresh else "")
        + f". Colors end at {10**high:.3g}, which {CLIPPED:.0%} of the points stay below."
    )
    gone = lost(trace, at)
    return finished(figure, 960 if solid else 480, note, *(gone[a] for a in dict.fromkeys(asked) if a in gone))


def between(x: np.ndarray, y: np.ndarray, z: np.ndarray, points: np.ndarray) -> np.ndarray:
    """z [y, x] on a regular grid, bilinear between its points, at points [n, 2]; NaN where these are."""
    place = [(points[:, k] - axis[0]) / (axis[-1] - axis[0]) * (len(axis) - 1) for k, axis in enumerate((x, y))]
    at = [np.clip(np.nan_to_num(q).astype(int), 0, len(axis) - 2) for q, axis in zip(place, (x, y), strict=True)]
    (i, j), (u, v) = at, (q - low for q, low in zip(place, at, strict=True))
    left, right = ((1 - v) * z[j, i + k] + v * z[j + 1, i + k] for k in (0, 1))
    return (1 - u) * left + u * right


def invariant(settings: Settings) -> bool:
    """Whether the scale of a layer's weights is divided out by the norm that follows: right behind the layer, or behind
    an activation that a positive factor passes through. Frozen moving averages do not follow the scale."""
    if settings.norm == "none" or (settings.norm == "batch" and settings.statistics == "moving"):
        return False
    return settings.placement == "before" or settings.activation in ("linear", "relu", "leaky_relu")


def invariance(trace: Trace, *, step: int, layer: int, c: float) -> go.Figure:
    """One layer's weights multiplied by c: loss, gradient, effective learning rate."""
    told = each(trace, "invariance", step, layer=layer)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
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
        loss, gradient, rate = (float(middle(values[:, here])) for values in (loss, gradient, rate))
        effective = f", η/‖W‖² {rate:.3g}" if fixed else ""
        numbers.append(f"{name}: loss {loss:.4g}, ‖dE/dW‖ {gradient:.3g}{effective}.")
        if settings.norm == "batch" and not fixed:
            frozen = settings.statistics == "moving"
            moves.append(f"{name} moves: " + ("its moving averages stand still." if frozen else "h stands in between."))
    titled(figure, "c", "loss E", "‖dE/dW‖ of the layer", "effective learning rate η/‖W‖²")
    figure.update_xaxes(type="log")
    note = (
        f"Step {at}, {mode(trace)}, weights and bias of layer {layer} times c; marked, and here: c = {factors[here]:g}."
    )
    law = (
        "Where the norm divides the scale out, the loss does not move (but for δ) and the gradient falls as 1/c: what "
        "counts is η/‖W‖², drawn for those arms only (van Laarhoven 2017)."
    )
    turned = {name: present(q["angle"])[min(layer, q["angle"].shape[1]) - 1] for _, name, q in arms}
    angles = ", ".join(f"{name} {angle:.2g}°" for name, angle in turned.items() if np.isfinite(angle))
    update = f"The coming update turns the layer's weights by: {angles}." if angles else ""
    return finished(figure, style.HEIGHT, note, *numbers, *moves, law, update, seeds(trace), *lost(trace, at).values())


def undone(trace: Trace, *, step: int, layer: int) -> go.Figure:
    """gamma and beta undo a layer's norm on one mini-batch: the loss stays, the gradients do not."""
    told = each(trace, "undo", step, layer=layer)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    arms = [one for one in arms if trace.experiment.arm_settings[one[0]].norm == "batch"]
    if not arms:
        return style.said("No arm has batch norm, so there is nothing to undo.")
    figure, losses = make_subplots(1, 2, horizontal_spacing=0.12), []
    for arm, name, found in arms:
        layers = np.arange(1, found["cosine"].shape[1] + 1)
        line(figure, layers, found["gradient_with"], f"{name}, norm undone", arm, 1, True)
        line(figure, layers, found["gradient_without"], f"{name}, no norm there", arm, 1, True, pale=True)
        line(figure, layers, found["cosine"], name, arm, 2, False, log=False)
        both = (float(present(found[f"loss_{which}"])) for which in ("with", "without"))
        losses.append("{} {:.6g} and {:.6g}".format(name, *both))
    titled(figure, "layer l", "‖dE/dW‖")
    figure.update_xaxes(title="layer l", row=1, col=2)
    figure.update_yaxes(title="cosine of the two gradients", row=1, col=2)
    settings = [trace.experiment.arm_settings[arm] for arm, *_ in arms]
    note = (
        f"Step {at}: in layer {layer} γ = √(σ² + δ) and β = μ, those it normalizes with, so that it gives back what "
        f"came in. The loss is that of a network without the norm there ({'; '.join(losses)})."
    )
    differ = (
        f"But from layer {layer} down the gradients differ: μ and σ of the mini-batch still depend on the weights "
        "below. What changes is the path of learning."
    )
    same = "Frozen moving averages depend on no weights: there the gradients are the same, nothing is left of the norm."
    kinds = {s.statistics for s in settings}
    words = [differ] * ("batch" in kinds) + [same] * ("moving" in kinds)
    return finished(figure, style.HEIGHT, note, *words, seeds(trace), *lost(trace, at).values())


def scale_over_time(trace: Trace, *, layer: int) -> go.Figure:
    """Weight norm, relative update and angle of an update, of one layer over the training."""
    figure, missed = make_subplots(1, 3, horizontal_spacing=0.1), False
    for arm, settings in enumerate(trace.experiment.arm_settings):
        at = min(layer, settings.depth)
        try:
            told = [trace.read(quantity, arm, layer=at, points=300) for quantity in ("weight_norm", "update_ratio")]
        except KeyError:
            return style.said(NOT_YET)
        lines = [(series.steps, present(series.mean, 1)) for series in told]
        turned = angles(trace, arm, at)
        missed |= len(told[0].steps) > 1 and (not len(turned[0]) or turned[0][0] > told[0].steps[0] + 1)
        for column, (steps, y) in enumerate((*lines, turned), 1):
            name = style.label(trace, arm)
            figure.add_scatter(
                x=style.numbers(steps), y=style.numbers(np.where(y > 0, y, np.nan)), mode="lines", name=name,
                legendgroup=name, showlegend=column == 1, line={"color": style.color(arm), "dash": style.dash(arm)},
                hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{name}</extra>", row=1, col=column,
            )  # fmt: skip
    titled(figure, "step", "‖W‖", "update ratio ‖ΔW‖/‖W‖", "angle of an update in degrees")
    figure.update_yaxes(type="linear", row=1, col=1)
    note = (
        f"Layer {layer}. The angle between W before and after an update follows exactly from both norms and ‖ΔW‖, by "
        "the law of cosines. Right before a norm, under plain gradient descent without momentum and decay, the update "
        "is at right angles to W: there ‖W‖ can only grow, and the angle, in radians, is about the update ratio."
    )
    note += " Of older steps only summaries are kept, from which no angle follows." if missed else ""
    return finished(figure, style.HEIGHT, note, *lost(trace, trace.step).values())


def angles(trace: Trace, arm: int, layer: int, points: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and degrees by which each of their updates turns a layer's weights, mean over the seeds and over the
    steps that a point stands for. Only of steps that are kept as recorded, the following one too."""
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
    angle, steps = present(angle, 1), norm.steps[here]
    edges = np.arange(0, len(steps), max(1, -(-len(steps) // points)))
    if not len(edges):
        return steps, angle
    return steps[edges], np.add.reduceat(angle, edges) / np.diff(edges, append=len(steps))


PLANE = choice(
    "plane", "Plane", "Which slice of the weights' space.", {"landscape": "random directions", "path": "along the path"}
)
LOOK = choice(
    "look", "Drawn as", "Contours or a surface that can be turned.", {"contour": "contours", "surface": "3-D surface"}
)
BESIDE = ARM._replace(name="beside", label="Beside it", help="The other arm, on the same color scale.", default="1")
TOP = LAYER._replace(default="last")  # where what is below shows most
FACTOR = Option(
    "c", "number", "Factor c", "The layer's weights and bias are multiplied by it.",
    low=FACTORS[0], high=FACTORS[-1], default="1", marks=FACTORS,
)  # fmt: skip
ABOUT = {
    "surface": About(
        "Loss surface",
        "The same slice for two arms, one color scale.",
        surface,
        (ARM, BESIDE, PLANE, LOOK, STEP),
        surface_needs,
    ),
    "invariance": About(
        "Scale invariance",
        "Flat lines: the scale of the layer's weights means nothing there.",
        invariance,
        (TOP, STEP, FACTOR),
        layered("invariance"),
    ),
    "scale_over_time": About(
        "Weight norm, update ratio and angle",
        "Growing weights below a norm lower the learning rate that counts: updates turn them less and less.",
        scale_over_time,
        (TOP,),
    ),
    "undone": About(
        "The reset that changes nothing and everything",
        "gamma and beta can undo the normalization, and yet batch norm is not undone by them.",
        undone,
        (TOP, STEP),
        layered("undo"),
    ),
}
