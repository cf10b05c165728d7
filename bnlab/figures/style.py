"""How figures look: an arm keeps its color and dash in all of them, and nothing in them depends on the page's theme.

Colors are after Okabe and Ito 2008, told apart by color-blind eyes and lightened so that they hold on white and on
black; the dash says the same once more.
"""

from __future__ import annotations

from html import escape, unescape
from itertools import combinations
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from . import axes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..reading import Trace

COLORS = ("#d5652b", "#1f86c9", "#0b9e74", "#b0649b", "#b98e00", "#7a44e5")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
GRAY = "#8a8f98"
GRID = "rgba(138, 143, 152, 0.25)"
HEIGHT = 420  # pixels
NOTHING = "No step is recorded yet."
UNSCORED = "No step is scored yet."
NO_STEPS = "This run has no steps, so there is nothing to draw. Look at its scores, or set steps above 0."


def color(arm: int) -> str:
    return COLORS[arm % len(COLORS)]


def dash(arm: int) -> str:
    return DASHES[arm % len(DASHES)]


def symbol(arm: int) -> str:
    return SYMBOLS[arm % len(SYMBOLS)]


def faded(rgb: str, opacity: float) -> str:
    """A color "#rrggbb" with an opacity."""
    r, g, b = (int(rgb[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r}, {g}, {b}, {opacity:g})"


def label(trace: Trace, arm: int) -> str:
    """An arm's label, safe for plotly."""
    return escaped(trace.experiment.arms[arm].label)


def escaped(text: str) -> str:
    """A text, safe where plotly reads HTML or puts values in, as in a hover's %{x}."""
    return escape(text, quote=False).replace("%{", "&#37;{")


def title(trace: Trace, arm: int) -> str:
    """An arm's label above a panel of its own, where there is room for two lines and a long one takes both."""
    text = trace.experiment.arms[arm].label
    lines = next(lines for width in range(22, len(text) + 23) if len(lines := wrap(text, width)) <= 2)
    return "<br>".join(map(escaped, lines))


def numbers(values: np.ndarray) -> np.ndarray:
    """As a typed array that plotly sends in few bytes: float32 where that holds all of them, or the smallest whole
    numbers that do."""
    values = np.asarray(values)
    if values.dtype.kind in "iu":
        top = int(np.abs(values).max()) if values.size else 0
        return values.astype(np.int16 if top < 2**15 else np.int32)
    size, single = np.abs(values[np.isfinite(values) & (values != 0)]), np.finfo(np.float32)
    beyond = values.dtype == float and ((size < single.tiny) | (size > single.max)).any()  # as of a hundred layers
    return values if beyond else values.astype(np.float32)


def amount(value: float, digits: int = 3) -> str:
    """A number as one would write it: 290, 1,440, 0.0399, 8.1×10⁻⁶; not finite."""
    if not np.isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        text = f"{value:,.{digits}g}"
        return f"{float(text):,.0f}" if "e+" in text else text
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{raised}"  # the sign of plotly's own ticks


def enough_digits(values: Iterable[float], fold: float, least: int = 2) -> int:
    """How many digits, `least` or more, let amount() show of any two positive values whether they differ by more than
    `fold`, for who divides them."""
    there = [float(value) for value in values if 0 < value < np.inf]

    def differ(digits: int) -> list[bool]:
        written = [float(f"{value:.{digits}g}") for value in there]
        return [max(pair) / min(pair) > fold * (1 + 1e-9) for pair in combinations(written, 2)]  # 0.33 / 0.3 > 1.1

    return next((digits for digits in range(least, 8) if differ(digits) == differ(17)), 8)


def mode(values: np.ndarray) -> str:
    """How a curve of these values is drawn: as a line, with marks where a single value would make none."""
    return "lines" if np.isfinite(values).sum() > 1 else "lines+markers"


def band(figure: go.Figure, x, low, high, rgb: str, name: str, shown: bool, opacity: float = 0.18, **place) -> None:
    """A band between low and high, one legend entry."""
    line = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "legendgroup": name}
    figure.add_scatter(x=x, y=numbers(low), showlegend=False, **line, **place)
    fill = {"fill": "tonexty", "fillcolor": faded(rgb, opacity), "name": name, "showlegend": shown}
    figure.add_scatter(x=x, y=numbers(high), **fill, **line, **place)


