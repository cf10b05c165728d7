"""How the gradient flows, in words: the factor per layer, and whether what arrives is healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..run import outbreak
from .means import geometric_norm
from .points import when_in_words
from .style import NOTHING, amount, label, nothing

if TYPE_CHECKING:
    from ..reading import Trace

HEALTHY, STEEP = 100, 3  # fold: more than that over all layers, or per layer, is not healthy
SLIGHT = 10  # fold over all layers, up to which two or three steep layers are no matter
DEEP = 16  # layers, of which the first and the last three, which see the data and the loss, are left out of the fit
FAINT = 1e-18  # a norm below it may be 0 one layer further: squares of its elements are less than float32 holds
RECENT = 20  # steps of which a card tells a verdict, on the geometric mean of their gradients
ALONE = "This is about the gradient alone; the loss shows whether the network learns."
UNDEFINED = "A value is not finite any more; lower the learning rate."


class Verdict(NamedTuple):
    """How the signal gradient changes from layer to layer towards the input, at one step or in a mean of some, over the
    seeds that live.

    factor: fitted per layer. tone: vanishing or exploding where it falls or rises more than HEALTHY on its way through
    the layers, or more than SLIGHT and STEEP per layer, else healthy; or dead, diverged, unknown. Where some seeds are
    dead or have diverged it is not called healthy. words say it short, help at length.
    """

    steps: range
    factor: float
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


def verdict(trace: Trace, arm: int, step: int | None = None, recent: int = 1) -> Verdict:
    """The verdict on an arm's signal gradient at a step, by default the newest; or over the `recent` steps up to it."""
    unknown = Verdict(range(0), np.nan, "unknown", "–", nothing(trace) or NOTHING)
    if trace.step < 0:
        return unknown
    step = trace.step if step is None else step
    try:
        at, every = rows(trace, "signal_grad_norm", arm, step, recent)
    except KeyError:
        return unknown
    seeds = trace.experiment.seeds
    now = at[-1] if len(every) > 1 else at[0]
    broke = {i: trace.diverged[arm, s] for i, s in enumerate(seeds) if (arm, s) in trace.diverged}
    gone = [i for i, (first, _) in broke.items() if now >= first or not np.isfinite(every[:, i]).all()]
    lost, places = gone_in_words([broke[i] for i in gone], len(seeds)), np.delete(np.arange(len(seeds)), gone)
    if not len(places):
        return Verdict(at, np.nan, "diverged", lost, UNDEFINED)
    each = every[:, places]
    norms = geometric_norm(each) if len(each) > 1 else each[0]
    when = f"in the geometric mean of the last {len(at)} steps" if len(each) > 1 else when_in_words(at)
    told = with_units(of_the_living(norms, at, when), trace, arm, step, recent, places, norms)
    told = with_silence(told, norms, each, len(seeds))
    if ((each == 0).any(0) & (each > 0).any(0)).any():
        told = told._replace(help=f"{told.help} Steps at which a layer's is 0 are left out of its mean.")
    if gone:
        told = also(told, f"{lost}; the rest: {told.words}", "diverged")
    return told


def also(told: Verdict, words: str, tone: str) -> Verdict:
    """A verdict in these words, with a tone that only what was healthy takes on."""
    return told._replace(words=words, tone=tone if told.tone == "healthy" else told.tone)


def with_units(
    told: Verdict, trace: Trace, arm: int, step: int, recent: int, places: np.ndarray, norms: np.ndarray
) -> Verdict:
    """A verdict on the seeds at `places`, norms [seeds, L], and what their units have to do with it: why nothing
    arrives, or which layers are saturated."""
    if told.tone == "dead":
        return told._replace(words=told.words + cause(trace, arm, step, recent, places, norms))
    flat = saturated(trace, arm, step, recent, places)
    if not flat:
        return told
    healthy = "healthy gradient: "
    words = f"{flat}; {told.words.removeprefix(healthy)}" if told.tone == "healthy" else f"{told.words}; {flat}"
    return also(told, words, "dead")


def with_silence(told: Verdict, norms: np.ndarray, each: np.ndarray, of: int) -> Verdict:
    """A verdict on norms [seeds, L], in the mean of those of each step [n, seeds, L], of so many seeds in all, and how
    many seeds have no gradient, or of the others how many steps."""
    if norms.shape[1] == 1:
        return told
    dead = [silent(one) for one in norms]
    if any(dead) and not all(dead):
        has = "has" if sum(dead) == 1 else "have"
        told = also(told, f"{told.words}; {sum(dead)} of {of} seeds {has} no gradient", "dead")
    mute = [silent(one) for i, none in enumerate(dead) if not none for one in each[:, i]]
    if any(mute):
        most = 2 * sum(mute) > len(mute)  # a mini-batch of 2 may well have none now and then
        share, whose = "most" if most else "some", "the seeds'" if of > 1 else "the"
        words = f"{told.words}; no gradient at {share} of {whose} last {len(each)} steps"
        told = also(told, words, "dead" if most else told.tone)
    return told


