"""Inference: what the network uses when there is no mini-batch."""

import streamlit as st

from bnlab.moving import conventions
from pages.parts import board, chooser, controls, forks, session, steering, views

me = session.begin()
st.title("Inference", anchor=False)
st.markdown(
    "In training batch norm takes mean and variance from the mini-batch. A single example has none: at inference "
    "**moving averages** or **population statistics** take their place. For batch norm, `model.train()` normalizes "
    "with the mini-batch and writes its statistics into the moving averages; `model.eval()` normalizes with the moving "
    "averages and writes nothing."
)
run = chooser.looked_at(me)
board.say(me)
if run is None:
    st.info("No run yet. Train one in the Lab; everything here is computed from its recorded steps and snapshots.")
else:
    chooser.show(me, run, title=None)
    steering.whole(me, run)
    views.show(run.id, views.INFERENCE)
    forks.show(me, run)

st.header("Conventions", anchor=False)
st.markdown(
    "The same batch norm in the notation of other libraries. α is the weight of the **old** value, PyTorch's momentum "
    "that of the new one."
)
whose, own = controls.normed_arm(run)
with st.container(horizontal=True):
    key = run.id if run else ""
    alpha = controls.number("alpha", own.alpha, 0.0, 1.0, 0.01, key)
    K = controls.number("batch_size", max(2, own.mini_batch), 2, own.n_train, 1, key, "K in (K-1)/K.")
for row in conventions(alpha, own.delta, K, own.width):
    st.code(row.line, language=None, wrap_lines=True)  # the light theme's color of a number is too pale
    times = "" if row.factor == 1 else f" times (K-1)/K = {row.factor:.6g}"
    equal = "" if row.library == "This lab" else f"; its moving variance{times} equals the lab's"
    st.caption(f"**{row.library}** averages the {row.averages} variance{equal}.")
st.caption(
    f"{whose} The factor applies to the averaged batch variances, not to the start at 1, which all libraries share."
)
session.write_address(me, me.asked()[0])
