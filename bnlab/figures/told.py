"""What a chart shows, in numbers and words: for who cannot see it, and for who has no mouse to read its points with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from html import unescape
from itertools import product

import numpy as np
import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType

from .style import amount

GRIDS = ("heatmap", "contour", "surface")
Tell = Callable[[float], str]  # how a value is written
LOG = "log₁₀ "
FEW = 6  # points of a curve that are told one by one


def told(figure: go.Figure) -> list[str]:
    """A sentence for every row of bars, and for every curve, histogram and map of colors with a name, of those values
    that are finite. Bands have none."""
    axis = cache(partial(title, figure))
    return list(filter(None, (sentence(figure, curve, axis) for curve in figure.data)))


def sentence(figure: go.Figure, curve: BaseTraceType, axis: Callable[[str], str]) -> str:
    """What one curve shows; empty where that is nothing. `axis` has the title of each, by its name ("x2")."""
    if curve.type in GRIDS and curve.name:
        return grid(figure, curve, axis)
    if curve.type == "scatter" and curve.fill == "toself":
        return histogram(curve, axis(curve.xaxis or "x")) if curve.customdata is not None else ""
    named = curve.name and curve.hoverinfo != "skip"
    if curve.type == "bar" or (curve.type == "scatter" and (named or isinstance(curve.meta, dict))):
        return line(figure, curve, axis)
    return ""


def line(figure: go.Figure, curve: go.Scatter | go.Bar, axis: Callable[[str], str]) -> str:
    """A curve or a row of bars: its few points, or its ends, its least and its greatest point.

    Its meta says what of its arm it is, or is a dict: "what" it is, "instead" what is said of its places alone, "to"
    whether a point stands for all steps up to customdata or its first column.
    """
    meta = curve.meta if isinstance(curve.meta, dict) else {"what": curve.meta}
    x, y, across, up = curve.x, curve.y, axis(curve.xaxis or "x"), axis(curve.yaxis or "y")
    y = rows(figure, curve.yaxis or "y", y)
    if any(isinstance(value, str) for value in y[:1]):  # bars that lie, and marks in rows
        x, y, across, up = y, x, up, across
    of = " over ".join(filter(None, (up, across)))
    if "instead" in meta:
        return f"{words(curve.name)}. {of}: {meta['instead']} at {', '.join(map(number, x))}."
    y = np.asarray(y, float)  # of None it makes NaN
    there = np.flatnonzero(np.isfinite(y))
    if not there.size:
        return ""
    name = words(", ".join(filter(None, (curve.name, meta.get("what")))))
    share = "%" in (figure.layout[f"yaxis{(curve.yaxis or 'y')[1:]}"].tickformat or "")
    x, y = np.asarray(x)[there], y[there]
    last = np.asarray(curve.customdata).reshape(len(curve.x), -1)[there, 0] if meta.get("to") else x
    return f"{f'{name}. ' if name else ''}{of}: {points(x, last, y, percent if share else amount)}."


def grid(figure: go.Figure, curve: go.Heatmap | go.Contour | go.Surface, axis: Callable[[str], str]) -> str:
    """A map of colors: its corners, its least and its greatest value, each with its place; empty where all is blank."""
    if curve.type == "surface":
        scene = figure.layout[curve.scene or "scene"]
        across, up = scene.xaxis.title.text, scene.yaxis.title.text
    else:
        across, up = axis(curve.xaxis or "x"), axis(curve.yaxis or "y")
    z = np.asarray(curve.z if curve.customdata is None else curve.customdata, float)  # the latter before a logarithm
    what = words(figure.layout.coloraxis.colorbar.title.text)
    if what.startswith(LOG):
        z, what = 10**z, what.removeprefix(LOG)
    there = [at for at in dict.fromkeys(product((0, len(z) - 1), (0, z.shape[1] - 1))) if np.isfinite(z[at])]
    if not np.isfinite(z).any():
        return ""
    value = lambda i, j: f"{amount(z[i, j])} at ({number(curve.x[j])}, {number(curve.y[i])})"  # noqa: E731
    least, greatest = (value(*np.unravel_index(at, z.shape)) for at in (np.nanargmin(z), np.nanargmax(z)))
    blank = f"; {np.isnan(z).mean():.0%} of it is blank" if np.isnan(z).any() else ""
    corners = "".join(f"{value(*place)}; " for place in there)
    return f"{words(curve.name)}. {what} at ({across}, {up}): {corners}least {least}, greatest {greatest}{blank}."


def histogram(curve: go.Scatter, across: str) -> str:
    """A histogram of the middle 99 percent: where that begins and ends, and where it is highest."""
    x, share = np.asarray(curve.x, float), np.asarray(curve.customdata, float)
    most = f"{share.max():.1%} near {amount(x[share.argmax()])}"
    return f"{words(curve.name)}. {across}: the middle 99% from {amount(x[0])} to {amount(x[-1])}; highest bar {most}."


def rows(figure: go.Figure, name: str, y: Sequence) -> Sequence:
    """What stands beside marks in rows, where that is words; y elsewhere."""
    axis = figure.layout[f"yaxis{name[1:]}"]
    beside = dict(zip(axis.tickvals or (), axis.ticktext or (), strict=True))
    if not any(map(str.isalpha, "".join(map(words, beside.values())))):
        return y
    return [beside[min(beside, key=lambda place: abs(place - value))] for value in y]  # arms stand side by side in one


def points(x: np.ndarray, last: np.ndarray, y: np.ndarray, tell: Tell) -> str:
    """A curve's points, left to right, each of them from x to `last`, in words; no ends of dots that lie anywhere, and
    of the least and greatest values of some steps that are drawn at one place."""
    if not isinstance(x[0], str) and (x[1:] == x[:-1]).any():
        return extremes(x, last, y, tell).replace(" at ", " near ")
    if len(y) <= FEW or isinstance(x[0], str):
        return "; ".join(point(*one, tell) for one in zip(x, last, y, strict=True))
    if (x[1:] < x[:-1]).any():
        return extremes(x, last, y, tell)
    ends = (point(x[i], last[i], y[i], tell) for i in (0, -1))
    return f"from {' to '.join(ends)}; {extremes(x, last, y, tell)}"


def extremes(x: np.ndarray, last: np.ndarray, y: np.ndarray, tell: Tell) -> str:
    """The least and the greatest of a curve's points, in words."""
    least, greatest = (point(x[i], last[i], y[i], tell) for i in (y.argmin(), y.argmax()))
    return f"least {least}, greatest {greatest}"