def gone_in_words(broke: list[tuple[int, int]], of: int) -> str:
    """Which of so many seeds diverged, and where the first did; `broke` has step and layer of each. Empty for none."""
    if not broke:
        return ""
    (first, place), n = outbreak(broke), len(broke)
    if of == 1:
        return f"diverged at step {first:,}, first in {place}"
    which = f"{n} of {of} seeds" if n < of else "both seeds" if of == 2 else f"all {of} seeds"
    return f"{which} diverged, first at step {first:,} in {place}"


def rows(trace: Trace, quantity: str, arm: int, step: int, recent: int) -> tuple[range, np.ndarray]:
    """The last `recent` steps up to `step`, and a quantity at them, [n, seeds, L]; fewer steps where the run is younger
    or keeps fewer as they were seen. Where only one is asked for or kept so, n = 1: what Trace.at() gives."""
    if recent > 1:
        stop = min(step + 1, trace.experiment.settings.steps)
        series = trace.read(quantity, arm, start=max(0, stop - recent), stop=stop)
        exact = series.steps[np.flatnonzero(np.diff(series.steps) > 1).max(initial=-1) + 1 :]  # behind the buckets
        if len(exact) > 1:
            return range(exact[0], exact[-1] + 1), series.mean[-len(exact) :]
    at, values = trace.at(quantity, arm, step)
    return at, values[None]


def silent(norms: np.ndarray) -> bool:
    """Whether no signal arrives at layer 1 of a network, norms [L], and not for being too small for float32."""
    there = np.flatnonzero(norms > 0)
    return norms[0] == 0 and (not len(there) or norms[there[0]] > FAINT)


def cause(trace: Trace, arm: int, step: int, recent: int, places: np.ndarray, norms: np.ndarray) -> str:
    """Why nothing arrives at layer 1 of these seeds, norms [seeds, L], as far as it is recorded: ', as all units of
    layer 18 are dead'; else empty."""
    try:
        dead, weights = (rows(trace, name, arm, step, recent)[1][:, places] for name in ("dead", "weight_norm"))
    except KeyError:
        return ""
    dead = dead.min(0)
    if not weights.any():
        return ", as all weights are 0"
    ends = [int(np.flatnonzero(one == 0).max(initial=-1)) for one in norms]  # the highest layer without a signal
    if min(ends) < 0 or any(share[end] < 1 for share, end in zip(dead, ends, strict=True)):
        return ""
    return f", as all units of {f'layer {ends[0] + 1}' if len(set(ends)) == 1 else 'a layer'} are dead"


def saturated(trace: Trace, arm: int, step: int, recent: int, places: np.ndarray) -> str:
    """Whether a layer of these seeds has at each of these steps no unit left that is not saturated for the whole
    mini-batch: 'all units of layer 6 are saturated'; else empty. What signal there is may pass all layers alike, and
    teaches nothing."""
    try:
        full = (rows(trace, "dead", arm, step, recent)[1][:, places] == 1).all(0)
    except KeyError:
        return ""
    layers, counts = np.flatnonzero(full.any(0)) + 1, full.sum(1)
    some, least, most = int(full.any(1).sum()), int(min(counts[counts > 0], default=0)), int(counts.max())
    which = f"layer {layers[0]}" if len(layers) == 1 else f"{most} layer{'s' * (most > 1)}"
    which = which if least == most else f"{least} to {most} layers"
    with_some = f" in {some} of {len(full)} seeds" if some < len(full) else ""
    return f"all units of {which} are saturated{with_some}" if some else ""


