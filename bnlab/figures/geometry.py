"""Jacobians, ranks, the loss surface, scale invariance and the norm undone by its own gamma and beta."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..probes.invariance import FACTORS
from ..probes.jacobian import EXAMPLES, WIDEST
from . import style
from .looks import ALL_LOST, NOT_YET, finished, line, lost, missing, mode, newest, newest_snapshot, present, wholly
from .options import ARM, LAYER, STEP, About, Option, choice
from .predicted import of

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings

POINTS = 17  # a side of the surface
SINGULAR = 1e-12  # least over greatest singular value, below which rounding is all that is left of the least
CLIPPED = 0.98  # the quantile of the losses of a surface at which its colors end


def each(trace: Trace, probe: str, step: int, **options: object):
    """The step and (arm, label, what the probe saw) of every arm that had not wholly diverged, or the figure that says
    why there is nothing."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    found = {arm: trace.look(probe, arm, at, **options) for arm in range(len(trace.experiment.arms))}
    for one in found.values():
        if wrong := missing(one):
            return wrong
    left = [(arm, style.label(trace, arm), one) for arm, one in found.items() if not wholly(trace, arm, at)]
    return (at, left) if left else style.said(ALL_LOST.format(at))


def titled(figure: go.Figure, across: str, *up: str, log: bool = True) -> None:
    for column, title in enumerate(up, 1):
        figure.update_xaxes(title=across, row=1, col=column)
        figure.update_yaxes(title=title, row=1, col=column)
        if log:
            figure.update_yaxes(type="log", row=1, col=column)


def jacobians(trace: Trace, *, step: int) -> go.Figure:
    """Singular values of each layer's Jacobian and of the products to the top."""
    told = each(trace, "jacobian", step)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(1, 3, horizontal_spacing=0.1)
    for arm, name, found in arms:
        layers = np.arange(1, found["training"].shape[1] + 1)
        for column, (key, x) in enumerate((("layer", layers + 1), ("product", layers)), 1):
            q = directions(found[key])
            floor = np.nanmin(np.where(q > 0, q, np.nan), initial=1.0)
            low, high = (np.maximum(q[:, i], floor) for i in (1, 3))
            style.band(figure, x, low, high, style.color(arm), name, False, opacity=0.08, row=1, col=column)
            line(figure, x, q[:, 2], name, arm, column, style.dash(arm), column == 1)
            line(figure, x, q[:, 4], name, arm, column, "dot", False)
        line(figure, layers, present(found["training"]), name, arm, 3, style.dash(arm), False)
        if at == 0 and (law := product_law(trace.experiment.arm_settings[arm])) is not None:
            figure.add_scatter(
                x=layers, y=law, mode="markers", marker={"color": style.color(arm), "symbol": "circle-open", "size": 6},
                legendgroup=name, showlegend=False, row=1, col=3,
                hovertemplate=f"layer %{{x}}: %{{y:.3g}}<extra>{name}, by the law</extra>",
            )  # fmt: skip
    inference = "single examples, inference mode"
    titled(
        figure, "layer l", f"singular values of J<sub>l</sub>, {inference}",
        f"of J<sub>L</sub> … J<sub>l+1</sub>, {inference}", f"their root mean square, {mode(trace)}",
    )  # fmt: skip
    if np.isnan([found["layer"] for *_, found in arms]).all():
        exact = f"Layers wider than {WIDEST} units are not taken apart one by one: only the right panel is measured."
    else:
        spans = ", ".join(f"{name} {stretch(found)}" for _, name, found in arms)
        conditions = [f"{name} {condition(found)}" for _, name, found in arms]
        exact = (
            f"Inference mode: exact, of {EXAMPLES} examples; median, middle half and greatest (dotted); no median "
            "where half of the directions are lost. "
            f"Greatest over median from layer 1 to the top: {spans}. "
            f"Condition number (greatest over least) of a layer, median: {', '.join(conditions)}."
        )
        if any("singular" in words for words in conditions):
            exact += (
                " Singular: a direction is lost, as behind a unit without a slope, or by layer norm, which does not "
                "see the mean and the length of its input."
            )
    coupled = (
        "Right: batch norm couples the examples, so the Jacobian is that of the whole mini-batch, looked at with "
        "random vectors."
    )
    if at == 0:
        coupled += " Rings: the law of random initial networks, the factors of the signal gradient multiplied."
    frozen = mode(trace).startswith("training with frozen")
    return finished(figure, 440, f"Step {at}.", exact, "" if frozen else coupled, *lost(trace, at).values())


