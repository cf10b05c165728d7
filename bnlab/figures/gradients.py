"""How the gradient flows: norm against layer, and over time."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from . import axes, style
from .lasting import bounds, departed, lasting, ruled
from .means import geometric_norm
from .options import AXIS, STEP, Plot, choice, no_steps
from .points import spanning, uneven, when_of_arms
from .smoothing import width
from .style import NOTHING, nothing
from .verdict import RECENT, spoken

if TYPE_CHECKING:
    from ..reading import Trace

NORMS = {"signal_grad_norm": "signal gradient ‖dE/da‖", "grad_norm": "weight gradient ‖dE/dW‖"}
LEAST = 1e-38  # a norm below it is recorded as 0
LINE = 18  # pixels: a line of a panel's title
COLUMNS, CELLS = 200, 20_000  # of a heat map: most steps, most cells in all


class Profile(NamedTuple):
    """The norms of an arm's layers at a step or in the mean of some, [L] each: geometric mean, least and greatest over
    the seeds that have some; in how many it is 0."""

    steps: range
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    none: np.ndarray


def profile(trace: Trace, quantity: str, arm: int, step: int) -> Profile:
    """`quantity` is one of NORMS. Networks that diverged are left out. Raises KeyError where nothing is recorded."""
    at, norms = trace.at(quantity, arm, step)
    middle, some = geometric_norm(norms), np.where(norms > 0, norms, np.nan)
    low = np.where(np.isnan(some).all(0), middle, np.fmin.reduce(some))
    return Profile(at, middle, low, np.fmax.reduce(norms), (norms == 0).sum(0))


def gradient_flow(trace: Trace, *, step: int, scale: str) -> go.Figure:
    """Every layer's gradient norms at one step, one line an arm, a band over its seeds."""
    arms, seeds = range(len(trace.experiment.arms)), trace.experiment.seeds
    try:
        told = {quantity: [profile(trace, quantity, arm, step) for arm in arms] for quantity in NORMS}
    except KeyError:
        return style.said(nothing(trace) or NOTHING, style.HEIGHT)
    figure, marked = make_subplots(1, 2, horizontal_spacing=0.12), {}
    partly = any(((one.none > 0) & (one.middle > 0)).any() for profiles in told.values() for one in profiles)
    nil = "0 in one seed or more" if partly else "0"
    for column, (quantity, profiles) in enumerate(told.items(), 1):
        foot, top = margins([one.middle for one in profiles], scale)
        for arm, one in enumerate(profiles):
            name, rgb, place = style.label(trace, arm), style.color(arm), {"row": 1, "col": column}
            x, letter = np.arange(1, len(one.middle) + 1), NORMS[quantity].split()[-1]
            shown, small = drawable(one.middle, scale), 7 if len(x) <= 30 else 4  # many marks are no line either
            if len(seeds) > 1 and np.isfinite(shown).all():
                style.band(figure, x, one.low, one.high, rgb, name, False, **place)
            figure.add_scatter(
                x=x,
                y=style.numbers(shown),
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                line={"color": rgb, "width": 2, "dash": style.dash(arm)},
                marker={"size": 6, "symbol": style.symbol(arm)},
                hovertemplate=f"layer %{{x}}: {letter} = %{{y:,.3~g}}<extra>{name}</extra>",
                **place,
            )
            zero = f"0 in %{{customdata}} of {len(seeds)} seeds" if len(seeds) > 1 else "0"
            for there, y, words, value, instead in (  # a linear axis has a place for 0
                ((one.none > 0) & (scale == "log"), foot / 2**arm, f"× at the bottom: {nil}.", zero, nil),
                (one.middle == np.inf, top, "× at the top: infinite.", "infinite", "infinite"),
            ):
                if there.any():
                    marked[words] = True
                    figure.add_scatter(
                        x=x[there],
                        y=np.full(there.sum(), y),
                        mode="markers",
                        name=name,
                        meta={"instead": instead},  # of the place of its mark
                        legendgroup=name,
                        showlegend=False,
                        marker={"symbol": "x-thin", "size": small, "line": {"color": rgb, "width": 1}},
                        customdata=one.none[there],
                        hovertemplate=f"layer %{{x}}: {letter} = {value}<extra>{name}</extra>",
                        **place,
                    )
    figure.update_xaxes(title="layer l (1 is next to the input)")
    figure.update_yaxes(type=scale)
    for column, (quantity, profiles) in enumerate(told.items(), 1):
        if scale == "log" and not any((one.middle > 0).any() for one in profiles):
            figure.update_yaxes(**axis_of_zeros(profiles), row=1, col=column)
        figure.update_yaxes(title=NORMS[quantity], row=1, col=column)
    said = flow_in_words(trace, told["signal_grad_norm"], step)
    below = " ".join([*marked, over_seeds(trace, told["signal_grad_norm"])])
    return style.finished(figure, note=f"{said}\n{below}".rstrip())


