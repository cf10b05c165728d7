"""What follows a run without rerunning the page: the chart (chart.js) and the board of cards (board.js).

Both pull from the routes of bnlab/api.py, at addresses beside the page's own: another server may show the lab below a
path. A rerun of the page only changes what is followed. And two that every page has: history.js, with which the
browser's Back goes from page to page, and keyboard.js.
"""

from pathlib import Path
from urllib.parse import urlencode

import plotly
import streamlit as st

HERE = Path(__file__).parent

# a component's script is one text: these files, one after the other
CHART = "following.js", "builds.js", "zoom.js", "stacked.js", "aloud.js", "picture.js", "drawing.js", "chart.js"
BOARD = "following.js", "board.js"


def script(*names: str) -> str:
    """These files as one text."""
    texts = [(HERE / name).read_text(encoding="utf-8") for name in names]
    return "\n".join(texts).replace("PLOTLY_VERSION", plotly.__version__)


css = script("live.css")
_chart = st.components.v2.component("live_chart", css=css, js=script(*CHART), isolate_styles=False)
_board = st.components.v2.component("live_board", css=css, js=script(*BOARD), isolate_styles=False)
_history = st.components.v2.component("live_history", css=css, js=script("history.js"), isolate_styles=False)
_keyboard = st.components.v2.component("live_keyboard", css=css, js=script("keyboard.js"), isolate_styles=False)


def history() -> None:
    """One entry in the browser's history for each page that is opened."""
    _history(key="history")


def keyboard() -> None:
    """Focus that is not lost with a button that goes away, and popovers within reach of Tab."""
    _keyboard(key="keyboard")


def chart(address: str, options: dict[str, str], title: str, text: str = "", run: str = "") -> None:
    """The figure that a route serves, redrawn in place while its run goes on; zoom, hover and hidden curves stay.
    Where no board does so, it asks for a rerun when its run is gone.

    title, text: what is read aloud in its place. title, run: what stands above it in a downloaded picture.
    """
    words = {"label": f"{title}. {text}" if text else title, "title": title, "run": run}
    _chart(
        key=f"chart-{address.rpartition('/')[2]}",
        data={"address": address, "query": urlencode(options)} | words,
        on_deleted_change=lambda: None,
    )


def board(run_id: str, status: str) -> None:
    """The run's state in words, its progress, and one card an arm; asks for a rerun when `status` is no longer true, or
    the run is gone."""
    _board(key="board", data={"address": f"api/runs/{run_id}", "status": status}, on_status_change=lambda: None)
