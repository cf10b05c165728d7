"""Experiments that answer a question of the page Why: loaded into the Lab with one click."""

from __future__ import annotations

import streamlit as st

from bnlab.experiment import Arm, Experiment
from bnlab.settings import Settings

from . import session

BN = {"norm": "batch"}
PRESETS = {  # name -> (what it answers, the experiment)
    "Noisy batch norm": (
        "Batch norm whose outputs are shifted and scaled at random at every step: much more covariate shift, on "
        "purpose. Does it learn more slowly for it?",
        Experiment(
            settings=Settings(depth=12),
            arms=(
                Arm(label="no norm"),
                Arm(label="BN", changes=BN),
                Arm(label="noisy BN", changes=BN | {"noise_shift": 0.5, "noise_scale": 0.25}),
            ),
        ),
    ),
    "Several learning rates": (
        "The band over whole trainings with several learning rates, with and without batch norm: not the "
        "same as the loss along the gradient.",
        Experiment(
            settings=Settings(depth=6, activation="tanh"),
            arms=tuple(
                Arm(label=f"{label}, η = {rate:g}", changes=changes | {"learning_rate": rate})
                for label, changes in (("no norm", {}), ("BN", BN))
                for rate in (0.03, 0.3, 3.0)
            ),
        ),
    ),
    "Learned or fixed": (
        "Do gamma and beta matter? Batch norm with both learned, and fixed at 1 and 0.",
        Experiment(
            arms=(Arm(label="learned", changes=BN), Arm(label="fixed", changes=BN | {"rescale": "fixed"})),
        ),
    ),
    "ReLU: He, Xavier, batch norm": (
        "The laws at work: which gradients stay, vanish or grow on their way to the input? See Gradient flow.",
        Experiment(
            settings=Settings(depth=30, activation="relu"),
            arms=(
                Arm(label="He", changes={"init": "he"}),
                Arm(label="Xavier"),
                Arm(label="BN before", changes=BN),
                Arm(label="LN before", changes={"norm": "layer"}),
            ),
        ),
    ),
}


def show(me: session.Session) -> None:
    st.subheader("Experiments worth training", anchor=False)
    for name, (question, experiment) in PRESETS.items():
        left, right = st.columns([1, 3], vertical_alignment="center")
        help = "Loads it into the Lab."
        if left.button(name, key=f"preset-{name}", icon=":material/science:", help=help, width="stretch"):
            me.load(experiment)
            st.switch_page("lab.py")
        right.text(question)
