"""Traces in, plotly figures out. A figure first computes a small typed tuple, which the tests check, then draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from ..registry import Registry
from . import (
    alphas,
    broken,
    contest,
    curves,
    dials,
    distributions,
    gamma_beta,
    gaps,
    geometry,
    gradients,
    inference,
    jacobians,
    moving,
    predicted,
    rates,
    saturation,
    single,
    style,
    surface,
)
from .options import Option, Plot, asked, lacking, nearest, part
from .told import told

if TYPE_CHECKING:
    from ..reading import Trace

NEAR = 64  # snapshots before the newest among which one is sought that has been looked at

FIGURES: Registry[Plot] = Registry("figure")
for more in (
    curves,
    gradients,
    moving,
    gamma_beta,
    distributions,
    saturation,
    predicted,
    inference,
    alphas,
    gaps,
    broken,
    single,
    dials,
    contest,
    rates,
    jacobians,
    geometry,
    surface,
):
    for name, plot in more.PLOTS.items():
        FIGURES[name] = plot


def check(name: str, trace: Trace, query: Mapping[str, str]) -> None:
    """Raises KeyError for an unknown name and ValueError with a sentence for a bad option."""
    asked(FIGURES[name].options, query, trace)


def draw(name: str, trace: Trace, query: Mapping[str, str]) -> go.Figure:
    """The figure `name` with options from a query's text.

    Raises KeyError for an unknown name and ValueError with a sentence for a bad option.
    """
    plot = FIGURES[name]
    values = asked(plot.options, query, trace)
    why = lacking(plot, trace)
    figure = style.said(why) if why else plot.draw(trace, **values)
    if "said" not in figure.layout.meta:
        figure.layout.meta["note"] = f"{figure.layout.meta['note']} {nearest(query, values, trace)}".strip()
        figure.layout.meta |= {"told": told(figure), "of": part(plot.options, values, trace)}
    return figure


def needs(name: str, trace: Trace, query: Mapping[str, str]) -> list[tuple[str, int, dict]]:
    """The looks (probe, step, options) that the figure draws and that have not been taken yet. Raises as draw()."""
    plot = FIGURES[name]
    if plot.needs is None:
        return []
    wanted = plot.needs(trace, **asked(plot.options, query, trace))
    return [(probe, step, of) for probe, step, of in wanted if trace.look(probe, 0, step, **of) is None]


def settle(name: str, trace: Trace, query: Mapping[str, str]) -> None:
    """Let the trace end at its newest snapshot at which all looks are there that the figure draws; leave it where there
    is none. While a run trains, its newest snapshot has seldom been looked at yet; that of a run which has ended comes.
    Raises as draw()."""
    if trace.run.ended or not needs(name, trace, query):
        return
    plot = FIGURES[name]
    for step in reversed(trace.snapshots()[-NEAR:]):
        trace.horizon = step
        wanted = plot.needs(trace, **asked(plot.options, query, trace))  # none: there is nothing to be seen at it
        if wanted and not needs(name, trace, query):
            return
    trace.horizon = None


__all__ = ["FIGURES", "Option", "Plot", "check", "draw", "needs", "settle"]
