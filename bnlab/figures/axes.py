"""The axes of the figures: ticks that can be read, whole numbers where steps and layers stand, logarithmic or not."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log10

import numpy as np
import plotly.graph_objects as go


def whole(n: int) -> int | None:
    """Distance of the ticks of an axis that counts 1..n, so that they stand at whole numbers; None: plotly's choice."""
    return 1 if n <= 10 else None


def without_0(figure: go.Figure) -> bool:
    """Take the steps that a logarithmic axis has no place for off all lines; whether there were some."""
    found = False
    for line in figure.data:
        there = np.asarray(line.x) > 0
        if there.all():
            continue
        found = True
        line.update(x=line.x[there], y=line.y[there])
        if line.customdata is not None:
            line.update(customdata=line.customdata[there])
        if getattr(line, "error_y", None) is not None and line.error_y.array is not None:
            line.error_y.update(array=line.error_y.array[there], arrayminus=line.error_y.arrayminus[there])
    return found


def ticks(low: float, high: float) -> dict[str, object] | None:
    """Ticks of a logarithmic axis from low to high that can be read: powers of ten, or plain 0.2, 0.5, 1 where it spans
    little, and more where that leaves fewer than three; None where it spans so little that only plotly finds some."""
    if not high > low * 3:
        return None
    first, last = ceil(log10(low)) - 1, ceil(log10(high))
    stride = max(1, ceil((last - first) / 8))
    for mantissas in ((1, 2, 5) if last - first <= 3 else (1,), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        values = [m * 10.0**k for k in range(first // stride * stride, last + 1, stride) for m in mantissas]
        if sum(low <= v <= high for v in values) > 2:
            break
    plain = all(1e-4 < v < 2e4 for v in values if low <= v <= high)
    return {"tickvals": values, "ticktext": [tick_text(v, plain) for v in values]}


HELD = (-323, 308)  # powers of ten that a float holds
SHARE = ".1~%"  # how the ticks of a share are written: 20%, 0.5%


def tick_text(value: float, plain: bool) -> str:
    """0.02, 5, 2,000; or as a power of ten what is far from 1: numbers of one axis are written alike."""
    if plain or 1 <= value <= 10:
        return f"{value:,g}"
    mantissa, power = f"{value:.1e}".replace(".0e", "e").split("e")
    return ("" if mantissa == "1" else f"{mantissa}×") + f"10<sup>{int(power)}</sup>".replace("-", "−")


def ticked(figure: go.Figure, least: dict[str, object] | None = None) -> None:
    """Give every logarithmic axis ticks that fit what is drawn on it; `least`: where that spans too little."""
    for letter, axes in (("x", list(figure.select_xaxes())), ("y", list(figure.select_yaxes()))):
        first = {axis.plotly_name.replace("axis", ""): axis.matches for axis in axes}
        first = {name: of or name for name, of in first.items()}  # of the axes that share a range
        for axis in axes:
            if axis.type != "log" or axis.tickvals is not None:
                continue
            if axis.range is not None:
                axis.range = np.clip(axis.range, *HELD)
            name = first[axis.plotly_name.replace("axis", "")]
            there = [t for t in figure.data if f"{letter}axis" in t and t[letter] is not None]
            drawn = [t[letter] for t in there if first[t[f"{letter}axis"] or letter] == name]
            values = np.concatenate([np.array(v, float) for v in drawn]) if drawn else np.array([])
            values = values[np.isfinite(values) & (values > 0)] if axis.range is None else 10.0 ** np.array(axis.range)
            if values.size:
                other = least if axis.range is None else None  # a range that is given is one of logarithms
                one = values.min() == values.max()  # plotly shows a decade on either side, with each digit a tick
                few = {"dtick": "D2" if one else None, "tickformat": axis.tickformat or ",~g"}  # of 1, 2, 5 may be none
                axis.update(ticks(values.min(), values.max()) or other or few)
                if axis.tickformat == SHARE and axis.tickvals:
                    axis.ticktext = [f"{100 * value:,g}%" for value in axis.tickvals]


def along(figure: go.Figure, what: str) -> Iterator[tuple[list[go.layout.XAxis], np.ndarray]]:
    """The horizontal axes whose title begins with a word, each with those that share its range, and what is drawn on
    them."""
    axes = {axis.plotly_name.replace("axis", ""): axis for axis in figure.select_xaxes()}
    first = {name: axis.matches or name for name, axis in axes.items()}
    for shared in {first[name] for name, axis in axes.items() if (axis.title.text or "").startswith(what)}:
        drawn = [np.asarray(t.x, float) for t in figure.data if first[t.xaxis or "x"] == shared and t.x is not None]
        values = np.concatenate([x[np.isfinite(x)] for x in drawn]) if drawn else np.empty(0)
        yield [axis for name, axis in axes.items() if first[name] == shared], values


def stepped(figure: go.Figure) -> None:
    """Let the ticks of every horizontal axis of steps be whole numbers, where a short run leaves room for others."""
    for axes, values in along(figure, "step"):
        for axis in axes:
            if axis.type == "log" and axis.tickvals is not None:
                kept = [i for i, value in enumerate(axis.tickvals) if float(value).is_integer()]
                axis.update(tickvals=[axis.tickvals[i] for i in kept], ticktext=[axis.ticktext[i] for i in kept])
            elif axis.type != "log" and values.size and np.ptp(values) <= 10:
                axis.dtick = 1
                if not np.ptp(values):  # plotly puts a single one between two more, of which there may be none
                    axis.tickvals = [values[0]]


def of_layers(figure: go.Figure) -> None:
    """Let every horizontal axis of layers go from the first to the last that any of them has, with ticks at whole
    numbers."""
    found = list(along(figure, "layer"))
    depth = max((int(values.max()) for _, values in found if values.size), default=0)
    for axis in (axis for axes, _ in found for axis in axes if depth):
        axis.update(dtick=whole(depth), range=[0.5, depth + 0.5])


def decades(*values: np.ndarray) -> float:
    """How many powers of ten the positive ones of the values span."""
    there = np.concatenate(values)
    there = there[np.isfinite(there) & (there > 0)]
    return log10(there.max()) - log10(there.min()) if there.size else 0  # float32 has no quotient of 10³⁸ and 10⁻³⁸


def logarithmic(spanned: float) -> dict[str, object]:
    """A logarithmic axis of so many decades, with full numbers: at 1, 2 and 5, or at powers of ten."""
    dtick = None if spanned < 0.7 else "D2" if spanned < 2 else ceil(spanned / 6)
    return {"type": "log", "tickformat": ",~g", "dtick": dtick}


def positive(*values: np.ndarray) -> dict[str, object]:
    """The axis of positive values: linear within a decade, else logarithmic."""
    spanned = decades(*values)
    return {"type": "linear"} if spanned < 1 else logarithmic(spanned)
