"""Jacobians of the layers and of their products, and the rank of what they pass on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..probes.jacobian import SINGULAR, WIDEST
from . import style
from .looks import each, finished, line, lost, mode, newest, present, titled
from .options import STEP, About
from .predicted import of

if TYPE_CHECKING:
    from ..reading import Trace
    from ..settings import Settings


def jacobians(trace: Trace, *, step: int) -> go.Figure:
    """Singular values of each layer's Jacobian and of the products to the top: root mean square and greatest."""
    told = each(trace, "jacobian", step)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure, exact = make_subplots(1, 3, horizontal_spacing=0.1), "layer_rms" in arms[0][2]
    for arm, name, found in arms:
        layers = np.arange(1, found["training"].shape[1] + 1)
        for column, (key, x) in enumerate((("layer", layers + 1), ("product", layers)), 1):
            middle, greatest = mean_square(found, key), directions(found[key])[:, 4]
            line(figure, x, middle, name, arm, column, style.dash(arm), column == 1)
            line(figure, x, greatest, f"{name}, greatest", arm, column, "dot", False)
        line(figure, layers, present(found["training"]), name, arm, 3, style.dash(arm), False)
        if at == 0:
            law = product_law(trace.experiment.arm_settings[arm])
            figure.add_scatter(
                x=layers, y=np.where(np.isfinite(law), law, np.nan), mode="markers", legendgroup=name, showlegend=False,
                marker={"color": style.color(arm), "symbol": "circle-open", "size": 6}, row=1, col=3,
                hovertemplate=f"layer %{{x}}: %{{y:.3g}}<extra>{name}, by the law</extra>",
            )  # fmt: skip
    inference = "single examples, inference mode"
    titled(
        figure, "layer l", f"singular values of J<sub>l</sub>, {inference}",
        f"of J<sub>L</sub> … J<sub>l+1</sub>, {inference}", f"their root mean square, {mode(trace)}",
    )  # fmt: skip
    if np.isnan([found["layer"] for *_, found in arms]).all():
        words = f"Layers wider than {WIDEST} units are not taken apart one by one: only the right panel is measured."
    else:
        spans = ", ".join(f"{name} {stretch(found)}" for _, name, found in arms)
        gone = [f"{name} {share} of the product's" for _, name, found in arms if (share := lost_share(found))]
        words = (
            "Inference mode: of some examples, each exactly; root mean square and greatest (dotted). Greatest over "
            f"root mean square from layer 1 to the top: {spans}."
            if exact
            else "Inference mode: of some examples, each exactly; the greatest (dotted)."
        )
        if gone:
            words += (
                f" Directions as good as lost, singular values below 10⁻¹² of the greatest: {', '.join(gone)}. Layers "
                "that shrink some directions more than others lose them with depth; one layer loses those behind a "
                "unit without a slope."
            )
        cold = [s for s in trace.experiment.arm_settings if s.norm == "batch"] if at == 0 and not exact else []
        if cold:
            words += " At step 0 the moving averages stand at 0 and 1: in inference mode batch norm does nothing yet."
    coupled = (
        "Right: batch norm couples the examples, so the Jacobian is that of the whole mini-batch, looked at with "
        "random vectors."
    )
    frozen = mode(trace).startswith("training with frozen")
    rings = "Rings: the law of random initial networks, the factors of the signal gradient multiplied." * (at == 0)
    return finished(figure, 440, f"Step {at}.", words, "" if frozen else coupled, rings, *lost(trace, at).values())


def mean_square(found: dict[str, np.ndarray], key: str) -> np.ndarray:
    """Root mean square singular value; NaN in looks of an older version, which did not measure it."""
    return present(found[f"{key}_rms"]) if f"{key}_rms" in found else np.full(found[key].shape[1], np.nan)


def product_law(settings: Settings) -> np.ndarray:
    """Root mean square singular value of J_L ... J_{l+1} in the initial network, l = 1..L-1, by the theory: the layers'
    growth factors multiplied."""
    growth, profile = of(settings)
    return profile.signal_norm[1:] * growth.signal_norm


def directions(quantiles: np.ndarray) -> np.ndarray:
    """Quantiles of singular values, mean over the seeds, [n, 5]; 0 where only rounding is left of them."""
    q = present(quantiles)
    return np.where(q < SINGULAR * q[:, 4:], 0.0, q)


def stretch(found: dict[str, np.ndarray]) -> str:
    """Greatest singular value of the product from layer 1 to the top over the root mean square."""
    greatest, middle = directions(found["product"])[0, 4], mean_square(found, "product")[0]
    if not greatest > 0:
        return "nothing passes"
    return f"{greatest / middle:.2g}"


def lost_share(found: dict[str, np.ndarray]) -> str:
    """Which share of the directions from layer 1 to the top is lost; "" where none is."""
    if "product_lost" in found:
        share = float(present(found["product_lost"])[0])
        return f"{share:.0%}" if share >= 0.005 else ""
    gone = (directions(found["product"])[0] == 0).sum()
    return ("", "some", "a quarter or more", "half or more", "three quarters or more", "all")[gone]


def ranks(trace: Trace, *, step: int) -> go.Figure:
    """Effective rank and mean cosine of the layers' outputs."""
    told = each(trace, "rank", step)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    for arm, name, found in arms:
        layers = np.arange(1, found["rank"].shape[1] + 1)
        line(figure, layers, present(found["rank"]), name, arm, 1, style.dash(arm), True, log=False)
        line(figure, layers, present(found["cosine"]), name, arm, 2, style.dash(arm), False, log=False)
    titled(figure, "layer l", "effective rank", "mean cosine of two examples", log=False)
    note = f"Step {at}, the coming mini-batch, {mode(trace)}. Rank 1, cosine 1: all examples lie on one line."
    return finished(figure, style.HEIGHT, note, *lost(trace, at).values())


ABOUT = {
    "jacobians": About(
        "Jacobians",
        "dE/dw of layer 1 holds the product of all later layers' Jacobians: below 1 it vanishes, above 1 it explodes.",
        jacobians,
        (STEP,),
        newest("jacobian"),
    ),
    "ranks": About(
        "Rank of the representations",
        "Do deep layers still tell the examples apart?",
        ranks,
        (STEP,),
        newest("rank"),
    ),
}