def point(x: float | str, last: float | str, y: float, tell: Tell) -> str:
    """One point: 2.31 at 499; in the mean of some steps 2.31 at 496–499; or, of a name, train mode: 2.31."""
    if isinstance(x, str):
        return f"{words(x)}: {tell(y)}" if any(map(str.isalpha, x)) else f"{tell(y)} at {x}"
    return f"{tell(y)} at {number(x)}" + (f"–{number(last)}" if last != x else "")


def percent(share: float) -> str:
    """A share as its axis writes it."""
    return f"{share:.3%}" if 0 < share < 0.001 or 0.9995 <= share < 1 else f"{share:.1%}"


def number(x: float) -> str:
    """A place on an axis; those of steps and layers are whole."""
    return f"{x:,.0f}" if float(x).is_integer() and abs(x) < 1e7 else amount(x)


def title(figure: go.Figure, name: str) -> str:
    """What stands at an axis; where nothing does, as between panels that share one, at another of its row or column, or
    else of its kind."""
    own = figure.layout[f"{name[0]}axis{name[1:]}"]
    others = list(figure.select_xaxes() if name[0] == "x" else figure.select_yaxes())
    axes = [own, *(other for other in others if other.domain == own.domain), *others]
    return words(next(filter(None, (each.title.text for each in axes)), ""))


def words(text: str) -> str:
    """A text of a figure without its markup: J_{l+1}."""
    text = re.sub("<su([bp])>(.*?)</su[bp]>", lambda m: f"{'_^'[m[1] == 'p']}{{{m[2]}}}", text.replace("<br>", " "))
    return unescape(re.sub("<[^>]*>", "", re.sub(r"(?<=[_^])\{(.)\}", r"\1", text)))