def reference(figure: go.Figure, y: float, name: str, column: int = 1, where: str = "end") -> None:
    """A horizontal line with its name, in a column of the uppermost row: the theory, chance, the healthy value.

    where: the name stands at the line's start, middle or end; above it, or below where it would be cut off above. So
    the axis and what is drawn on it come first.
    """
    axis = "" if column == 1 else column
    side = "bottom" if above(figure, y, f"y{axis}") > 0.05 else "top"
    figure.add_shape(  # a quarter of the cost of add_hline, and right on a logarithmic axis
        type="line", x0=0, x1=1, xref=f"x{axis} domain", y0=y, y1=y, yref=f"y{axis}",
        line={"color": GRAY, "width": 1, "dash": "dot"},
        label={"text": name, "textposition": where, "yanchor": side, "font": {"size": 11}},
    )  # fmt: skip


def free_end(curves: Iterable[np.ndarray], y: float) -> str:
    """At which end fewer curves, [points] each from one end to the other, run right above y, where a reference() has
    its name; curves and y as the axis shows them, of a logarithmic one the logarithms."""
    along = np.linspace(0, 1, 50)
    off = [np.where(np.isfinite(one), np.subtract(one, y), 0) for one in curves]
    off = np.array([np.interp(along, np.linspace(0, 1, len(one)), one) for one in off])
    taken = (off > 0.02 * np.ptp(off)) & (off < 0.1 * np.ptp(off))  # less than that is on the line
    return "start" if taken[:, :10].sum() < taken[:, -10:].sum() else "end"


def above(figure: go.Figure, y: float, name: str) -> float:
    """Which share of a vertical axis lies above a value; plotly, where it chooses the range, leaves a twentieth of it
    above the highest point, though not above a line."""
    axis = figure.layout[name.replace("y", "yaxis")]
    drawn = [np.asarray(t.y, float) for t in figure.data if (t.yaxis or "y") == name and t.y is not None]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.concatenate([[y], *drawn])
        here, *others = np.log10(values) if axis.type == "log" else values
    there = np.array(others)[np.isfinite(others)]
    if axis.range is None and not there.size:
        return 0.5
    low, high = axis.range or (min(there.min(), here), max(there.max() + 0.05 * np.ptp(there), here))
    return (high - here) / (high - low) if high > low else 0.5


AXIS = {"gridcolor": GRID, "linecolor": GRAY, "zeroline": False, "automargin": True}
AXIS |= {"exponentformat": "power", "separatethousands": True}  # 20,000
LOOK = go.layout.Template(  # set at once: property by property costs four times as much, at every update of every chart
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 64, "r": 16, "t": 36, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"}
        | {"itemwidth": 45},  # two long dashes and their gap
        "hoverlabel": {"namelength": -1},
        "xaxis": AXIS | {"minexponent": 6},  # steps are whole numbers
        "yaxis": AXIS,
    }
)


def finished(figure: go.Figure, height: int = HEIGHT, note: str = "") -> go.Figure:
    """Give a figure what all have in common. `note`: a sentence for below the chart, kept in layout.meta as plain text;
    arms in it are called by label()."""
    axes.ticked(figure)
    axes.stepped(figure)
    axes.of_layers(figure)
    figure.update_layout(template=LOOK, height=height, meta={"note": unescape(note)})
    return figure


def said(text: str, height: int = 260) -> go.Figure:
    """An empty figure that says in words why it is empty; `height` of what will take its place.

    The page takes the words from layout.meta and wraps them; the annotation is for who looks at the figure elsewhere.
    """
    figure = go.Figure()
    figure.add_annotation(text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 15})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    finished(figure, height=height)
    figure.layout.meta["said"] = unescape(text.replace("<br>", " "))
    return figure


def nothing(trace: Trace) -> str:
    """Why a run has no steps to draw, as a sentence; empty where it has some."""
    return NOTHING if trace.step < 0 else NO_STEPS if trace.experiment.settings.steps == 0 else ""
