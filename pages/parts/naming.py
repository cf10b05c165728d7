"""What runs are called: labels that tell them apart, and a box in which one is renamed."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from bnlab import opened
from bnlab.database import Unkept
from bnlab.run import LONGEST_NAME, Run, checked_name

from . import session
from .session import Session
from .words import capital


def told_apart(runs: list[Run]) -> dict[str, str]:
    """A label for each run by its id, no two alike: the page knows a choice by its label."""
    labels: dict[str, str] = {}
    taken: set[str] = set()
    for run in runs:
        label = f"{started(run)} · {run.name}"  # what differs first: the end may be cut off
        labels[run.id] = label if label not in taken else f"{label} · {run.id}"
        taken.add(labels[run.id])
    return labels


def started(run: Run) -> str:
    """When the run was asked for: Nov 24, 18:53:32, with the year unless it is this one."""
    year = "" if run.created.year == datetime.now().year else f" {run.created.year}"
    return f"{run.created:%b %d}{year}, {run.created:%H:%M:%S}"


def rename_box(me: Session, run: Run | None, fixed: bool = False) -> None:
    """A button that opens the run's name for editing; the example's is `fixed`."""
    told = "The example keeps its name." if fixed else f"Another name, of at most {LONGEST_NAME} characters."
    key = f"rename-{run and run.id}"
    with st.popover(
        "Rename", icon=":material/edit:", disabled=run is None or fixed, help=told, key=key, on_change="rerun"
    ):
        if run is not None:
            typed = st.text_input("Name", run.name, key=f"name-{run.id}", on_change=rename, args=(me, run.id, key))
            try:
                checked_name(typed)
            except ValueError as error:
                st.error(capital(str(error)))


def rename(me: Session, run_id: str, key: str) -> None:
    """Give a run the name that was typed, and shut the box with this key, unless the name cannot be taken; that the run
    was deleted in another tab is said on the page."""
    try:
        opened.store().rename(run_id, session.value(f"name-{run_id}"))
    except KeyError as error:
        me.said = me.sentence(error, run_id)
    except Unkept as error:
        me.said = str(error)
        return
    except ValueError:
        return  # said below the name
    session.shut(key)
