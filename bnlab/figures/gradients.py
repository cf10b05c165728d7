"""How the gradient flows: norm against layer, the factor per layer, and both over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from . import style
from .lasting import bounds, departed, lasting

if TYPE_CHECKING:
    from ..reading import Trace

NORMS = {"signal_grad_norm": "signal gradient ‖dE/da‖", "grad_norm": "weight gradient ‖dE/dW‖"}
HEALTHY, STEEP = 100, 3  # fold: more than that over all layers, or per layer, is not healthy
DEEP = 16  # layers, of which the first and the last three, which see the data and the loss, are left out of the fit
FAINT = 1e-18  # a norm below it may be 0 one layer further: squares of its elements are less than float32 holds
UNDEFINED = "A value is not finite any more; lower the learning rate."
LEAST = 1e-38  # a norm below it is recorded as 0
COLUMNS, CELLS = 200, 20_000  # of a heat map: most steps, most cells in all
NOTHING = "No step is recorded yet."
NO_STEPS = "This run has no steps, so there is nothing to draw. Look at its scores, or set steps above 0."


class Verdict(NamedTuple):
    """How the signal gradient changes from layer to layer towards the input, at one step, over the seeds that live.

    factor: fitted per layer; ratio: layer 1 over layer L. tone: vanishing or exploding where it falls or rises more
    than HEALTHY on its way through the layers or STEEP per layer, else healthy; or dead, diverged, unknown. Where some
    seeds are dead or have diverged it is not called healthy. words say it short, help at length.
    """

    step: int
    factor: float
    ratio: float
    tone: str
    words: str
    help: str


def fitted_factor(norms: np.ndarray) -> float:
    """Factor per layer towards the input, from norms [L] of layers 1..L: least squares on their logarithms.

    NaN where fewer than two norms are positive and finite.
    """
    layers = np.arange(1, len(norms) + 1)
    used = np.isfinite(norms) & (norms > 0)
    if len(norms) >= DEEP:
        used &= (layers > 3) & (layers <= len(norms) - 3)
    if used.sum() < 2:
        return np.nan
    return float(np.exp(-np.polyfit(layers[used], np.log(norms[used].astype(float)), 1)[0]))


def verdict(trace: Trace, arm: int, step: int | None = None) -> Verdict:
    """The verdict on an arm's signal gradient at a step, by default the newest."""
    unknown = Verdict(-1, np.nan, np.nan, "unknown", "–", nothing(trace) or NOTHING)
    if trace.step < 0:
        return unknown
    try:
        at, norms = trace.at("signal_grad_norm", arm, trace.step if step is None else step)
    except KeyError:
        return unknown
    seeds = trace.experiment.seeds
    gone = [i for i, s in enumerate(seeds) if (arm, s) in trace.diverged and not np.isfinite(norms[i]).all()]
    live = np.delete(norms, gone, axis=0)
    when = ""
    if gone:
        first, layer = min(trace.diverged[arm, seeds[i]] for i in gone)
        place = f"layer {layer}" if layer else "the readout"
        when = f"diverged at step {first}, first in {place}"
        if len(seeds) > 1:
            several = (
                f"{len(gone)} of {len(seeds)} seeds"
                if len(live)
                else "both seeds"
                if len(seeds) == 2
                else f"all {len(seeds)} seeds"
            )
            when = f"{several} diverged, first at step {first} in {place}"
    if not len(live):
        return Verdict(at, np.nan, np.nan, "diverged", when, UNDEFINED)
    dead = sum(map(silent, live)) if norms.shape[1] > 1 else 0
    none = f"{dead} of {len(seeds)} seeds {'has' if dead == 1 else 'have'} no gradient"
    told = of_the_living(live, at)
    words, tone = told.words, told.tone
    if 0 < dead < len(live):
        words, tone = f"{words}; {none}", "dead" if tone == "healthy" else tone
    if gone:
        words, tone = f"{when}; the rest: {words}", "diverged" if tone == "healthy" else tone
    return told._replace(words=words, tone=tone)


def silent(norms: np.ndarray) -> bool:
    """Whether no signal arrives at layer 1 of a network, norms [L], and not for being too small for float32."""
    there = np.flatnonzero(norms > 0)
    return norms[0] == 0 and (not len(there) or norms[there[0]] > FAINT)


