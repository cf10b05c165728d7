"""What a chart shows, in numbers and words: for who cannot see it, and for who has no mouse to read its points with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, partial
from html import unescape

import numpy as np
import plotly.graph_objects as go

from .style import amount

FEW = 6  # points of a curve that are told one by one


def told(figure: go.Figure) -> list[str]:
    """A sentence for every curve and row of bars with a name: its few points, or its ends, its least and its greatest
    point; those that are finite. Bands, outlines and surfaces have none."""
    axis = cache(partial(title, figure))
    sentences = []
    for curve in figure.data:
        drawn = curve.type == "bar" or (curve.type == "scatter" and curve.fill != "toself")
        if drawn and curve.name and curve.hoverinfo != "skip":
            x, y, across, up = curve.x, curve.y, axis(curve.xaxis or "x"), axis(curve.yaxis or "y")
            y = rows(figure, curve.yaxis or "y", y)
            if any(isinstance(value, str) for value in y[:1]):  # bars that lie, and marks in rows
                x, y, across, up = y, x, up, across
            y = np.asarray(y, float)  # of None it makes NaN
            there = np.flatnonzero(np.isfinite(y))
            if there.size:
                of = " over ".join(filter(None, (up, across)))
                name = ", ".join(filter(None, (curve.name, curve.meta)))  # and what of its arm it is
                sentences.append(f"{words(name)}. {of}: {points(np.asarray(x)[there], y[there])}.")
    return sentences


def rows(figure: go.Figure, name: str, y: Sequence) -> Sequence:
    """What stands beside marks in rows, where that is words; y elsewhere."""
    axis = figure.layout[f"yaxis{name[1:]}"]
    beside = dict(zip(axis.tickvals or (), axis.ticktext or (), strict=True))
    worded = any(map(str.isalpha, "".join(beside.values()))) and set(y) <= set(beside)
    return [beside[value] for value in y] if worded else y


def points(x: np.ndarray, y: np.ndarray) -> str:
    """A curve's points, left to right, in words."""
    if len(y) <= FEW or isinstance(x[0], str):
        return "; ".join(map(point, x, y))
    first, last, least, greatest = (point(x[i], y[i]) for i in (0, -1, y.argmin(), y.argmax()))
    return f"from {first} to {last}; least {least}, greatest {greatest}"


def point(x: float | str, y: float) -> str:
    """One point: 2.31 at 499; or, of a name, train mode: 2.31."""
    if isinstance(x, str):
        return f"{words(x)}: {amount(y)}" if any(map(str.isalpha, x)) else f"{amount(y)} at {x}"
    return f"{amount(y)} at {f'{x:,.0f}' if float(x).is_integer() else amount(x)}"


def title(figure: go.Figure, name: str) -> str:
    """What stands at an axis; where nothing does, as between panels that share one, at another of its kind."""
    others = figure.select_xaxes() if name[0] == "x" else figure.select_yaxes()
    axes = [figure.layout[f"{name[0]}axis{name[1:]}"], *others]
    return words(next(filter(None, (each.title.text for each in axes)), ""))


def words(text: str) -> str:
    """A text of a figure without its markup."""
    return unescape(re.sub("<[^>]*>", "", text.replace("<br>", " ")))
