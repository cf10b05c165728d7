"""The loss surface: a two-dimensional slice of the loss around the weights of two arms, beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor, log10
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..probes.landscape import waypoints
from ..problems import series
from ..train import scheduled
from . import axes, style
from .lasting import lost
from .looks import OLD, each, finished, look_step, newest_snapshot
from .losses import measure, unit
from .options import ARM, STEP, Plot, choice

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


class Slice(NamedTuple):
    """The loss of one arm over a plane and its logarithm z, [y, x], and the path in it [n, 2] with its steps [n]."""

    name: str
    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    z: np.ndarray
    path: np.ndarray
    steps: Sequence[int]


def sliced(name: str, found: dict[str, np.ndarray], at: int) -> Slice:
    """The Slice from what a probe saw of an arm at step `at`: in random directions the path is the point itself."""
    loss = found["loss"][0]
    z = np.log10(np.maximum(loss, 1e-9))
    if "path" in found:
        return Slice(name, found["across"][0], found["up"][0], loss, z, found["path"][0], found["step"][0])
    return Slice(name, found["at"][0], found["at"][0], loss, z, np.zeros((1, 2)), [at])


def surface(trace: Trace, *, step: int, plane: str, look: str, arm: int, beside: int) -> go.Figure:
    """The loss around the weights of two arms, on one color scale."""
    if plane == "path" and single(trace, look_step(trace, step, plane, points=POINTS)):
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
    slices = {a: sliced(style.label(trace, a), shown[a], at) for a in asked if a in shown}
    low, high = color_range(slices.values())
    nats = unit(trace, "loss", min(shown))
    solid = look == "surface"
    titles = [style.title(trace, a) + ("" if a in shown else ": diverged") for a in asked]
    kind = {"type": "surface" if solid else "xy"}
    figure = make_subplots(1, len(asked), specs=[[kind] * len(asked)], subplot_titles=titles)
    figure.update_annotations(font_size=13)
    for a, one in slices.items():
        for drawn in (solid_slice if solid else contours)(one, low, high, nats):
            figure.add_trace(drawn, row=1, col=asked.index(a) + 1)
    ticks = round_losses(10**low, 10**high)
    if solid:
        update_scenes(figure, ticks, low, high)
    else:
        direction = "direction" if plane == "landscape" else "principal direction"
        figure.update_xaxes(title=f"first {direction}")
        figure.update_yaxes(title=f"second {direction}")
    bar = {"title": {"text": measure(trace, "loss"), "side": "right"}, **ticks}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": bar})
    how = along_path(trace, shown, slices) if plane == "path" else RANDOM
    fresh = any(trace.experiment.arm_settings[a].norm == "batch" for a in shown)
    fresh &= "moving" not in trace.experiment.statistics
    note = (
        f"Step {at:,}, {'the first seed, ' if len(trace.experiment.seeds) > 1 else 'seed '}"
        f"{trace.experiment.seeds[0]}: the loss of one mini-batch {how}. {trace.experiment.training_mode.capitalize()}"
        + (", batch norm's statistics taken anew at every point" if fresh else "")
        + f". Colors end at {style.amount(10**high)}{nats}, which {CLIPPED:.0%} of the points stay below."
    )
    return finished(figure, 480, note, *lost(trace, at).values())


def color_range(slices: Iterable[Slice]) -> tuple[float, float]:
    """Where the colors begin and end, as logarithms."""
    every = np.concatenate([one.z.ravel() for one in slices])
    low, high = np.quantile(every[np.isfinite(every)], (0, CLIPPED))
    return float(low), float(high)


def hover(one: Slice, nats: str) -> dict[str, object]:
    """What is said below the mouse of a slice."""
    return {
        "name": one.name,
        "customdata": one.loss,
        "hovertemplate": f"loss %{{customdata:,.4g}}{nats}<extra>{one.name}</extra>",
    }


def marks(one: Slice, **marker: object) -> dict[str, object]:
    """How its path is drawn."""
    return {
        "mode": "lines+markers", "showlegend": False,
        "marker": {"color": "white", "size": 5, "line": {"color": "black", "width": 1}} | marker,
        "customdata": one.steps,
        "hovertemplate": f"step %{{customdata:,d}}<extra>{one.name}</extra>",
    }  # fmt: skip


def contours(one: Slice, low: float, high: float, nats: str) -> tuple[go.Contour, go.Scatter]:
    """A slice and its path, seen from above."""
    levels = {"start": low, "end": high, "size": (high - low) / 14 or 1}
    x, y = one.path.T
    return (
        go.Contour(
            x=one.x, y=one.y, z=one.z, coloraxis="coloraxis", contours=levels, line={"width": 0.6}, **hover(one, nats)
        ),
        go.Scatter(x=style.numbers(x), y=style.numbers(y), line={"color": "white"}, **marks(one)),
    )


def solid_slice(one: Slice, low: float, high: float, nats: str) -> tuple[go.Surface, go.Scatter3d]:
    """A slice and its path, a little above it."""
    z = np.clip(one.z, low, high)
    height = np.clip(between(one.x, one.y, one.z, one.path), low, high) + 0.01 * (high - low)
    x, y = one.path.T
    return (
        go.Surface(x=one.x, y=one.y, z=z, coloraxis="coloraxis", **hover(one, nats)),
        go.Scatter3d(x=x, y=y, z=height, line={"color": "white", "width": 4}, **marks(one, size=3)),
    )


def update_scenes(figure: go.Figure, ticks: dict[str, object], low: float, high: float) -> None:
    """Give every scene its axes and a camera."""
    margin = 0.03 * (high - low) or 0.1
    floor = low + FOOT * (high - low)
    above = [(at, text) for at, text in zip(ticks["tickvals"], ticks["ticktext"], strict=True) if at > floor]
    told = dict(zip(("tickvals", "ticktext"), zip(*above, strict=True), strict=True)) if above else ticks
    figure.update_scenes(
        xaxis_title="first", yaxis_title="second", zaxis={"title": "E", **told}, aspectmode="cube",
        zaxis_range=[low - margin, high + margin], camera_eye={"x": 1.8, "y": 1.8, "z": 1.1},
    )  # fmt: skip


RANDOM = (
    "along two random directions, each unit's scaled to the norm of its own weights: 1 is as far as the weights "
    "are long (Li et al. 2018)"
)


def along_path(trace: Trace, shown: dict[int, dict[str, np.ndarray]], slices: dict[int, Slice]) -> str:
    """What plane the path of training lies in, and how much of the path it holds."""
    *_, last = slices.values()
    first, *_, newest = last.steps
    passed = {t for t in scheduled(trace.experiment, trace.snapshots()) if first < t < newest}
    drawn = f"{len(last.steps)} of the " if passed - {*last.steps} else ""
    shares = [f"{one.name} {' + '.join(f'{share:.0%}' for share in shown[a]['share'][0])}" for a, one in slices.items()]
    return (
        f"in the plane of the first two principal components of the path (white: {drawn}snapshots taken with "
        "scores), in distances of all parameters: weights, biases, γ and β, which hold of the path's variance: "
        f"{series(shares)}"
    )


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
PLOTS = {
    "surface": Plot(
        "Loss surface",
        "The same slice for two arms, one color scale.",
        surface,
        (ARM, BESIDE, PLANE, LOOK, STEP),
        surface_needs,
    ),
}
