"""Jacobians, ranks, the loss surface, scale invariance and the norm undone by its own gamma and beta."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from . import style
from .contest import line, newest
from .inference import NOT_YET, missing, newest_snapshot
from .options import ARM, LAYER, STEP, About, choice

if TYPE_CHECKING:
    from ..reading import Trace

POINTS = 17  # a side of the surface


def each(trace: Trace, probe: str, step: int, **options: object):
    """(arm, label, what the probe saw) of every arm, or the figure that says why there is nothing."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    found = [trace.look(probe, arm, at, **options) for arm in range(len(trace.experiment.arms))]
    for one in found:
        if wrong := missing(one):
            return wrong
    return at, [(arm, style.label(trace, arm), one) for arm, one in enumerate(found)]


def titled(figure: go.Figure, across: str, *up: str, log: bool = True) -> None:
    for column, title in enumerate(up, 1):
        figure.update_xaxes(title=across, row=1, col=column)
        figure.update_yaxes(title=title, row=1, col=column)
        if log:
            figure.update_yaxes(type="log", exponentformat="power", row=1, col=column)


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
            q = found[key].mean(0)
            style.band(
                figure,
                x,
                np.maximum(q[:, 1], 1e-30),
                np.maximum(q[:, 3], 1e-30),
                style.color(arm),
                name,
                False,
                row=1,
                col=column,
            )
            line(figure, x, q[:, 2], name, arm, column, style.dash(arm), column == 1)
            line(figure, x, q[:, 4], name, arm, column, "dot", False)
        line(figure, layers, found["training"].mean(0), name, arm, 3, style.dash(arm), False)
    titled(
        figure, "layer l", "singular values of J<sub>l</sub>, inference mode",
        "of J<sub>L</sub> … J<sub>l+1</sub>, inference mode",
        "root mean square of them, training mode",
    )  # fmt: skip
    single = [(name, np.nanmedian(q["layer"][..., 4] / np.maximum(q["layer"][..., 0], 1e-30))) for _, name, q in arms]
    conditions = ", ".join(f"{name} {value:.2g}" for name, value in single)
    tops = [(name, q["product"].mean(0)[0]) for _, name, q in arms]
    ratio = ", ".join(f"{name} {top[4] / max(top[2], 1e-30):.2g}" for name, top in tops)
    note = (
        f"Step {at}. Inference mode: exact, of single examples; median, middle half, and greatest (dotted). "
        "Training mode: "
        "batch norm couples the examples, so the Jacobian is that of the whole mini-batch, looked at with random "
        "vectors. "
        f"Greatest over median singular value from layer 1 to the top: {ratio}. "
        f"Condition number (greatest over least) of a single layer, median: {conditions}."
    )
    return style.finished(figure, height=440, note=note)


def ranks(trace: Trace, *, step: int) -> go.Figure:
    """Effective rank and mean cosine of the layers' outputs."""
    told = each(trace, "rank", step)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    for arm, name, found in arms:
        layers = np.arange(1, found["rank"].shape[1] + 1)
        line(figure, layers, found["rank"].mean(0), name, arm, 1, style.dash(arm), True)
        figure.add_scatter(
            x=layers, y=style.numbers(found["cosine"].mean(0)), name=name, legendgroup=name, showlegend=False,
            mode="lines+markers", line={"color": style.color(arm), "dash": style.dash(arm), "width": 1.6},
            marker={"symbol": style.symbol(arm), "size": 6},
            hovertemplate=f"layer %{{x}}: %{{y:.3f}}<extra>{name}</extra>", row=1, col=2,
        )  # fmt: skip
    titled(figure, "layer l", "effective rank", "mean cosine of two examples", log=False)
    note = (
        f"Step {at}, the coming mini-batch in training mode. Rank 1 and cosine 1: the layer maps all examples to "
        "one line."
    )
    return style.finished(figure, note=note)


def surface_needs(trace: Trace, *, step: int, plane: str, **_: object) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    return [(plane, at, {"points": POINTS})] if at is not None else []


def surface(trace: Trace, *, step: int, plane: str, look: str, arm: int, beside: int) -> go.Figure:
    """The loss around the weights of two arms, on one color scale."""
    told = each(trace, plane, step, points=POINTS)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    pair = [arms[arm], arms[min(beside, len(arms) - 1)]]
    kind = "surface" if look == "surface" else "xy"
    figure = make_subplots(1, 2, specs=[[{"type": kind}] * 2], subplot_titles=[name for _, name, _ in pair])
    every = np.log10(np.maximum(np.concatenate([found["loss"][0].ravel() for _, _, found in pair]), 1e-9))
    low, high = (float(q) for q in np.nanquantile(every[np.isfinite(every)], (0, 0.98)))
    for column, (_, name, found) in enumerate(pair, 1):
        x = found["at"][0] if plane == "landscape" else found["across"][0]
        y = found["at"][0] if plane == "landscape" else found["up"][0]
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
        figure.update_xaxes(title="first direction", row=1, col=column)
        figure.update_yaxes(title="second direction", row=1, col=column)
    if look == "surface":
        axes = {"xaxis_title": "first", "yaxis_title": "second", "zaxis_title": "log₁₀ E"}
        figure.update_scenes(**axes)
    bar = {"title": {"text": "log₁₀ E", "side": "right"}}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": bar})
    how = (
        "along two random directions, each unit's scaled to the norm of its own weights (Li et al. 2018)"
        if plane == "landscape"
        else "in the plane that holds most of the path of the recorded snapshots (white; its principal components)"
    )
    note = (
        f"Step {at}: the loss of one mini-batch {how}. Training mode, batch norm's statistics taken anew at "
        "every point."
    )
    return style.finished(figure, height=480, note=note)


