"""Loss and accuracy over the steps: mini-batch, training set and test set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from ..data import DATASETS
from ..problems import enumeration
from ..run import outbreaks
from . import axes, style
from .lasting import bounds, crowded, departed, gone, lasting, room, ruled, ruling
from .losses import chance, classifies, measure, tick_format, unit, value_format
from .means import living
from .options import AXIS, Plot, choice
from .points import spanning
from .smoothing import curve, growing, taken, width

if TYPE_CHECKING:
    from ..reading import Series, Trace
    from ..run import Run

POINTS = 4800  # of all mini-batch lines together
MARKS = 60  # of a split's scores, at most, and the newest
HEIGHT = 460  # pixels
STATISTICS = {
    "moving": "moving averages",
    "population": "population statistics",
    "batch": "batch statistics",
}
ONLY_0 = (
    "Nothing after step 0 is recorded here yet, and a logarithmic axis has no place for step 0. "
    "Choose the linear axis, or wait for more steps."
)


def loss(trace: Trace, *, splits: str, statistics: str, smoothing: str, x: str, y: str) -> go.Figure:
    """The loss of every arm over the steps."""
    return curves(trace, "loss", splits, statistics, int(smoothing), x, y)


def accuracy(trace: Trace, *, splits: str, statistics: str, smoothing: str, x: str, y: str) -> go.Figure:
    """The accuracy of every arm over the steps."""
    return curves(trace, "accuracy", splits, statistics, int(smoothing), x, y)


def no_accuracy(run: Run | Trace) -> str:
    """What to say of the accuracy where no arm learns classes."""
    learned = {DATASETS[settings.data].task for settings in run.experiment.arm_settings}
    return "" if "classification" in learned else "A regression has no accuracy, only a loss."


def curves(trace: Trace, quantity: str, splits: str, statistics: str, window: int, x: str, y: str) -> go.Figure:
    if trace.step < 0:
        return style.said(style.NOTHING, HEIGHT)
    figure, wide, lines, marks, begun = go.Figure(), 1, [], [], 0
    ruling_lines, ruling_marks = [], []  # of networks that last
    arms = [arm for arm in range(len(trace.experiment.arms)) if quantity == "loss" or classifies(trace, arm)]
    points = max(150, POINTS // (2 * len(arms)) // (2 if len(trace.experiment.seeds) > 1 else 1))
    for arm in arms:
        seeds = lasting(trace, arm)
        if "batch" in splits.split("+") and trace.experiment.settings.steps:
            if x == "log":
                series = growing(trace, quantity, arm, points // 2)
                if len(series.steps) and series.steps[0] == 0 < series.last(trace.step)[0]:
                    begun = int(series.last(trace.step)[0])  # a bucket from step 0 on has a place from step 1 on
                    series = series._replace(steps=np.maximum(series.steps, 1))
            else:
                series = trace.read(quantity, arm, points=points // 2)
            wide = max(wide, width(series))
            lines.append((arm, series.steps, mini_batch(figure, trace, quantity, arm, series, window)))
            ruling_lines.append((arm, series.high[:, seeds]))
        for split in ("train", "test"):
            if split in splits.split("+"):
                steps, scores = scored(figure, trace, quantity, arm, split, statistics)
                marks.append((arm, steps, scores[:, seeds]))
                cold = statistics == "moving" and trace.experiment.arm_settings[arm].norm == "batch"
                warm = scores[steps > 0] if cold else scores  # at 0 the averages are 0 and 1
                ruling_marks.append((arm, warm[:, seeds]))
    diverged(figure, trace, arms, x)
    guessing = [value for value, _ in chance(trace, quantity)]
    figure.update_xaxes(title="step t (updates)", type=x, unifiedhovertitle={"text": "step %{x:,d}"})
    figure.update_layout(hovermode="x unified")
    figure.update_yaxes(title=measure(trace, quantity), type=y, tickformat=tick_format(quantity))
    told = note(trace, splits.split("+"), window, wide, even=x == "linear")
    if x == "log" and axes.without_0(figure):
        told += " A logarithmic axis has no place for step 0, which is left out."
    if begun:
        told += f" The lines' first point, of steps 0 to {begun:,}, is drawn at step 1."
    if x == "log" and not any(len(line.x) for line in figure.data):
        return style.said(ONLY_0 + departed(trace), HEIGHT)
    if y == "linear" and quantity == "accuracy":
        figure.update_yaxes(range=[-0.02, 1.03])
    elif y == "linear" and (ends := bounds(trace, ruling_lines + ruling_marks)):
        rule = ruling(trace, arms)
        several = ([v for arm, v in drawn if arm in rule] for drawn in (ruling_lines, ruling_marks))
        top = crowded(*several, max(guessing)) or np.inf  # those that last may have been far off, too
        figure.update_yaxes(range=room(0, min(top, max(ends[1], *guessing))))
        told += f"{ruled(trace, arms)[:-1]}; a logarithmic one shows everything."
    elif y == "linear" and (top := crowded([v for *_, v in lines], [v for *_, v in marks], max(guessing))):
        figure.update_yaxes(range=room(0, top))
        where = highest(trace, lines + marks, wide)
        told += f" The highest point, {where}, lies above the axis; a logarithmic one shows all."
    if y == "linear" and outside(figure):
        told += " ▲: a mark above the axis."
    for i, (value, name) in enumerate(chance(trace, quantity)):
        style.reference(figure, value, name, where=("end", "middle", "start")[i % 3])
    return style.finished(figure, height=HEIGHT, note=told)


def highest(trace: Trace, drawn: list[tuple[int, np.ndarray, np.ndarray]], wide: int) -> str:
    """Where the highest of the points (arm, steps [n], losses [n, seeds]) lies; `wide` is how many steps a point stands
    for."""
    found = [
        (arm, steps, np.where(np.isfinite(values), values, -np.inf)) for arm, steps, values in drawn if values.size
    ]
    arm, steps, values = max(found, key=lambda one: one[2].max())
    when = f"{'at' if wide == 1 else 'near'} step {steps[values.max(1).argmax()]:,}"
    return f"{style.amount(float(values.max()))}{unit(trace, 'loss', arm)} of {style.label(trace, arm)} {when}"


def outside(figure: go.Figure) -> bool:
    """Triangles along the upper edge for the marks that lie above the vertical axis, where it has a range: a row for
    each line of marks, on an axis that no zoom moves. Whether there are some."""
    lines = [one for one in figure.data if one.marker.symbol is not None] if figure.layout.yaxis.range else []
    above = [(one, np.asarray(one.y) > figure.layout.yaxis.range[1]) for one in lines]
    above = [(one, there) for one, there in above if there.any()]
    for row, (one, there) in enumerate(above):
        hollow = "-open" if one.marker.symbol.endswith("-open") else ""
        figure.add_scatter(
            x=one.x[there], y=np.full(there.sum(), 0.98 - 0.03 * row), yaxis="y2", mode="markers", name=one.name,
            legendgroup=one.legendgroup, showlegend=False, hoverinfo="skip",
            marker={"size": 8, "color": one.line.color, "symbol": f"triangle-up{hollow}"},
        )  # fmt: skip
    if above:
        figure.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "fixedrange": True, "visible": False})
    return bool(above)


def mini_batch(figure: go.Figure, trace: Trace, quantity: str, arm: int, series: Series, window: int) -> np.ndarray:
    """The arm's mini-batch values: raw as a ghost, smoothed over it, a band over the seeds. Gives the upper ends of
    what is drawn, [n, ends]: a single seed is not where the others are drawn with it, raw or smoothed by itself."""
    newest = min(trace.step, trace.experiment.settings.steps - 1)  # after the last update there is a scoring
    told, rgb = curve(series, window, newest), style.color(arm)
    x, name = style.numbers(told.steps), f"{style.label(trace, arm)}: mini-batch"
    if len(trace.experiment.seeds) > 1:
        style.band(figure, x, told.low, told.high, rgb, name, False)
    if window > 1 or not series.exact:
        if series.exact:
            gx, ghost = x, told.raw
        else:  # both ends of every bucket, so that no spike is lost
            gx, ghost = np.repeat(x, 2), np.stack([told.least, told.greatest], 1).ravel()
        figure.add_scatter(
            x=gx,
            y=style.numbers(ghost),
            mode="lines",
            line={"color": rgb, "width": 1},
            opacity=0.35,
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
            meta={
                "what": f"{name}, every step{'' if series.exact or len(trace.experiment.seeds) == 1 else ' and seed'}"
            },
        )
    figure.add_scatter(
        x=x,
        y=style.numbers(told.smooth),
        mode=style.mode(told.smooth),
        name=name,
        meta={"what": "smoothed" if window > 1 else "means" if not series.exact else "", "to": not series.exact},
        legendgroup=name,
        line={"color": rgb, "width": 2, "dash": style.dash(arm)},
        customdata=None if series.exact else style.numbers(told.last),
        hovertemplate=hover(
            name + ("" if series.exact else ", to step %{customdata:,d}"), quantity, unit(trace, quantity, arm)
        ),
    )
    return np.stack([told.raw if series.exact else told.greatest, told.high], 1)


def hover(name: str, quantity: str, unit: str) -> str:
    """What a curve says below the mouse, with its name: plotly itself sets a colon after an <extra> between blanks."""
    return f"{name}: %{{y:{value_format(quantity)}}}{unit}<extra></extra>"


def scored(figure: go.Figure, trace: Trace, quantity: str, arm: int, split: str, statistics: str) -> tuple:
    """The scores over a whole split as marks: filled for the test set, open for the training set. Gives their steps [n]
    and values [n, seeds]."""
    kind = statistics if trace.experiment.arm_settings[arm].norm == "batch" else "none"
    steps, losses, accuracies = trace.scores(arm, split, kind, MARKS)
    values = losses if quantity == "loss" else accuracies
    if values is None or not len(steps):
        return np.empty(0, int), np.empty((0, len(trace.experiment.seeds)))
    name = f"{style.label(trace, arm)}: {split}" + (f", {STATISTICS[kind]}" if kind != "none" else "")
    with np.errstate(invalid="ignore"):
        low, middle, high = np.fmin.reduce(values, 1), living(values), np.fmax.reduce(values, 1)
        spread = {"array": style.numbers(high - middle), "arrayminus": style.numbers(middle - low)}
    symbol = style.symbol(arm) + ("" if split == "test" else "-open")
    figure.add_scatter(  # the heading below the mouse is its step, not that of the nearest mark
        x=style.numbers(steps),
        y=style.numbers(middle),
        mode="lines+markers",
        name=name,
        legendgroup=name,
        line={"color": style.color(arm), "width": 1, "dash": "dot"},
        marker={"size": 7, "symbol": symbol},
        error_y=spread | {"thickness": 1, "width": 2} if values.shape[1] > 1 else None,
        hovertemplate=hover(f"{name}, step %{{x:,d}}", quantity, unit(trace, quantity, arm)),
    )
    return steps, values


def diverged(figure: go.Figure, trace: Trace, arms: list[int], x: str) -> None:
    """A line for each of the arms where a network of it diverged first, its words below those of the line before."""
    first, counts, seeds = outbreaks(trace.diverged), gone(trace), len(trace.experiment.seeds)
    marked = [(arm, *first[arm]) for arm in arms if arm in first]
    for i, (arm, step, place) in enumerate(marked):
        place += f"; {counts[arm][1]} of {seeds} seeds" if counts[arm][1] < seeds else ""
        inside = step > 0 or x == "linear"  # a logarithmic axis has no 0
        at, axis = (step, "x") if inside else (0, "x domain")
        left = step > trace.step / 2 if x == "linear" else step > trace.step**0.5
        below = "&nbsp;<br>" * i  # blank lines, as a share of the height is less than a line on a telephone
        figure.add_shape(  # an annotation would widen the axis for its words, to steps below 0
            type="line", x0=at, x1=at, xref=axis, y0=0, y1=1, yref="y domain",
            line={"color": style.color(arm), "width": 1, "dash": "dot"},
            label={"text": f"{below}{style.label(trace, arm)} diverged at step {step:,} ({place})",
                   "textposition": "end", "textangle": 0, "xanchor": "right" if left else "left", "yanchor": "top",
                   "padding": 4, "font": {"size": 11}},
        )  # fmt: skip


def note(trace: Trace, splits: list[str], window: int, wide: int, even: bool) -> str:
    """What the lines and marks of these splits are; `wide` is how many steps a point stands for, at most if not
    `even`."""
    seeds, told, spread = len(trace.experiment.seeds), [], []
    if "batch" in splits and trace.experiment.settings.steps:
        many, most = "", "" if even else "up to "
        if window > 1 and (wide == 1 or (even and window > wide)):
            many = f", mean of the last {taken(window, wide)} steps"
        elif window > 1 and not even:
            many = f", mean of the last {window} steps, and as many more as make whole points"
        told.append(f"Lines: mini-batch values{many}.")
        if wide > 1:
            is_ = "stands for" if many else "is the mean of"
            told.append(spanning(f"A point {is_}", wide, most))
            told.append("The pale line spans their least and greatest.")
        spread.append("bands")
    if splits != ["batch"]:
        normed = any(settings.norm == "batch" for settings in trace.experiment.arm_settings)
        told.append(f"Marks: the whole set{', with the statistics named in the legend' if normed else ''}.")
        spread.append("bars")
    if seeds > 1 and spread:
        fewer = ", where some have diverged over the others" if trace.diverged else ""
        told.append(f"Means over {seeds} seeds{fewer}; {' and '.join(spread)}: from the least to the greatest seed.")
    return " ".join([*told, *unlike(trace, splits)])


def unlike(trace: Trace, splits: list[str]) -> list[str]:
    """What the arms' differences do to the curves where one might take it for a fault: of K, and of alpha alone."""
    several, told = trace.experiment.arm_settings, []
    sizes = sorted({settings.mini_batch for settings in several})
    if len(sizes) > 1:
        told.append(
            f"A step uses K examples: {enumeration([f'{K:,}' for K in sizes], at_last=' or ')}, depending on the arm."
        )
    normed = [settings.model_dump(exclude={"alpha"}) for settings in several if settings.norm == "batch"]
    if "batch" in splits and any(one in normed[:i] for i, one in enumerate(normed) if one["statistics"] == "batch"):
        told.append("Arms that differ in α alone have the same mini-batch line: α plays no role in training.")
    return told


