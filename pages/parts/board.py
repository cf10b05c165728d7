"""The upper half of the Lab: which run is looked at, the buttons that steer it, and its board."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from bnlab.database import Error, told
from bnlab.experiment import Experiment
from bnlab.run import Run

from . import chooser, live, steering
from .session import Session
from .words import capital, escaped, listed


def show(me: Session, experiment: Experiment | None, wrong: list[str]) -> Run | None:
    """Name, buttons and board of the run that is looked at; returns it. None where there is no run at all."""
    steering.grant(me, experiment)
    run = chooser.looked_at(me)
    chooser.show(me, run)
    steering.buttons(me, run, wrong, experiment is not None and run is not None and run.experiment != experiment)
    with st.container():  # always there, as those below: what comes and goes must not move the chart to another place
        if wrong:
            st.error(f"Not ready to train:\n\n{listed(wrong)}", icon=":material/error:")
    say(me)
    with st.container():
        chooser.beside(me, run)
    if run is None:
        st.info("No run yet. Press Train: the arms learn side by side, and every step is recorded.")
        return None
    live.board(run.id, run.status)
    return run


def say(me: Session) -> None:
    """What went wrong since the last drawing of the page; the place for it is always there."""
    with st.container():
        if said := me.take("said"):
            st.error(escaped(capital(said)), icon=":material/error:")


@contextmanager
def what_cannot_be_read() -> Iterator[None]:
    """Says in its place what is wrong with the file of the runs, where that keeps a page from being drawn."""
    try:
        yield
    except Error as error:
        logging.getLogger(__name__).exception("A page could not be drawn")
        st.error(escaped(told(error)), icon=":material/error:")