def of_the_living(norms: np.ndarray, at: range, when: str) -> Verdict:
    """The verdict on networks that have not diverged, norms [seeds, L]; `when` as points.when_in_words() says it."""
    middle = geometric_norm(norms)
    depth, there = len(middle), np.flatnonzero(middle > 0)
    if depth < 2:
        return Verdict(at, 1.0, "healthy", "one hidden layer", "With one hidden layer there is no factor per layer.")
    factor = fitted_factor(middle)
    if silent(middle) or not np.isfinite(factor):
        until = f"below layer {there[0] + 1}" if len(there) else "in any layer"
        help = f"{when.capitalize()} no signal gradient is recorded {until}."
        return Verdict(at, 0.0, "dead", f"no gradient {until}", help)
    left_out = ", excluding the first three and last three layers" if depth >= DEEP else ""
    how = f"Factor of ‖dE/da‖ from layer to layer towards the input, fitted {when}{left_out}."
    less = f"a change of less than {STEEP}-fold per layer (or {SLIGHT}-fold in all)"
    rule = f"Healthy means {less} and of less than {HEALTHY}-fold over all {depth} layers. {ALONE}"
    help = f"{how} {rule}"
    per_layer = f"×{rounded(factor, 2)} per layer{' in the middle' if depth >= DEEP else ''}"
    if middle[0] == 0:  # what is left above it goes on falling
        words = f"vanishing: {per_layer}, layer 1's signal is below what float32 holds"
        return Verdict(at, factor, "vanishing", words, help)
    if np.isinf(middle).any():
        words = f"exploding: {per_layer}, above what float32 holds in layer {np.flatnonzero(np.isinf(middle))[-1] + 1}"
        return Verdict(at, factor, "exploding", words, help)
    fall, rise = steepest(middle), steepest(1 / middle)
    tone = "healthy" if max(fall[0], rise[0]) <= HEALTHY else "vanishing" if fall[0] > rise[0] else "exploding"
    steep = not 1 / STEEP < factor < STEEP and max(fall[0], rise[0]) > SLIGHT
    if min(fall[0], rise[0]) > HEALTHY or steep:  # the lines' slope decides
        tone = "vanishing" if factor < 1 else "exploding"
    if tone == "healthy":  # the fitted factor may point the other way than the ends, and does not matter here
        ratio = float(middle[0] / middle[-1])
        mean = rounded(ratio ** (1 / (depth - 1)), 2)
        mean = "" if mean == "1.00" else f", ×{mean} per layer on average"
        help = f"Factors of ‖dE/da‖ towards the input {when}. {rule}"
        return Verdict(at, factor, tone, f"healthy gradient: layer 1 gets {share(ratio, depth)}{mean}", help)
    _, low, high = fall if tone == "vanishing" else rise
    low = 0 if 1 / STEEP < middle[0] / middle[low] < STEEP else low
    far = middle[low] / middle[-1]
    high = depth - 1 if (far * HEALTHY < 1 if tone == "vanishing" else far > HEALTHY) else high
    end = share(middle[low] / middle[high], high + 1)
    turn = "dips" if tone == "vanishing" else "rises"
    end = f"layer 1 gets {end}" if low == 0 else f"{turn} to {end} at layer {low + 1}"
    points_there = (factor < 1) == (tone == "vanishing")
    multiplied = factor ** (high - low) / (middle[low] / middle[high])
    if depth < DEEP and not 0.5 < multiplied < 2:  # whoever multiplies finds another end
        per_layer += " (fitted)"
    per_layer = f"{per_layer}, " if points_there and high - low > 1 else ""  # of a single step it is another number
    return Verdict(at, factor, tone, f"{tone}: {per_layer}{end}", help)


def steepest(norms: np.ndarray) -> tuple[float, int, int]:
    """How many fold norms [L] fall most from a layer to one below it, towards the input: (fold, below, above)."""
    there = np.where(norms > 0, norms, np.nan).astype(float)
    above = np.fmax.accumulate(there[::-1])[::-1]  # the greatest of each layer and those above it
    low = int(np.nanargmax(above / there))
    return float(above[low] / there[low]), low, low + int(np.nanargmax(there[low:]))


def share(ratio: float, layer: int) -> str:
    """A share of a layer's signal in words: '8.9×10⁻¹³ of layer 20's signal', 'as much signal as layer 20'."""
    told = rounded(ratio)
    if told == "1":
        return f"as much signal as layer {layer}"
    return f"{told} {'of' if ratio < 1 else 'times'} layer {layer}'s signal"


def rounded(value: float, decimals: int = 0) -> str:
    """Two digits that count: 0.0026, 1.4, 130, 1.2×10⁻⁸; between 0.1 and 100 at least so many decimals."""
    return f"{value:.{decimals}f}" if decimals and 0.0995 <= value < 99.5 else amount(value, 2)


def spoken(trace: Trace, arm: int, step: int) -> str:
    """The verdict as a sentence for a note: 'BN: healthy gradient ...' or 'BN diverged at ...'."""
    told = verdict(trace, arm, step).words
    return f"{label(trace, arm)}{'' if told.startswith('diverged') else ':'} {told}."