SMOOTHING = choice(
    "smoothing",
    "Smoothing",
    "Mean over this many recent steps; the raw line stays visible behind it. Where a point stands for several steps, "
    "the mean takes whole points, so some steps more; the note below the chart says how many steps.",
    {"10": "10 steps", "1": "none", "50": "50 steps", "200": "200 steps"},
)
SPLITS = choice(
    "splits",
    "Shown",
    "Losses of the mini-batches at every step, and of the whole sets at the scored steps.",
    {
        "batch+test": "mini-batch and test",
        "batch+train+test": "mini-batch, train, test",
        "batch": "mini-batch",
        "train+test": "train and test",
    },
)
KIND = choice(
    "statistics",
    "Statistics",
    "What batch norm normalizes with when the whole sets are scored.",
    {"moving": "moving averages", "population": "population", "batch": "mini-batch"},
)
X = choice("x", "Horizontal axis", "Scale of the steps.", AXIS)
Y = choice("y", "Vertical axis", "Scale of the values.", AXIS)
PLOTS = {
    "loss": Plot(
        "Loss",
        "Does it fall? A network whose gradients vanish stays at the dotted line: chance.",
        loss,
        (SPLITS, KIND, SMOOTHING, X, Y),
    ),
    "accuracy": Plot(
        "Accuracy",
        "The share of examples that are classified correctly; the dotted line is guessing.",
        accuracy,
        (SPLITS, KIND, SMOOTHING, X, Y),
        lacks=no_accuracy,
    ),
}
