"""Mistakes on purpose, and one outlier: what batch norm does where it is used wrongly."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go

from ..data import DATASETS
from ..probes.broken import MISTAKES
from . import axes, style
from .alphas import unknown
from .looks import NOT_YET, finite_seeds, left_out, missing, newest_snapshot, not_finite, those
from .losses import measure
from .options import STEP, Option, Plot, no_batch_norm

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings


def broken_needs(trace: Trace, *, step: int, **_: object) -> list[tuple[str, int, dict]]:
    at = newest_snapshot(trace, step)
    return [("broken", at, {})] if at is not None else []


SWAPPED, UNBIASED, POLLUTED, IN_BATCHES = map(
    list(MISTAKES).index, ("alpha swapped", "unbiased", "polluted", "shifted, batch")
)
TOUCH = 1e-3  # relative: losses that are nearer than this are said to be the same


class Costs(NamedTuple):
    """One arm's test loss and accuracy with each of MISTAKES, and what they should be, [mistakes], means over the
    seeds it was seen of; NaN: not known. control: the loss where training examples have polluted the averages."""

    loss: np.ndarray
    accuracy: np.ndarray
    right: np.ndarray
    right_accuracy: np.ndarray
    control: float = np.nan


def costs(found: dict[str, np.ndarray]) -> Costs:
    there = finite_seeds(found)
    mean = {name: values[there].astype(np.float64).mean(0) for name, values in found.items()}
    loss, accuracy = mean["loss"], mean["accuracy"]
    right, right_accuracy = (np.full(len(MISTAKES), q[0]) for q in (loss, accuracy))
    right[IN_BATCHES] = mean.get("unshifted_loss", np.nan)  # looks of older runs have not seen it
    right_accuracy[IN_BATCHES] = mean.get("unshifted_accuracy", np.nan)
    return Costs(loss, accuracy, right, right_accuracy, mean.get("control", np.nan))


def mistakes(trace: Trace, *, step: int, mistake: str) -> go.Figure:
    """What each mistake costs, in test loss, for every arm with batch norm; one of them told at length."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    arms = [arm for arm, settings in enumerate(trace.experiment.arm_settings) if settings.norm == "batch"]
    there, told = {}, {}
    for arm in arms:
        found = trace.look("broken", arm, at)
        if wrong := missing(found):
            return wrong
        there[arm] = finite_seeds(found)
        if there[arm].any():
            told[arm] = costs(found)
    if not told:
        return not_finite(at, those(trace, arms))
    figure, chosen, stems, spread = go.Figure(), int(mistake), [], []
    labels, meanings = zip(*MISTAKES.values(), strict=True)
    for arm, cost in told.items():
        name, color = style.label(trace, arm), style.color(arm)
        y = np.arange(len(labels)) + (arms.index(arm) + 1) / (len(arms) + 1) - 0.5
        loss = np.where(np.isfinite(cost.loss), cost.loss, np.nan)
        right = np.where(np.isfinite(cost.right), cost.right, loss)
        side = np.where(loss < right, "middle left", "middle right").tolist()
        text = [style.amount(value) if np.isfinite(value) else "" for value in loss]
        hints = [f"{label}: {value}<br>{what}" for label, value, what in zip(labels, text, meanings, strict=True)]
        spread += [*loss, *right]
        figure.add_scatter(
            x=style.numbers(loss), y=style.numbers(y), name=name, mode="markers+text", legendgroup=name,
            marker={"color": color, "symbol": style.symbol(arm), "size": 10}, text=text, textposition=side,
            customdata=hints, hovertemplate="%{customdata}<extra>" + name + "</extra>", cliponaxis=False,
            selectedpoints=None if chosen == 0 else [0, chosen], unselected={"marker": {"opacity": 0.25}},
        )  # fmt: skip
        gaps = np.full(len(labels), np.nan)
        ends = np.stack([right, loss, gaps], 1).ravel(), np.stack([y, y, gaps], 1).ravel()
        stems.append((name, color, *ends))
    for name, color, x, y in stems:  # from what it should be to what it is
        figure.add_scatter(
            x=style.numbers(x), y=style.numbers(y), mode="lines", line={"color": color, "width": 2}, opacity=0.4,
            legendgroup=name, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    spread = np.log10([value for value in spread if np.isfinite(value) and value > 0] or [1.0])
    room = 0.25 * max(0.2, np.ptp(spread))  # for the numbers beside the points, also where the screen is narrow
    before = 2.5 * room  # longer ones, of small losses, and next to them the names of the mistakes
    title = f"test loss, {measure(trace, 'loss')};<br>the line begins at what it should be"
    figure.update_xaxes(
        title=title,
        **axes.logarithmic(np.ptp(spread) + before + room),
        range=[spread.min() - before, spread.max() + room],
    )
    broken = ["<br>".join(wrap(label, 16)) for label in labels]
    figure.update_yaxes(range=[len(labels) - 0.5, -0.5], tickvals=list(range(len(labels))), ticktext=broken)
    said = symptoms(trace, at, told, chosen) if chosen else overall(trace, at, told)
    note = f"Computed with the weights of step {at:,}. {said} {left_out(trace, there)}".strip()
    return style.finished(figure, height=120 + 50 * len(MISTAKES), note=note)


def overall(trace: Trace, at: int, told: dict[int, Costs]) -> str:
    """What is said while no mistake is chosen."""
    said = "Press a mistake to see its symptom in numbers."
    arm = next((arm for arm, cost in told.items() if np.isnan(cost.loss[SWAPPED])), None)
    if arm is not None and (why := unknown(trace, arm, at)):
        label, _ = [*MISTAKES.values()][SWAPPED]
        said += f" {label.capitalize()} is not known of {style.label(trace, arm)}: {why.replace('<br>', ' ')}"
    return said


def symptoms(trace: Trace, at: int, told: dict[int, Costs], chosen: int) -> str:
    """What a mistake is, and what it does to each arm."""
    label, what = [*MISTAKES.values()][chosen]
    each = [symptom(trace, arm, at, cost, chosen) for arm, cost in told.items()]
    return " ".join([f"{label.capitalize()}. {what}", *each])


def symptom(trace: Trace, arm: int, at: int, cost: Costs, chosen: int) -> str:
    """What a mistake does to one arm, as a sentence."""
    name, (loss, was) = style.label(trace, arm), (q[chosen] for q in (cost.loss, cost.right))
    needs_rows = chosen in (SWAPPED, UNBIASED)
    why = unknown(trace, arm, at) if needs_rows and np.isnan(loss) else None
    if why:
        return f"{name}: not known. {why.replace('<br>', ' ')}"
    accuracy, before = cost.accuracy[chosen], cost.right_accuracy[chosen]
    share = "" if np.isnan(accuracy + before) else f", {accuracy:.1%} right instead of {before:.1%}"
    words = [style.amount(value) if np.isfinite(value) else "not finite" for value in (loss, was)]
    said = f"{name}: test loss {words[0]} instead of {words[1]}{share}."
    if not np.isfinite([loss, was]).all():  # nothing to compare
        return said
    if chosen == IN_BATCHES:
        return said + shifted(trace.experiment.arm_settings[arm], loss, was)
    if chosen == POLLUTED:
        return said + leaked(loss, was, cost.control)
    if loss < was * (1 - TOUCH):
        said += " It is lower here; the mistake happens to suit these weights, and need not at another step."
    return said


def shifted(settings: Settings, loss: float, was: float) -> str:
    """Whether an arm's own mini-batches took the shift of the inputs out again."""
    if np.isnan(was):
        return ""
    if settings.frozen:
        return " Its training mode has moving averages too, so nothing takes the shift out."
    if abs(loss - was) <= TOUCH * was:
        return (
            " The first layer's batch mean takes the shift out again: a = Wx + b moves by the same for every example."
        )
    if settings.placement == "after":
        return " The shift stays: it has gone through h before the norm, and h(a + c) is not h(a) plus a constant."
    return " The shift stays in part."


def leaked(loss: float, was: float, control: float) -> str:
    """What of polluted averages comes from the test set: training examples in their place are the control."""
    if np.isnan(control):
        return ""
    if abs(loss - was) <= TOUCH * was and abs(control - was) <= TOUCH * was:
        return " The averages stand as they were."
    said = f" As many training examples, sorted too, give {style.amount(control)}"
    if loss >= was:
        return f"{said}."
    if control <= loss * (1 + TOUCH):
        return f"{said}: it is lower because the averages are newer, not because test examples have leaked in."
    return f"{said}: a loss below that may come from test examples that have leaked in. It is no longer a test."


MISTAKE = Option(
    "mistake", "choice", "Mistake", "What was done wrong; the rest stays faint.",
    {str(i): mistake.label for i, mistake in enumerate(MISTAKES.values())}, buttons=True,
)  # fmt: skip


def outlier(trace: Trace, *, step: int) -> go.Figure:
    """How much one outlier changes the prediction of another example of its mini-batch, in training mode."""
    at = newest_snapshot(trace, step)
    if at is None:
        return style.said(NOT_YET)
    labels, values, colors, there, regression = [], [], [], {}, False
    for arm, settings in enumerate(trace.experiment.arm_settings):
        if settings.mini_batch == 1:
            continue
        regression |= DATASETS[settings.data].task == "regression"
        found = trace.look("broken", arm, at)
        if wrong := missing(found):
            return wrong
        labels.append(style.title(trace, arm))
        there[arm] = finite_seeds(found)
        values.append(float(np.fmax.reduce(found["outlier"])))
        colors.append(style.color(arm))
    if not labels:
        return style.said("K = 1: a mini-batch holds no other example that an outlier could reach.")
    figure = go.Figure(
        go.Bar(
            y=labels,
            x=values,
            orientation="h",
            marker={"color": colors},
            text=[style.amount(v) for v in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    of = "of a prediction, in<br>deviations of the target" if regression else "of a probability"
    top = max(1.0, *(v for v in values if np.isfinite(v)), 0)
    figure.update_xaxes(title=f"greatest change<br>{of}", range=[0, 1.3 * top])  # room for the number behind the bar
    if not regression:
        figure.update_xaxes(tickvals=np.arange(6) / 5)  # no probability changes by more than 1
    figure.update_yaxes(ticklabelstandoff=8)
    figure.update_yaxes(range=[len(labels) - 0.5, -0.5])  # explicit: what is drawn first must not decide it
    note = (
        f"Step {at:,}. The inputs of one example grow a hundredfold; these are the others of its mini-batch. "
        "Only batch norm lets it through, and only where it normalizes with the mini-batch."
    )
    note = f"{note} {left_out(trace, there)}".strip()
    return style.finished(figure, height=140 + 36 * len(labels), note=note)


PLOTS = {
    "mistakes": Plot(
        "Broken on purpose",
        "The mistakes everyone makes, and what each costs on the test set.",
        mistakes,
        (MISTAKE, STEP),
        broken_needs,
        no_batch_norm,
    ),
    "outlier": Plot(
        "One outlier, another's prediction",
        "In training mode batch norm couples the examples of a mini-batch; layer norm and frozen averages do not.",
        outlier,
        (STEP,),
        broken_needs,
    ),
}
