"""Networks that last and networks that diverge: who they are, what to say, and which of them rule the axes."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from ..problems import series
from . import style

if TYPE_CHECKING:
    from ..reading import Trace
    from ..run import Run

SPIKE = 20  # times the range of the middle 80 percent: what lies farther off is a spike
MOST = 90  # percent of a network's values that an axis shows in any case
FLAT = 4  # times these: what lies higher would press them into the lower quarter of the axis


def lasting(trace: Trace, arm: int) -> np.ndarray:
    """Which of the seeds, by place, have not diverged in this arm; all where none is left."""
    places = [i for i, seed in enumerate(trace.experiment.seeds) if (arm, seed) not in trace.diverged]
    return np.array(places or range(len(trace.experiment.seeds)))


def wholly(trace: Trace | Run, arm: int, at: int | None = None) -> bool:
    """Whether every network of the arm has diverged; had, by step `at`."""
    when = [trace.diverged.get((arm, seed)) for seed in trace.experiment.seeds]
    return all(found and (at is None or found[0] <= at) for found in when)


def bounds(trace: Trace, drawn: Iterable[tuple[int, np.ndarray]]) -> tuple[float, float] | None:
    """From where to where an axis goes: (arm, values [n, ...] over time, of the lasting() seeds) are drawn on it.

    None where nobody has diverged, for then plotly's own choice shows everything, and where nothing is finite. Else the
    range of networks that last, of ruling() arms, how they began and most of what came then: one may come back from
    1e9. Where no arm has such a network, the range in which they all began.
    """
    drawn = list(drawn)
    arms = ruling(trace, (arm for arm, _ in drawn))
    if not any(arm == a for arm, _ in drawn for a, _ in trace.diverged):
        return None
    some = [v for arm, v in drawn if arm in arms]
    there, start = finite(some), finite([v[:1] for v in some or [v for _, v in drawn]])
    if not there.size or not start.size:
        return (float(start.min()), float(start.max())) if start.size else None
    low, tenth, middle, most, high = (float(q) for q in np.percentile(there, (0, 10, 50, 90, 100)))
    reach = most - tenth
    low = min(tenth - reach, float(start.min())) if middle - low > SPIKE * reach else low
    high = max(most + reach, float(start.max())) if high - middle > SPIKE * reach else high
    return low, high


def crowded(lines: Iterable[np.ndarray], marks: Iterable[np.ndarray], least: float) -> float | None:
    """Where a linear axis ends that lets points lie above it which would press the others flat; else None.

    lines, marks: [n, networks] over time each. `least`, most values of every line and how it began lie below, and marks
    up to FLAT times these. Where there are no lines, marks count as lines.
    """
    each, scores = ([v[np.isfinite(v)] for several in drawn for v in several.T] for drawn in (lines, marks))
    each, scores = ([v for v in networks if v.size] for networks in (each, scores))
    if not (each or scores):
        return None
    ruling = each or scores
    most = max(least, *(float(np.percentile(v, MOST, method="lower")) for v in ruling))  # of few points: not the top
    begun = max(float(v[0]) for v in ruling)
    most = max(most, begun) if begun < FLAT * most else most
    there = np.concatenate(each + scores)
    if there.max() <= FLAT * most:
        return None
    return float(max(most, *(v[v <= FLAT * most].max(initial=most) for v in scores))) if each and scores else most


def finite(values: list[np.ndarray]) -> np.ndarray:
    there = np.concatenate([v.ravel() for v in values]).astype(float) if values else np.empty(0)
    return there[np.isfinite(there)]


def ruling(trace: Trace, arms: Iterable[int]) -> list[int]:
    """Those of the arms whose lasting networks rule an axis: at most half of their networks diverged, where there is
    such an arm, as the few that are left of others are often far off, too."""
    left = {arm: len(lasting(trace, arm)) for arm in arms if not wholly(trace, arm)}
    return [arm for arm, n in left.items() if 2 * n >= len(trace.experiment.seeds)] or list(left)


def ruled(trace: Trace, arms: Iterable[int], what: str = "axis is") -> str:
    """Whose the range is that bounds() gives, to be added to a note."""
    arms = list(arms)
    rule = ruling(trace, arms)
    if not rule:
        return f" The {what} chosen for the start, before the networks diverged."
    less = [style.label(trace, arm) for arm in arms if arm not in rule and not wholly(trace, arm)]
    without = f", without those of arms of which most did: {series(less)}" if less else ""
    return f" The {what} chosen for the networks that did not diverge{without}."


def room(low: float, high: float) -> list[float]:
    """The range of a linear axis that shows from low to high, with a margin."""
    margin = 0.06 * (high - low) or 0.1 * max(abs(high), 1e-3)
    return [low - margin, high + margin]


def confine(figure: go.Figure, trace: Trace, drawn: Iterable[tuple[int, np.ndarray]], column: int, log: bool) -> bool:
    """Let the vertical axis of a column go by bounds(), where they say something; whether they do."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = bounds(trace, [(arm, np.log10(values) if log else values) for arm, values in drawn])
    if ends:
        figure.update_yaxes(range=room(*ends), row=1, col=column)
    return bool(ends)


def gone(trace: Trace, at: float = inf) -> dict[int, tuple[int, int]]:
    """The arms of which networks had diverged by a step: at which step the first of them did, and how many had."""
    when = {arm: [] for arm, _ in trace.diverged}
    for (arm, _), (step, _) in trace.diverged.items():
        when[arm] += [step] * (step <= at)
    return {arm: (min(steps), len(steps)) for arm, steps in sorted(when.items()) if steps}


def departed(trace: Trace) -> str:
    """What to add where networks are drawn until they diverged: ' BN diverged at step 12 (1 of 3 seeds).'"""
    seeds = len(trace.experiment.seeds)
    return "".join(
        f" {style.label(trace, arm)} diverged at step {step:,}" + (f" ({n} of {seeds} seeds)." if seeds > 1 else ".")
        for arm, (step, n) in gone(trace).items()
    )


def parted(trace: Trace, confined: bool) -> tuple[str, ...]:
    """What to say where networks are drawn until they diverged; `confined`: and the axes go by the others."""
    until = f"{departed(trace).strip()} Drawn until then." if trace.diverged else ""
    return (until, ruled(trace, range(len(trace.experiment.arms))).strip()) if confined else (until,)


def lost(trace: Trace, at: int) -> dict[int, str]:
    """The arms of which networks that had diverged by a step are left out, each with a sentence that says so."""
    seeds, found = len(trace.experiment.seeds), {}
    for arm, (step, n) in gone(trace, at).items():
        which = " and is" if n == seeds else f" with {n} of {seeds} seeds, which are"
        found[arm] = f"{style.label(trace, arm)} diverged at step {step:,}{which} left out."
    return found