def layered(probe: str):
    """The need of a figure that looks at the layer of its option."""

    def needs(trace: Trace, *, step: int, layer: int) -> list[tuple[str, int, dict]]:
        at = newest_snapshot(trace, step)
        return [(probe, at, {"layer": layer})] if at is not None else []

    return needs


def invariance(trace: Trace, *, step: int, layer: int) -> go.Figure:
    """One layer's weights multiplied by c: loss, gradient, effective learning rate."""
    told = each(trace, "invariance", step, layer=layer)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(1, 3, horizontal_spacing=0.1)
    for arm, name, found in arms:
        for column, key in enumerate(("loss", "gradient", "rate"), 1):
            line(figure, found["factor"][0], found[key].mean(0), name, arm, column, style.dash(arm), column == 1)
    titled(figure, "c", "loss E", "‖dE/dW‖ of the layer", "η/‖W‖²")
    figure.update_xaxes(type="log", exponentformat="power")
    turned = ", ".join(f"{name} {q['angle'].mean(0)[min(layer, q['angle'].shape[1]) - 1]:.2g}°" for _, name, q in arms)
    note = (
        f"Step {at}, weights and bias of layer {layer} times c. Below a norm the loss does not move (but for δ), "
        "and the "
        "gradient falls as 1/c: what counts is η/‖W‖² (van Laarhoven 2017). The coming update turns the weights "
        f"by {turned}."
    )
    return style.finished(figure, note=note)


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
        line(figure, layers, found["gradient_with"].mean(0), f"{name}, norm undone", arm, 1, "solid", True)
        line(figure, layers, found["gradient_without"].mean(0), f"{name}, no norm there", arm, 1, "dot", True)
        figure.add_scatter(
            x=layers, y=style.numbers(found["cosine"].mean(0)), showlegend=False, mode="lines+markers",
            line={"color": style.color(arm)}, marker={"symbol": style.symbol(arm)},
            hovertemplate=f"layer %{{x}}: %{{y:.3f}}<extra>{name}</extra>", row=1, col=2,
        )  # fmt: skip
        losses.append(f"{name} {found['loss_with'].mean():.6g} and {found['loss_without'].mean():.6g}")
    titled(figure, "layer l", "‖dE/dW‖")
    figure.update_xaxes(title="layer l", row=1, col=2)
    figure.update_yaxes(title="cosine of the two gradients", row=1, col=2)
    note = (
        f"Step {at}: in layer {layer} γ = √(σ² + δ) and β = μ of the mini-batch, so that the norm gives back "
        "what came in. "
        f"The loss is that of a network without the norm there ({'; '.join(losses)}), but from that layer down "
        "the gradients "
        "differ: μ and σ still depend on the weights below. What changes is the path of learning."
    )
    return style.finished(figure, note=note)


def scale_over_time(trace: Trace, *, layer: int) -> go.Figure:
    """Weight norm and relative update of one layer over the training."""
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    for arm in range(len(trace.experiment.arms)):
        for column, quantity in enumerate(("weight_norm", "update_ratio"), 1):
            try:
                series = trace.read(
                    quantity, arm, layer=min(layer, trace.experiment.arm_settings[arm].depth), points=300
                )
            except KeyError:
                return style.said(NOT_YET)
            y, name = series.mean.mean(1), style.label(trace, arm)
            figure.add_scatter(
                x=style.numbers(series.steps), y=style.numbers(np.where(y > 0, y, np.nan)), mode="lines", name=name,
                legendgroup=name, showlegend=column == 1, line={"color": style.color(arm), "dash": style.dash(arm)},
                hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{name}</extra>", row=1, col=column,
            )  # fmt: skip
    titled(figure, "step", "‖W‖", "‖ΔW‖/‖W‖ (radians turned, below a norm)")
    figure.update_yaxes(type="linear", row=1, col=1)
    note = (
        f"Layer {layer}. Below a norm each unit's weights are at right angles to their gradient, so ‖W‖ can only "
        "grow under "
        "plain gradient descent, and the relative update is the angle it turns the weights by."
    )
    return style.finished(figure, note=note)


PLANE = choice(
    "plane", "Plane", "Which slice of the weights' space.", {"landscape": "random directions", "path": "along the path"}
)
LOOK = choice(
    "look", "Drawn as", "Contours or a surface that can be turned.", {"contour": "contours", "surface": "3-D surface"}
)
BESIDE = ARM._replace(name="beside", label="Beside it", help="The other arm, on the same color scale.", default="1")
ABOUT = {
    "jacobians": About(
        "Jacobians",
        "dE/dw of layer 1 holds the product of all later layers' Jacobians: values below 1 make it vanish, above "
        "1 explode.",
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
        (LAYER, STEP),
        layered("invariance"),
    ),
    "scale_over_time": About(
        "Weight norm and angle per update",
        "Growing weights below a norm lower the learning rate that counts.",
        scale_over_time,
        (LAYER,),
    ),
    "undone": About(
        "The reset that changes nothing and everything",
        "gamma and beta can undo the normalization, and yet batch norm is not undone by them.",
        undone,
        (LAYER, STEP),
        layered("undo"),
    ),
}