def of_the_living(norms: np.ndarray, at: int) -> Verdict:
    """The verdict on networks that have not diverged, norms [seeds, L]."""
    middle = middle_of(norms)
    depth, there = len(middle), np.flatnonzero(middle > 0)
    if depth < 2:
        return Verdict(at, 1.0, 1.0, "healthy", "one hidden layer", "Nothing is passed down.")
    factor = fitted_factor(middle)
    if silent(middle) or not np.isfinite(factor):
        until = f"below layer {there[0] + 1}" if len(there) else "in any layer"
        return Verdict(at, 0.0, 0.0, "dead", "no gradient", f"At step {at} no signal gradient is recorded {until}.")
    left_out = ", less the first and the last three" if depth >= DEEP else ""
    how = f"Factor of ‖dE/da‖ from layer to layer towards the input, fitted at step {at}{left_out}."
    help = f"{how} Healthy is less than threefold per layer and less than a hundredfold over all {depth} layers."
    per_layer = f"×{rounded(factor, 2)} per layer{' in the middle' if depth >= DEEP else ''}"
    if middle[0] == 0:  # what is left above it goes on falling
        words = f"vanishing: {per_layer}: layer 1's signal is below what float32 holds"
        return Verdict(at, factor, 0.0, "vanishing", words, help)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(middle[0] / middle[-1])
    if np.isinf(middle).any():
        words = f"exploding: {per_layer}: above what float32 holds in layer {np.flatnonzero(np.isinf(middle))[-1] + 1}"
        return Verdict(at, factor, ratio, "exploding", words, help)
    fall, rise = steepest(middle), steepest(1 / middle)
    tone = "healthy" if max(fall[0], rise[0]) <= HEALTHY else "vanishing" if fall[0] > rise[0] else "exploding"
    if min(fall[0], rise[0]) > HEALTHY or not 1 / STEEP < factor < STEEP:  # the lines' slope decides
        tone = "vanishing" if factor < 1 else "exploding"
    if tone == "healthy":
        end = f"layer 1 gets {share(ratio, depth)}"
    else:
        _, low, high = fall if tone == "vanishing" else rise
        low = 0 if 1 / STEEP < middle[0] / middle[low] < STEEP else low
        far = middle[low] / middle[-1]
        high = depth - 1 if (far * HEALTHY < 1 if tone == "vanishing" else far > HEALTHY) else high
        end = share(middle[low] / middle[high], high + 1)
        turn = "dips" if tone == "vanishing" else "rises"
        end = f"layer 1 gets {end}" if low == 0 else f"{turn} to {end} at layer {low + 1}"
    return Verdict(at, factor, ratio, tone, f"{tone}: {per_layer}: {end}", help)


def steepest(norms: np.ndarray) -> tuple[float, int, int]:
    """How many fold norms [L] fall most from a layer to one below it, towards the input: (fold, below, above)."""
    there = np.where(norms > 0, norms, np.nan).astype(float)
    above = np.fmax.accumulate(there[::-1])[::-1]  # the greatest of each layer and those above it
    low = int(np.nanargmax(above / there))
    return float(above[low] / there[low]), low, low + int(np.nanargmax(there[low:]))


def share(ratio: float, layer: int) -> str:
    """A share of a layer's signal in words: '8.9e-13 of layer 20's signal', 'as much signal as layer 20'."""
    told = rounded(ratio)
    if told == "1":
        return f"as much signal as layer {layer}"
    return f"{told} {'of' if ratio < 1 else 'times'} layer {layer}'s signal"


def rounded(value: float, decimals: int = 0) -> str:
    """Two digits that count: 0.0026, 1.4, 130, 1.2e-8; between 0.1 and 100 at least so many decimals."""
    if decimals and 0.0995 <= value < 99.5:
        return f"{value:.{decimals}f}"
    told = f"{float(f'{value:.2g}'):.0f}" if 99 < value < 99500 else f"{value:.2g}"
    return told.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def nothing(trace: Trace) -> str:
    """Why a run has no steps to draw, as a sentence; empty where it has some."""
    return NOTHING if trace.step < 0 else NO_STEPS if trace.experiment.settings.steps == 0 else ""


class Profile(NamedTuple):
    """The norms of an arm's layers at a step, [L] each: geometric mean, least and greatest over the seeds that have
    some; in how many it is 0."""

    step: int
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    none: np.ndarray


def profile(trace: Trace, quantity: str, arm: int, step: int) -> Profile:
    """`quantity` is one of NORMS. Networks that diverged are left out. Raises KeyError where nothing is recorded."""
    at, norms = trace.at(quantity, arm, step)
    middle, some = middle_of(norms), np.where(norms > 0, norms, np.nan)
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
                hovertemplate=f"layer %{{x}}: {letter} = %{{y:.3~g}}<extra>{name}</extra>",
                **place,
            )
            zero = f"0 in %{{customdata}} of {len(seeds)} seeds" if len(seeds) > 1 else "0"
            partly = ((one.none > 0) & (one.middle > 0)).any()
            foots = f"× at the foot: 0{' in one seed or more' if partly else ''}."
            for there, y, words, value in (
                ((one.none > 0) & (scale == "log"), foot / 2**arm, foots, zero),  # a linear axis has a place for 0
                (one.middle == np.inf, top, "× at the top: infinite.", "infinite"),
            ):
                if there.any():
                    marked[words] = True
                    figure.add_scatter(
                        x=x[there],
                        y=np.full(there.sum(), y),
                        mode="markers",
                        name=name,
                        legendgroup=name,
                        showlegend=False,
                        marker={"symbol": "x-thin", "size": small, "line": {"color": rgb, "width": 1}},
                        customdata=one.none[there],
                        hovertemplate=f"layer %{{x}}: {letter} = {value}<extra>{name}</extra>",
                        **place,
                    )
    depth = max(len(one.middle) for one in told["grad_norm"])
    figure.update_xaxes(title="layer l (1 is next to the input)", **style.layers(depth))
    figure.update_yaxes(type=scale)
    style.ticked(figure)
    for column, profiles in enumerate(told.values(), 1):
        if scale == "log" and not any((one.middle > 0).any() for one in profiles):  # there are marks of zeros only
            figure.update_yaxes(tickvals=[LEAST / 2 ** ((len(arms) - 1) / 2)], ticktext=["0"], row=1, col=column)
    for column, name in enumerate(NORMS.values(), 1):
        figure.update_yaxes(title=name, row=1, col=column)
    at = told["signal_grad_norm"][-1].step
    notes = [f"Signal gradient at step {at}.", *(spoken(trace, arm, step) for arm in arms), *marked]
    left = ", less those that diverged" if trace.diverged else ""
    left += ", less those without a gradient" if any((one.none > 0).any() for one in told["signal_grad_norm"]) else ""
    over = f"Lines are geometric means over {len(seeds)} seeds{left}; bands their range."
    return style.finished(figure, note=" ".join([*notes, *[over] * (len(seeds) > 1)]))


