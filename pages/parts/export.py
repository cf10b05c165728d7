"""What can be taken from a run: its ID, its experiment as a file, the command that writes its tables."""

from __future__ import annotations

import streamlit as st

from bnlab import opened
from bnlab.export import asked
from bnlab.run import Run

TABLES = (
    "Writes what was recorded as CSV files, one for each table, into a new folder. It is for a terminal in the lab's "
    "directory on the machine where the lab runs. DIR, if it is there, stands for the directory that BNLAB_STORE names."
)
QUESTION = "Settings, arms and seeds in JSON. It trains with `python -m bnlab train FILE.json --out DIR`."
A_FORK = " From the file a fork begins at step 0, not from the weights it was forked from."


def box(run: Run) -> None:
    """A button that opens them; they are made only while it is open."""
    told = "Its ID, its experiment as a file, and the command that writes its tables."
    with st.popover(
        "Export", icon=":material/download:", help=told, key=f"export-{run.id}", on_change="rerun"
    ) as popover:
        if not popover.open:
            return
        st.markdown("Run ID", help="Names this run in an address, `?run=ID`, and in commands, `--run ID`.")
        st.code(run.id, language=None)
        fork = opened.store().origin(run.id) is not None
        st.download_button(
            "Experiment file", asked.file(run), f"{run.id}.json", "application/json", key=f"file-{run.id}",
            icon=":material/description:", on_click="ignore", help=QUESTION + A_FORK * fork,
        )  # fmt: skip
        st.markdown("Command for its tables", help=TABLES)
        st.code(asked.command(run, opened.directory()), language=None, wrap_lines=True)
