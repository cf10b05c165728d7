"""Jacobians of the layers and of their products, and the rank of what they pass on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..probes.jacobian import WIDEST
from ..problems import series
from . import style
from .lasting import room
from .looks import OLD, absent, each, finished, line, middle, newest, seeds, titled
from .means import present
from .options import STEP, Plot, having, lower
from .predicted import of

if TYPE_CHECKING:
    from ..reading import Trace

LAYER, PRODUCT = "J<sub>l</sub>", "J<sub>L</sub> … J<sub>l+1</sub>"
WIDE = f"Layers wider than {WIDEST} units are not taken apart one by one."
SHALLOW = "Jacobians between hidden layers need 2 or more of them. Raise depth."
Arms = list[tuple[int, str, dict[str, np.ndarray]]]


def wide(trace: Trace) -> bool:
    return all(settings.width > WIDEST for settings in trace.experiment.arm_settings)


def measured(trace: Trace, step: int) -> tuple[int, Arms] | go.Figure:
    """The step and (arm, label, what was seen), or the figure that says why there is nothing."""
    deep = having(trace, 2)
    told = each(trace, "jacobian", step, deep) if deep else style.said(SHALLOW)
    if isinstance(told, tuple) and any("layer_condition" not in found for *_, found in told[1]):
        return style.said(OLD)
    return told


def one_by_one(trace: Trace, step: int) -> tuple[int, Arms] | go.Figure:
    """The same, where the examples' Jacobians were taken apart."""
    told = measured(trace, step)
    if isinstance(told, tuple) and wide(trace):
        return style.said(WIDE)
    return told


def left(trace: Trace, at: int, arms: Arms) -> list[str]:
    """What to say of the networks that are not drawn."""
    return [*absent(trace, at, arms, having(trace, 2)), lower(trace, 2).strip()]


def jacobians(trace: Trace, *, step: int) -> go.Figure:
    """Size of each layer's Jacobian and of the products to the top: root mean square and greatest singular value."""
    told = measured(trace, step)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(1, 3, horizontal_spacing=0.1)
    for arm, name, found in arms:
        layers = np.arange(1, found["training"].shape[1] + 1)
        for column, (key, x) in enumerate((("layer", layers + 1), ("product", layers)), 1):
            line(figure, x, found[f"{key}_rms"], name, arm, column, column == 1, what="root mean square")
            line(figure, x, found[key][..., 4], name, arm, column, False, pale=True, what="greatest")
        line(figure, layers, found["training"], name, arm, 3, False)
        if at == 0:
            law = of(trace.experiment.arm_settings[arm])[1].product_norm
            figure.add_scatter(
                x=layers, y=np.where(np.isfinite(law), law, np.nan), mode="markers", legendgroup=name, showlegend=False,
                marker={"color": style.color(arm), "symbol": "circle-open", "size": 6}, row=1, col=3,
                hovertemplate=f"layer %{{x}}: %{{y:,.3g}}<extra>{name}, by the law</extra>",
            )  # fmt: skip
    own = (f"singular values of {what}, inference mode" for what in (LAYER, PRODUCT))
    titled(figure, "layer l", *own, f"rms singular value of {PRODUCT}, whole mini-batch")
    words = f"{inference(trace)}, each exactly; root mean square, and thin the greatest. "
    words += f"The whole mini-batch: {trace.experiment.training_mode}."
    if wide(trace):
        words = f"{WIDE} Measured is only the root mean square, {trace.experiment.training_mode}."
    coupled = (
        "In training mode batch norm couples the examples, so there the Jacobian is that of the whole mini-batch, "
        "looked at with random vectors."
    )
    frozen = trace.experiment.statistics == {"moving"}
    notes = [f"Step {at:,}.", words]
    if not frozen:
        notes.append(coupled)
    if at == 0:
        notes.append("Rings: the law of random initial networks, the factors of the signal gradient multiplied.")
    return finished(figure, 440, *notes, seeds(trace), *left(trace, at, arms))


def inference(trace: Trace) -> str:
    """What the panels of single examples look at, and what batch norm normalizes with there."""
    told = {"batch": "population statistics", "moving": "its frozen moving averages"}
    with_what = " or ".join(told[kind] for kind in sorted(trace.experiment.statistics))
    return "Some examples one by one, inference mode" + (f", batch norm with {with_what}" if with_what else "")