def product_law(settings: Settings) -> np.ndarray | None:
    """Root mean square singular value of J_L ... J_{l+1} in the initial network, l = 1..L-1, by the theory: the layers'
    growth factors multiplied. None where the averages are frozen, about which it says nothing."""
    if settings.statistics == "moving":
        return None
    growth, profile = of(settings)
    return profile.signal_norm[1:] * growth.signal_norm


def directions(quantiles: np.ndarray) -> np.ndarray:
    """Quantiles of singular values, mean over the seeds, [n, 5]; 0 where only rounding is left of them."""
    q = present(quantiles)
    return np.where(q < SINGULAR * q[:, 4:], 0.0, q)


def stretch(found: dict[str, np.ndarray]) -> str:
    """Greatest over median singular value of the product from layer 1 to the top."""
    top = directions(found["product"])[0]
    if not top[4] > 0:
        return "nothing passes"
    return f"{top[4] / top[2]:.2g}" if top[2] > 0 else "half of the directions are lost"


def condition(found: dict[str, np.ndarray]) -> str:
    """Greatest over least singular value of a layer, the median layer's."""
    least, greatest = (directions(found["layer"])[:, i] for i in (0, 4))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nanmedian(least / greatest)
    return f"{1 / share:.2g}" if share > 0 else "singular"


def ranks(trace: Trace, *, step: int) -> go.Figure:
    """Effective rank and mean cosine of the layers' outputs."""
    told = each(trace, "rank", step)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    for arm, name, found in arms:
        layers = np.arange(1, found["rank"].shape[1] + 1)
        line(figure, layers, present(found["rank"]), name, arm, 1, style.dash(arm), True, log=False)
        line(figure, layers, present(found["cosine"]), name, arm, 2, style.dash(arm), False, log=False)
    titled(figure, "layer l", "effective rank", "mean cosine of two examples", log=False)
    note = f"Step {at}, the coming mini-batch, {mode(trace)}. Rank 1, cosine 1: all examples lie on one line."
    return finished(figure, style.HEIGHT, note, *lost(trace, at).values())


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
    kind = "surface" if look == "surface" else "xy"
    figure = make_subplots(1, 2, specs=[[{"type": kind}] * 2], subplot_titles=titles)
    every = np.log10(np.maximum(np.concatenate([found["loss"][0].ravel() for found in shown.values()]), 1e-9))
    low, high = (float(q) for q in np.quantile(every[np.isfinite(every)], (0, CLIPPED)))
    across, up = (
        ("first direction (in the weights' own norms, unit by unit)", "second direction (likewise)")
        if plane == "landscape"
        else ("first principal direction (distance ‖ΔW‖)", "second principal direction (‖ΔW‖)")
    )
    for column, a in enumerate(asked, 1):
        if kind == "xy":
            figure.update_xaxes(title=across, row=1, col=column)
            figure.update_yaxes(title=up, row=1, col=column)
        if a not in shown:
            continue
        found, name = shown[a], style.label(trace, a)
        x, y = (found["at"][0],) * 2 if plane == "landscape" else (found["across"][0], found["up"][0])
        z = np.log10(np.maximum(found["loss"][0], 1e-9))
        text = {"customdata": found["loss"][0], "hovertemplate": f"loss %{{customdata:.4g}}<extra>{name}</extra>"}
        if look == "surface":
            figure.add_surface(x=x, y=y, z=np.clip(z, low, high), coloraxis="coloraxis", **text, row=1, col=column)
            continue
        figure.add_contour(
            x=x, y=y, z=z, coloraxis="coloraxis", contours={"start": low, "end": high, "size": (high - low) / 14 or 1},
            line={"width": 0.6}, **text, row=1, col=column,
        )  # fmt: skip
        path = found["path"][0] if plane == "path" else np.zeros((1, 2))
        figure.add_scatter(
            x=style.numbers(path[:, 0]), y=style.numbers(path[:, 1]), mode="lines+markers", showlegend=False,
            marker={"color": "white", "size": 5, "line": {"color": "black", "width": 1}}, line={"color": "white"},
            hovertemplate="snapshot %{pointNumber}<extra></extra>", row=1, col=column,
        )  # fmt: skip
    if look == "surface":
        figure.update_scenes(xaxis_title="first direction", yaxis_title="second direction", zaxis_title="log₁₀ E")
    bar = {"title": {"text": "log₁₀ E", "side": "right"}, "tickformat": ".2f"}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": bar})
    how = (
        "along two random directions, each unit's scaled to the norm of its own weights: 1 is as far as the weights "
        "are long (Li et al. 2018)"
        if plane == "landscape"
        else "in the plane that holds most of the path of the recorded snapshots (white; its principal components)"
    )
    fresh = any(trace.experiment.arm_settings[a].norm == "batch" for a in shown) and "frozen" not in mode(trace)
    note = (
        f"Step {at}, seed {trace.experiment.seeds[0]}: the loss of one mini-batch {how}. {mode(trace).capitalize()}"
        + (", batch norm's statistics taken anew at every point" if fresh else "")
        + f". Colors end at {10**high:.3g}, which {CLIPPED:.0%} of the points stay below."
    )
    gone = lost(trace, at)
    return finished(figure, 480, note, *(gone[a] for a in dict.fromkeys(asked) if a in gone))


