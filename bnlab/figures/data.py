"""What a data set looks like: its examples in the plane, its images, the scales of its features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data import DATASETS, split
from . import style

SHOWN = 500  # examples drawn
IMAGES = 20  # two of each digit
ACROSS = 5  # images in a row
PIXELS = 8  # of an image's edge
HEIGHT = 290  # pixels of a panel


class Preview(NamedTuple):
    """The training set at a glance.

    points: [n, 2] the first SHOWN examples: their two features, or their first two principal components; share: [2]
    of the variance that each of the two carries. target: [n] class or value. scales: [n_features] standard
    deviations over the training set. images: [IMAGES, 8, 8], in the order of their classes, for digits, else None.
    """

    points: np.ndarray
    share: np.ndarray
    target: np.ndarray
    scales: np.ndarray
    images: np.ndarray | None


def preview(name: str, standardize: bool) -> Preview:
    """Raises KeyError for an unknown data set."""
    DATASETS[name]
    (x, y), _ = split(name, standardize)
    centered = x - x.mean(0)
    if x.shape[1] == 2:
        points, share = x, centered.var(0) / centered.var(0).sum()
    else:
        _, s, axes = np.linalg.svd(centered, full_matrices=False)
        points, share = centered @ axes[:2].T, s[:2] ** 2 / (s**2).sum()
    images = None
    if name == "digits":
        raw, classes = split(name, False)[0]  # images as they are, whatever the networks get
        both = [np.flatnonzero(classes == c)[: IMAGES // 10] for c in range(10)]
        images = raw[np.concatenate(both)].reshape(-1, PIXELS, PIXELS)
    return Preview(points[:SHOWN], share, y[:SHOWN], x.std(0), images)


def data(name: str, standardize: bool) -> go.Figure:
    """The examples in the plane (PC: principal component); beside them images, or the scales of the features."""
    told, about = preview(name, standardize), DATASETS[name]
    single = len(told.scales) == 2
    figure = make_subplots(1, 1 if single else 2, horizontal_spacing=0.14)
    if about.task == "regression":
        targets(figure, told)
    else:
        classes(figure, told, about.n_classes)
    planes = [f"feature {i}" if single else f"PC {i}, {told.share[i - 1]:.0%} of the variance" for i in (1, 2)]
    figure.update_xaxes(title=planes[0], row=1, col=1)
    figure.update_yaxes(title=planes[1], row=1, col=1)
    if told.images is not None:
        mosaic(figure, told.images)
    elif not single:
        scales(figure, told.scales)
    scaled = "standardized" if standardize else "in their own scales"
    sizes = f"{about.n_train:,} examples to train, {about.n_test:,} to test; {about.n_features} features, {scaled}."
    note = f"{about.help} {sizes} Shown: {len(told.points)} of the training set."
    return style.finished(figure, height=HEIGHT, note=note)


def classes(figure: go.Figure, told: Preview, n: int) -> None:
    for c in range(n):
        of = told.target == c
        figure.add_scatter(
            x=style.numbers(told.points[of, 0]), y=style.numbers(told.points[of, 1]), mode="markers", name=f"{c}",
            marker={"color": style.color(c), "symbol": style.symbol(c + c // 6), "size": 5, "opacity": 0.75},
            hovertemplate=f"class {c}: %{{x:,.3g}}, %{{y:,.3g}}<extra></extra>", row=1, col=1,
        )  # fmt: skip
    figure.update_layout(legend={"title": {"text": "class "}})


def targets(figure: go.Figure, told: Preview) -> None:
    where = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "len": 0.4}
    bar = {"title": {"text": "target y (standard deviations)", "side": "top"}, "thickness": 8, **where}
    figure.add_scatter(
        x=style.numbers(told.points[:, 0]), y=style.numbers(told.points[:, 1]), mode="markers", showlegend=False,
        marker={"color": style.numbers(told.target), "colorscale": "Viridis", "size": 6, "colorbar": bar},
        customdata=style.numbers(told.target), hovertemplate="y = %{customdata:.2f} standard deviations<extra></extra>",
        row=1, col=1,
    )  # fmt: skip


def mosaic(figure: go.Figure, images: np.ndarray) -> None:
    """The images as one picture, ACROSS in a row, with a pixel of space between."""
    framed = np.pad(images, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    rows = framed.reshape(-1, ACROSS, *framed.shape[1:]).transpose(0, 2, 1, 3)
    picture = rows.reshape(-1, ACROSS * framed.shape[2])
    figure.add_heatmap(z=style.numbers(picture), colorscale="Greys", showscale=False, hoverinfo="skip", row=1, col=2)
    figure.update_xaxes(visible=False, row=1, col=2)
    figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x2", row=1, col=2)


def scales(figure: go.Figure, deviations: np.ndarray) -> None:
    figure.add_bar(
        x=np.arange(1, len(deviations) + 1), y=style.numbers(deviations), marker={"color": style.GRAY},
        showlegend=False, row=1, col=2, hovertemplate="feature %{x}: standard deviation %{y:,.3g}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="feature", row=1, col=2)
    figure.update_yaxes(title="standard deviation", type="log", row=1, col=2)