def spectra(trace: Trace, *, step: int) -> go.Figure:
    """How the singular values are distributed, arm beside arm: of each layer's Jacobian, and of the products below."""
    told = one_by_one(trace, step)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(
        2, len(arms), shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.02, vertical_spacing=0.06,
        column_titles=[style.title(trace, arm) for arm, *_ in arms],
    )  # fmt: skip
    figure.update_annotations(font_size=13)
    for column, (arm, name, found) in enumerate(arms, 1):
        layers = np.arange(1, found["layer"].shape[1] + 1)
        for row, (key, x) in enumerate((("layer", layers + 1), ("product", layers)), 1):
            least, low, median, high, greatest = middle(found[key]).T
            place = {"row": row, "col": column}
            style.band(figure, x, least, greatest, style.color(arm), name, False, 0.15, **place)
            style.band(figure, x, low, high, style.color(arm), name, False, 0.3, **place)
            spans = np.stack([least, low, high, greatest, middle(found[f"{key}_condition"])], 1)
            figure.add_scatter(
                x=x, y=style.numbers(median), mode="lines+markers", name=name, legendgroup=name, showlegend=False,
                meta="median", line={"color": style.color(arm), "dash": style.dash(arm), "width": 1.6},
                marker={"symbol": style.symbol(arm), "size": 5}, customdata=style.numbers(spans),
                hovertemplate="layer %{x}: median %{y:,.3g}<br>middle half %{customdata[1]:,.3g} to "
                "%{customdata[2]:,.3g}<br>all %{customdata[0]:,.3g} to %{customdata[3]:,.3g}<br>"
                "condition number %{customdata[4]:,.3g}"
                f"<extra>{name}</extra>", **place,
            )  # fmt: skip
        figure.update_xaxes(title="layer l", row=2, col=column)
    for row, key in enumerate(("layer", "product"), 1):  # plotly's own choice for shared logarithmic axes may miss some
        values = np.log10(np.concatenate([middle(found[key]) for *_, found in arms]))
        if np.isfinite(values).any():
            figure.update_yaxes(type="log", range=room(np.nanmin(values), np.nanmax(values)), row=row)
    figure.update_yaxes(title=f"singular values of {LAYER}", row=1, col=1)
    figure.update_yaxes(title=f"singular values of {PRODUCT}", row=2, col=1)
    gone = [f"{name} {share}" for _, name, found in arms if (share := lost_share(found))]
    words = (
        f"Step {at:,}. {inference(trace)}. Line: median; dark: the middle half; light: least to greatest, of the "
        "directions that are not lost"
        + (", geometric means over the seeds." if len(trace.experiment.seeds) > 1 else ".")
    )
    if gone:
        words += (
            f" Lost, below 10⁻¹² of the greatest, from layer 1 to the top: {series(gone)} of the directions. Layers "
            "that shrink some directions more than others lose them with depth; one layer loses those behind a unit "
            "without a slope."
        )
    return finished(figure, 560, words, *left(trace, at, arms))


def conditions(trace: Trace, *, step: int) -> go.Figure:
    """Condition numbers of each layer's Jacobian and of the products to the top, and the directions they lose."""
    told = one_by_one(trace, step)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(1, 3, horizontal_spacing=0.1)
    for arm, name, found in arms:
        layers = np.arange(1, found["layer"].shape[1] + 1)
        line(figure, layers + 1, found["layer_condition"], name, arm, 1, True)
        line(figure, layers, found["product_condition"], name, arm, 2, False)
        line(figure, layers, found["product_lost"], name, arm, 3, False, log=False)
    titled(
        figure, "layer l", f"condition number of {LAYER}", f"condition number of {PRODUCT}", f"share lost by {PRODUCT}"
    )
    figure.update_yaxes(type="linear", tickformat=".0%", range=[-0.03, 1.03], row=1, col=3)
    words = (
        f"Step {at:,}. {inference(trace)}. Greatest over least singular value of the directions that are not lost, "
        "below 10⁻¹² of the greatest: median over the examples. A product with lost directions has no condition number "
        "of its own; this one is near 10¹²."
    )
    return finished(figure, style.HEIGHT, words, seeds(trace), *left(trace, at, arms))


def lost_share(found: dict[str, np.ndarray]) -> str:
    """Which share of the directions from layer 1 to the top is lost; "" where none is."""
    share = float(present(found["product_lost"])[0])
    return f"{share:.0%}" if share >= 0.005 else ""


def ranks(trace: Trace, *, step: int) -> go.Figure:
    """Effective rank and mean cosine of the layers' outputs."""
    told = each(trace, "rank", step)
    if isinstance(told, go.Figure):
        return told
    at, arms = told
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    for arm, name, found in arms:
        layers = np.arange(1, found["rank"].shape[1] + 1)
        line(figure, layers, found["rank"], name, arm, 1, True, log=False)
        line(figure, layers, found["cosine"], name, arm, 2, False, log=False)
    titled(figure, "layer l", "effective rank", "mean cosine of two examples", log=False)
    note = f"Step {at:,}, the next mini-batch, {trace.experiment.training_mode}. "
    note += "Rank 1, cosine 1: all examples lie on one line."
    if any((np.isnan(found["cosine"]) & np.isfinite(found["rank"])).any() for *_, found in arms):
        note += " No cosine where fewer than two examples have outputs other than 0; rank 0 where none has."
    return finished(figure, style.HEIGHT, note, seeds(trace, log=False), *absent(trace, at, arms))


PLOTS = {
    "jacobians": Plot(
        "Jacobians",
        "dE/dw of layer 1 holds the product of all later layers' Jacobians: below 1 it vanishes, above 1 it explodes.",
        jacobians,
        (STEP,),
        newest("jacobian"),
    ),
    "spectra": Plot(
        "Singular values",
        "An isometry, all singular values 1, would pass every direction on; a wide fan passes few of them.",
        spectra,
        (STEP,),
        newest("jacobian"),
    ),
    "conditions": Plot(
        "Condition number",
        "How unequally the layers, and all layers above together, treat the directions of a small change.",
        conditions,
        (STEP,),
        newest("jacobian"),
    ),
    "ranks": Plot(
        "Rank of the representations",
        "Do deep layers still tell the examples apart?",
        ranks,
        (STEP,),
        newest("rank"),
    ),
}