def layered(probe: str):
    """The need of a figure that looks at the layer of its option."""

    def needs(trace: Trace, *, step: int, layer: int, **_: object) -> list[tuple[str, int, dict]]:
        at = newest_snapshot(trace, step)
        return [(probe, at, {"layer": layer})] if at is not None else []

    return needs


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
        loss, gradient, rate = (present(found[key]) for key in ("loss", "gradient", "rate"))
        fixed = invariant(settings)
        for column, values in enumerate((loss, gradient, rate if fixed else np.full_like(rate, np.nan)), 1):
            line(figure, factors, values, name, arm, column, style.dash(arm), column == 1)
            figure.add_scatter(
                x=factors[[here]], y=style.numbers(values[[here]]), mode="markers", showlegend=False, legendgroup=name,
                marker={"color": style.color(arm), "symbol": f"{style.symbol(arm)}-open", "size": 15},
                hoverinfo="skip", row=1, col=column,
            )  # fmt: skip
        effective = f", η/‖W‖² {rate[here]:.3g}" if fixed else ""
        numbers.append(f"{name}: loss {loss[here]:.4g}, ‖dE/dW‖ {gradient[here]:.3g}{effective}.")
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
    return finished(figure, style.HEIGHT, note, *numbers, *moves, law, update, *lost(trace, at).values())


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
        line(figure, layers, present(found["gradient_with"]), f"{name}, norm undone", arm, 1, "solid", True)
        line(figure, layers, present(found["gradient_without"]), f"{name}, no norm there", arm, 1, "dot", True)
        line(figure, layers, present(found["cosine"]), name, arm, 2, style.dash(arm), False, log=False)
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
    return finished(figure, style.HEIGHT, note, *words, *lost(trace, at).values())


def scale_over_time(trace: Trace, *, layer: int) -> go.Figure:
    """Weight norm and relative update of one layer over the training."""
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    for arm, settings in enumerate(trace.experiment.arm_settings):
        for column, quantity in enumerate(("weight_norm", "update_ratio"), 1):
            try:
                series = trace.read(quantity, arm, layer=min(layer, settings.depth), points=300)
            except KeyError:
                return style.said(NOT_YET)
            y, name = present(series.mean, 1), style.label(trace, arm)
            figure.add_scatter(
                x=style.numbers(series.steps), y=style.numbers(np.where(y > 0, y, np.nan)), mode="lines", name=name,
                legendgroup=name, showlegend=column == 1, line={"color": style.color(arm), "dash": style.dash(arm)},
                hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{name}</extra>", row=1, col=column,
            )  # fmt: skip
    titled(figure, "step", "‖W‖", "update ratio ‖ΔW‖/‖W‖")
    figure.update_yaxes(type="linear", row=1, col=1)
    note = (
        f"Layer {layer}. The update ratio is about the angle, in radians, by which an update turns the weights where "
        "it is at right angles to them: right before a norm, under plain gradient descent without momentum and decay. "
        "There ‖W‖ can only grow."
    )
    return finished(figure, style.HEIGHT, note, *lost(trace, trace.step).values())


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
    "jacobians": About(
        "Jacobians",
        "dE/dw of layer 1 holds the product of all later layers' Jacobians: below 1 it vanishes, above 1 it explodes.",
        jacobians,
        (STEP,),
        newest("jacobian"),
    ),
    "ranks": About(
        "Rank of the representations",
        "Do deep layers still tell the examples apart?",
        ranks,
        (STEP,),
        newest("rank"),
    ),
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
        "Weight norm and update ratio",
        "Growing weights below a norm lower the learning rate that counts.",
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
