"""The lower half of the Lab: the views of a run, of which only the open one costs anything."""

from __future__ import annotations

from bnlab.store import Run

from . import live


def show(run: Run | None) -> None:
    live.chart(run.id, "loss", {}, "Loss") if run else None
