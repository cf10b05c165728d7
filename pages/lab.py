"""The Lab: ask on the left, train, and watch."""

import streamlit as st

from pages.parts import arms, board, controls, forks, presets, session, views
from pages.parts.words import listed

me = session.begin()

with st.sidebar:
    asking = st.container()  # what the controls ask is known when all are read
    st.header("Arms")
    places = arms.editor(me)
    places |= controls.seeds(me)
    st.header("Shared settings")
    places |= controls.settings(me)
experiment, wrong = me.asked()
with asking:
    presets.menu(me)
with st.sidebar:
    wrong = controls.complain(places, wrong)
    arms.tell_alike(places, experiment)

above = st.container()  # always there: what comes and goes in it must not move the rest to another place
run = board.show(me, experiment, wrong)
if misread := me.misread(experiment):  # only now: Train has put the address right
    above.error(f"This address cannot be opened as it is:\n\n{listed(misread)}", icon=":material/link_off:")
forks.origin(me, run)
arms.swatches(me, run)
if run is not None:
    views.show(run.id)
session.write_address(me, experiment)