def flow_in_words(trace: Trace, signals: list[Profile], step: int) -> str:
    """Of which step the signal gradient is drawn, and a line on each arm's."""
    at = when_of_arms(trace, [one.steps for one in signals])
    # at the last scoring there is no gradient
    last = ", that of the last update" if step >= trace.experiment.settings.steps else ""
    newest = min(trace.step, trace.experiment.settings.steps - 1)
    cards = f" The cards tell the newest steps together, up to {RECENT}." if step >= newest > 0 else ""
    return "\n".join([f"Signal gradient{at}{last}.{cards}", *(spoken(trace, arm, step) for arm in range(len(signals)))])


def over_seeds(trace: Trace, signals: list[Profile]) -> str:
    """What lines and bands are where there are several seeds."""
    n = len(trace.experiment.seeds)
    if n == 1:
        return ""
    left = ", less those that diverged" if trace.diverged else ""
    left += ", less those without a gradient" if any((one.none > 0).any() for one in signals) else ""
    return f"Lines are geometric means over {n} seeds{left}; bands their range."


def axis_of_zeros(profiles: list[Profile]) -> dict[str, object]:
    """A logarithmic axis on which there are marks of zeros only."""
    middle = np.mean([arm for arm, one in enumerate(profiles) if (one.none > 0).any()] or [0])
    foot, top = log10(LEAST / 2 ** (len(profiles) - 1)) - 0.3, log10(LEAST) + 5
    return {"tickvals": [LEAST / 2**middle], "ticktext": ["0"], "range": [foot, top]}


def drawable(norms: np.ndarray, scale: str) -> np.ndarray:
    """The norms that have a place on the axis; NaN for the others."""
    return np.where(np.isfinite(norms) & ((norms > 0) | (scale == "linear")), norms, np.nan)


def margins(norms: list[np.ndarray], scale: str) -> tuple[float, float]:
    """Where zeros and where infinities are marked: below and above all that is drawn, or where float32 ends."""
    inside = drawable(np.concatenate(norms).astype(float), scale)
    inside = inside[np.isfinite(inside)]
    if not inside.size:
        return LEAST, 1 / LEAST
    return float(inside.min()) / 10, float(inside.max()) * (10 if scale == "log" else 1.1)