def spoken(trace: Trace, arm: int, step: int) -> str:
    """The verdict as a sentence: 'BN: healthy ...' or 'BN diverged at ...'."""
    told = verdict(trace, arm, step).words
    return f"{trace.experiment.arms[arm].label}{'' if told.startswith('diverged') else ':'} {told}."


def middle_of(norms: np.ndarray, axis: int = 0) -> np.ndarray:
    """Geometric mean over the seeds, one axis, of those that have a gradient; 0 where none of the living has one, NaN
    where none lives; inf stays."""
    there = norms > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.log(np.where(there, norms, 1).astype(float)).sum(axis)
        none = np.where((norms == 0).any(axis), 0.0, np.nan)
        return np.where(there.any(axis), np.exp(total / there.sum(axis)), none)


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


def gradient_heatmap(trace: Trace, *, which: str) -> go.Figure:
    """The gradient norm of every layer at every step, as color; one panel an arm, one color scale."""
    if nothing(trace):
        return style.said(nothing(trace), style.HEIGHT)
    arms = range(len(trace.experiment.arms))
    depth = max(s.depth for s in trace.experiment.arm_settings)
    most = max(20, min(COLUMNS, CELLS // (depth * len(arms))))
    told = [heat(trace, which, arm, most) for arm in arms]
    living = [(arm, heat(trace, which, arm, most, lasting(trace, arm))[1].T) for arm in arms if trace.diverged]
    finite = np.concatenate([z[np.isfinite(z)] for _, z in told])
    whole = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    low, high = bounds(trace, living) or whole
    columns = min(3, len(told))
    rows = -(-len(told) // columns)
    names = [style.title(trace, arm) for arm in arms]
    gaps = {"horizontal_spacing": 0.05, "vertical_spacing": 0.16 / rows + 0.06}
    figure = make_subplots(rows, columns, subplot_titles=names, **gaps)
    for i, (steps, z) in enumerate(told):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        if len(steps) and not np.isfinite(z).any():  # plotly finds no axes where all is blank
            figure.update_xaxes(range=[float(steps[0]), float(steps[-1] + 1)], **place)
            figure.update_yaxes(range=[0.5, z.shape[0] + 0.5], **place)
        figure.add_heatmap(
            x=style.numbers(steps),
            y=np.arange(1, z.shape[0] + 1),
            z=style.numbers(z),
            coloraxis="coloraxis",
            **place,
            hovertemplate=f"step %{{x}}, layer %{{y}}: {NORMS[which].split()[-1]} = 10<sup>%{{z:.2f}}</sup>"
            f"<extra>{style.label(trace, arms[i])}</extra>",
        )
    figure.update_xaxes(title="step t (updates)")
    figure.update_yaxes(dtick=style.whole(depth))
    figure.update_yaxes(title="layer l", col=1)
    title = {"text": f"log₁₀ {NORMS[which].split()[-1]}", "side": "right"}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": {"title": title}})
    figure.update_annotations(font_size=13)
    note = "Blank cells: the gradient is 0, infinite or undefined there."
    note += " Where it is 0 in some seeds the color is the others'." * any(
        mixed(trace, which, arm, most) for arm in arms
    )
    note += " The colors are chosen for the networks that did not diverge." * ((low, high) != whole)
    return style.finished(figure, height=60 + 300 * rows, note=note + departed(trace))


def heat(
    trace: Trace, which: str, arm: int, most: int = COLUMNS, seeds: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n], n at most `most`, and log10 of the norm [L, n], geometric mean over the seeds (by place, else all)
    that have a gradient and have not diverged; NaN where none has."""
    series = trace.read(which, arm, points=most // 2)
    norms = series.mean if seeds is None else series.mean[:, seeds]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.log10(middle_of(norms, axis=1)).T
    return series.steps, np.where(np.isfinite(z), z, np.nan)


def mixed(trace: Trace, which: str, arm: int, most: int) -> bool:
    """Whether a layer's norm is 0 at some step in some seeds and not in others."""
    norms = trace.read(which, arm, points=most // 2).mean
    return bool(((norms == 0).any(1) & (norms > 0).any(1)).any())
