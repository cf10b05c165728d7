"""The loss surface: a two-dimensional slice of the loss around the weights of two arms, beside each other."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..probes.landscape import waypoints
from ..train import scheduled
from . import axes, style
from .lasting import lost
from .looks import OLD, each, finished, mode, moment, newest_snapshot
from .losses import measure, unit
from .options import ARM, STEP, About, choice

if TYPE_CHECKING:
    from ..reading import Trace

POINTS = 17  # a side of the surface
FOOT = 0.12  # share of the height at whose foot E has no tick: there stand those of the floor
CLIPPED = 0.98  # the quantile of the losses of a surface at which its colors end


def surface_needs(trace: Trace, *, step: int, plane: str, **_: object) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    if at is None or (plane == "path" and single(trace, at)):
        return []
    return [(plane, at, {"points": POINTS})]


def single(trace: Trace, at: int | None) -> bool:
    """Whether the path at a snapshot is one point."""
    return at is None or len(waypoints(trace.experiment, trace.snapshots(), at)) < 2


def surface(trace: Trace, *, step: int, plane: str, look: str, arm: int, beside: int) -> go.Figure:
    """The loss around the weights of two arms, on one color scale."""
    if plane == "path" and single(trace, moment(trace, step, plane, points=POINTS)):
        return style.said("A path needs two snapshots of the weights. Train on, or choose random directions.")
    told = each(trace, plane, step, points=POINTS)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    asked = tuple(dict.fromkeys((arm, min(beside, len(trace.experiment.arms) - 1))))
    shown = {arm: found for arm, _, found in arms if arm in asked and np.isfinite(found["loss"][0]).any()}
    if not shown:
        return style.said(f"These networks had diverged by step {at:,}. Choose an earlier step, or other arms.")
    if plane == "path" and any("step" not in found for found in shown.values()):
        return style.said(OLD)
    titles = [style.title(trace, a) + ("" if a in shown else ": diverged") for a in asked]
    solid = look == "surface"
    kind = {"type": "surface" if solid else "xy"}
    figure = make_subplots(1, len(asked), specs=[[kind] * len(asked)], subplot_titles=titles)
    figure.update_annotations(font_size=13)
    every = np.log10(np.maximum(np.concatenate([found["loss"][0].ravel() for found in shown.values()]), 1e-9))
    low, high = (float(q) for q in np.quantile(every[np.isfinite(every)], (0, CLIPPED)))
    kind_of = "direction" if plane == "landscape" else "principal direction"
    shares, nats = [], unit(trace, "loss", min(shown))
    for column, a in enumerate(asked, 1):
        here = {"row": 1, "col": column}
        if not solid:
            figure.update_xaxes(title=f"first {kind_of}", **here)
            figure.update_yaxes(title=f"second {kind_of}", **here)
        if a not in shown:
            continue
        found, name = shown[a], style.label(trace, a)
        x, y = (found["at"][0],) * 2 if plane == "landscape" else (found["across"][0], found["up"][0])
        z = np.log10(np.maximum(found["loss"][0], 1e-9))
        path = found["path"][0] if plane == "path" else np.zeros((1, 2))
        if plane == "path":
            shares.append(f"{name} {' + '.join(f'{share:.0%}' for share in found['share'][0])}")
        text = {
            "name": name,
            "customdata": found["loss"][0],
            "hovertemplate": f"loss %{{customdata:,.4g}}{nats}<extra>{name}</extra>",
        }
        marks = {
            "mode": "lines+markers", "showlegend": False, "line": {"color": "white"},
            "marker": {"color": "white", "size": 5, "line": {"color": "black", "width": 1}},
            "customdata": found.get("step", [[at]])[0],
            "hovertemplate": f"step %{{customdata:,d}}<extra>{name}</extra>",
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
    ticks, title = round_losses(10**low, 10**high), measure(trace, "loss")
    if solid:
        margin = 0.03 * (high - low) or 0.1
        floor = low + FOOT * (high - low)
        above = [(at, text) for at, text in zip(ticks["tickvals"], ticks["ticktext"], strict=True) if at > floor]
        told = dict(zip(("tickvals", "ticktext"), zip(*above, strict=True), strict=True)) if above else ticks
        figure.update_scenes(
            xaxis_title="first", yaxis_title="second", zaxis={"title": "E", **told}, aspectmode="cube",
            zaxis_range=[low - margin, high + margin], camera_eye={"x": 1.8, "y": 1.8, "z": 1.1},
        )  # fmt: skip
    bar = {"title": {"text": title, "side": "right"}, **ticks}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": bar})
    steps = found["step"][0] if plane == "path" else [at]
    there = {t for t in scheduled(trace.experiment, trace.snapshots()) if steps[0] < t < steps[-1]}
    drawn = f"{len(steps)} of the " if there - {*steps} else ""
    how = (
        "along two random directions, each unit's scaled to the norm of its own weights: 1 is as far as the weights "
        "are long (Li et al. 2018)"
        if plane == "landscape"
        else f"in the plane of the first two principal components of the path (white: {drawn}snapshots taken with "
        "scores), in distances of all parameters: weights, biases, γ and β"
    )
    if shares:
        how += f", which hold of the path's variance: {', '.join(shares)}"
    fresh = any(trace.experiment.arm_settings[a].norm == "batch" for a in shown) and "frozen" not in mode(trace)
    note = (
        f"Step {at:,}, {'the first seed, ' if len(trace.experiment.seeds) > 1 else 'seed '}"
        f"{trace.experiment.seeds[0]}: the loss of one mini-batch {how}. {mode(trace).capitalize()}"
        + (", batch norm's statistics taken anew at every point" if fresh else "")
        + f". Colors end at {style.amount(10**high)}{nats}, which {CLIPPED:.0%} of the points stay below."
    )
    return finished(figure, 480, note, *lost(trace, at).values())


def round_losses(low: float, high: float) -> dict[str, object]:
    """Ticks from low to high for an axis of their logarithms: at 1, 2 and 5, or evenly spaced where it spans little."""
    told = axes.ticks(low, high)
    if not told:
        power = 10.0 ** floor(log10((high - low) / 6 or low))
        step = power * next(m for m in (1, 2, 5, 10) if m * power * 6 >= high - low)
        values = np.arange(ceil(low / step), floor(high / step) + 1) * step
        told = {"tickvals": values, "ticktext": [f"{v:.8g}" for v in values]}
    return told | {"tickvals": np.log10(told["tickvals"])}


def between(x: np.ndarray, y: np.ndarray, z: np.ndarray, points: np.ndarray) -> np.ndarray:
    """z [y, x] on a regular grid, bilinear between its points, at points [n, 2]; NaN where these are."""
    place = [(points[:, k] - axis[0]) / (axis[-1] - axis[0]) * (len(axis) - 1) for k, axis in enumerate((x, y))]
    at = [np.clip(np.nan_to_num(q).astype(int), 0, len(axis) - 2) for q, axis in zip(place, (x, y), strict=True)]
    (i, j), (u, v) = at, (q - low for q, low in zip(place, at, strict=True))
    left, right = ((1 - v) * z[j, i + k] + v * z[j + 1, i + k] for k in (0, 1))
    return (1 - u) * left + u * right


PLANE = choice(
    "plane", "Plane", "Which slice of the weights' space.", {"landscape": "random directions", "path": "along the path"}
)
LOOK = choice(
    "look", "Drawn as", "Contours or a surface that can be turned.", {"contour": "contours", "surface": "3-D surface"}
)
BESIDE = ARM._replace(name="beside", label="Beside it", help="The other arm, on the same color scale.", default="1")
ABOUT = {
    "surface": About(
        "Loss surface",
        "The same slice for two arms, one color scale.",
        surface,
        (ARM, BESIDE, PLANE, LOOK, STEP),
        surface_needs,
    ),
}