def gradient_heatmap(trace: Trace, *, which: str, column: str) -> go.Figure:
    """The gradient norm of every layer at every step, as color; one panel an arm, one color scale."""
    if nothing(trace):
        return style.said(nothing(trace), style.HEIGHT)
    arms = range(len(trace.experiment.arms))
    depth = max(s.depth for s in trace.experiment.arm_settings)
    most = max(20, min(COLUMNS, CELLS // (depth * len(arms))))
    told = [heat(trace, which, arm, most, column=column) for arm in arms]
    living = [(arm, heat(trace, which, arm, most, lasting(trace, arm), column)[1].T) for arm in arms if trace.diverged]
    wide = max(width(trace.read(which, arm, points=most // 2)) for arm in arms)
    kind = f"{COLUMN.choices[column]} " if wide > 1 else ""
    until = f" and up to {wide - 1:,} after it" if wide > 1 else ""
    finite = np.concatenate([z[np.isfinite(z)] for _, z in told])
    whole = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    low, high = bounds(trace, living) or whole
    columns = min(3, len(told))
    rows = -(-len(told) // columns)
    names = [style.title(trace, arm) for arm in arms]
    lines = max(name.count("<br>") for name in names) * LINE  # pixels that a second line of a title takes
    height, gap = 60 + 300 * rows + lines * (rows - 1), 80 + lines
    gaps = {"horizontal_spacing": 0.05, "vertical_spacing": gap / (height - 84)}  # less the margins of a figure
    figure = make_subplots(rows, columns, subplot_titles=names, **gaps)
    for i, (steps, z) in enumerate(told):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        if len(steps) and not np.isfinite(z).any():  # plotly finds no axes where all is blank
            figure.update_xaxes(range=[float(steps[0]), float(steps[-1] + 1)], **place)
            figure.update_yaxes(range=[0.5, z.shape[0] + 0.5], **place)
        figure.update_yaxes(dtick=axes.whole(z.shape[0]), **place)
        figure.add_heatmap(
            x=style.numbers(steps),
            y=np.arange(1, z.shape[0] + 1),
            z=style.numbers(z),
            name=style.label(trace, arms[i]),
            coloraxis="coloraxis",
            **place,
            hovertemplate=f"step %{{x:,d}}{until}, layer %{{y}}: "
            f"{kind}{NORMS[which].split()[-1]} = 10<sup>%{{z:.2f}}</sup>"
            f"<extra>{style.label(trace, arms[i])}</extra>",
        )
    figure.update_xaxes(title="step t (updates)")
    figure.update_yaxes(title="layer l", col=1)
    title = {"text": f"log₁₀ {NORMS[which].split()[-1]}", "side": "right"}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": {"title": title}})
    figure.update_annotations(font_size=13)
    note = "Blank cells: the gradient is 0, infinite or undefined there."
    if any(mixed(trace, which, arm, most, column) for arm in arms):
        note += " Where it is 0 in some seeds the color is the others'."
    if wide > 1:
        note = f"{spanning(f'A column is the {kind}of', wide, uneven([steps for steps, _ in told]))} {note}"
    if (low, high) != whole:
        note += ruled(trace, arms, "colors are")
    return style.finished(figure, height=height, note=note + departed(trace))


def heat(
    trace: Trace, which: str, arm: int, most: int = COLUMNS, seeds: np.ndarray | None = None, column: str = "mean"
) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n], n at most `most`, and log10 of the norm [L, n], geometric mean over the seeds (by place, else all)
    that have a gradient and have not diverged; NaN where none has. `column` ("mean", "low", "high") of its steps."""
    series = trace.read(which, arm, points=most // 2)
    norms = getattr(series, column) if seeds is None else getattr(series, column)[:, seeds]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.log10(geometric_norm(norms, axis=1)).T
    return series.steps, np.where(np.isfinite(z), z, np.nan)


def mixed(trace: Trace, which: str, arm: int, most: int, column: str) -> bool:
    """Whether a layer's norm is 0 at some step in some seeds and not in others."""
    norms = getattr(trace.read(which, arm, points=most // 2), column)
    return bool(((norms == 0).any(1) & (norms > 0).any(1)).any())


WHICH = choice(
    "which",
    "Gradient",
    "The error arriving at a layer's pre-activations, or the gradient of its weights.",
    {"signal_grad_norm": "signal gradient", "grad_norm": "weight gradient"},
)
COLUMN = choice(
    "column",
    "Column",
    "What is shown where a column stands for several steps: their mean, their greatest value, in which a spike of one "
    "step keeps its height, or their least, in which a dip keeps its depth.",
    {"mean": "mean", "high": "greatest", "low": "least"},
)
SCALE = choice("scale", "Vertical axis", "Scale of the norms.", AXIS)._replace(default="log")
PLOTS = {
    "gradient_flow": Plot(
        "Gradient flow",
        "A straight line on the logarithmic axis is a constant factor per layer: falling to the left, the signal "
        "vanishes on its way to the input; rising to the left, it explodes.",
        gradient_flow,
        (STEP, SCALE),
        lacks=no_steps,
    ),
    "gradient_heatmap": Plot(
        "Gradient over time",
        "Each row is a layer, each column a step (in a long run a few): watch the lower layers wake up, or stay dark.",
        gradient_heatmap,
        (WHICH, COLUMN),
        lacks=no_steps,
    ),
}
