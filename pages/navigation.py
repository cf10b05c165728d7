"""The list of pages, and what they share: the window's title, which begins with the page's, and its frame."""

import streamlit as st

from pages.parts import board, live, session

# first: without it the window has a page's icon, which the browser gets from elsewhere
st.set_page_config(page_icon="📈", layout="wide", initial_sidebar_state=360)
page = st.navigation(
    [
        st.Page("lab.py", title="Lab", icon=":material/science:", default=True),
        st.Page("inference.py", title="Inference", icon=":material/functions:"),
        st.Page("why.py", title="Why it works", icon=":material/psychology:"),
        st.Page("runs.py", title="Runs", icon=":material/history:"),
    ],
    position="top",
)
st.set_page_config(page_title=f"{page.title} · Batch Normalization Lab")
session.turn(page.url_path)
with board.what_cannot_be_read():
    page.run()
live.history()  # last: these have no size, but what follows them a gap
live.keyboard()
