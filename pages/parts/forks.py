"""Forking a run: choose an arm, a step with a snapshot and what changes; the fork trains beside its parent."""

from __future__ import annotations

import streamlit as st
from pydantic import ValidationError

from bnlab import opened
from bnlab.fork import CHANGEABLE, can_change
from bnlab.problems import problems
from bnlab.run import Run
from bnlab.settings import Settings, limits

from . import chooser, controls, session, steering
from .words import capital, escaped

# of those that can change an arm; not gamma and beta, whose "fixed at 1 and 0" would freeze them where they are
OFFERED = tuple(name for name in CHANGEABLE if name != "rescale")


def show(me: session.Session, run: Run) -> None:
    """The form; only runs of this server's store can be forked, at steps that have a snapshot. A fork that was just
    made is shown by the Lab, where it trains."""
    if me.take("forked"):
        st.switch_page("lab.py")
    st.header(
        "Fork this run",
        help="An arm continues from the exact weights at a step, once unchanged and once changed. Where nothing is "
        "changed, both are equal to the last bit.",
        anchor=False,
    )
    with st.container():
        if said := me.take("unforked"):
            st.error(escaped(capital(said)), icon=":material/error:")
    steps = opened.holder(run.id).trace(run.id).snapshots()
    if chooser.is_example(run):
        st.info("The example cannot be forked. Train a run of your own in the Lab.")
        return
    if not steps:
        st.info("No snapshot of the weights yet; they come with the scores.")
        return
    arm, step, more = beginning(run, steps)
    changes, wrong = changes_asked(run, arm)
    why_not = "" if changes else "Choose something that differs first."
    if wrong:
        why_not = "Correct the fields above first."
    with st.container(horizontal=True, vertical_alignment="center", key="fork-button"):
        st.button(
            "Fork and train", type="primary", icon=":material/fork_right:", key="fork-train", on_click=fork,
            args=(me, run.id, arm, step, changes, more), disabled=bool(why_not),
            help="Starts a new run and opens it in the Lab.",
        )  # fmt: skip
        if why_not:
            st.caption(why_not, width="stretch")  # a finger and the keyboard find no help at a button that is off


def beginning(run: Run, steps: list[int]) -> tuple[int, int, int]:
    """The arm and the step, one of these, from which the fork continues, and for how many steps."""
    norms = [settings.norm for settings in run.experiment.arm_settings]
    first = norms.index("batch") if "batch" in norms else 0
    end = run.made if run.status == "stopped" else run.experiment.settings.steps
    labels = [arm.label for arm in run.experiment.arms]
    with st.container(horizontal=True, vertical_alignment="bottom", key="fork"):
        arm = st.selectbox(
            "Arm",
            range(len(labels)),
            first,
            format_func=labels.__getitem__,
            key=f"fork-arm-{run.id}",
            width=200,
            help="Which arm continues, with all its seeds.",
        )
        choice = {
            "label": "At step",
            "options": steps,
            "format_func": "{:,}".format,
            "help": "The weights from which it continues; a snapshot was kept at these steps.",
            "key": f"fork-step-{run.id}",
            "width": 320,
        }
        step = st.select_slider(value=steps[len(steps) // 2], **choice) if len(steps) > 1 else st.selectbox(**choice)
        more = st.number_input(
            "Steps to train", 1, limits("steps")[1], end - step if step < end else max(1, end),
            key=f"fork-more-{run.id}-{step}", width=160,
            help="Default: as many as the run made, or had left, from there. At its last step, the fork extends the "
            "run by as many again.",
        )  # fmt: skip
    return arm, step, more


def changes_asked(run: Run, arm: int) -> tuple[dict[str, object], list[str]]:
    """The settings that are to differ from the arm's, and what is wrong with them, a sentence each."""
    settings = run.experiment.arm_settings[arm]
    beside = settings.model_dump()
    with st.container(horizontal=True, key="fork-changes"):
        changes, places = {}, {}
        for name in [name for name in OFFERED if name in can_change(settings)]:
            with st.container(width=230):
                key = f"fork-{name}-{run.id}-{arm}"
                changes[name] = controls.control(name, beside[name], key, beside)
                places[f"{name} is "] = controls.Place(st.empty(), name, key)
    changes = {name: value for name, value in changes.items() if value != beside[name]}
    wrong = mistakes(beside | changes)
    controls.complain(places, wrong)
    return changes, wrong


def mistakes(settings: dict) -> list[str]:
    """What is wrong with an arm's settings, a sentence each."""
    try:
        Settings.model_validate(settings)
    except ValidationError as error:
        return problems(error)
    return []


def origin(me: session.Session, run: Run | None) -> None:
    """Where a fork was forked from, with a way to that run while it is there; the place for it is always there."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="origin"):
        found = run and opened.store().origin(run.id)  # of the example, and of one that is gone by now, none
        if not found:
            return
        run_id, arm, step = found
        try:
            parent = opened.holder(run_id).run(run_id)
        except KeyError:
            st.caption(f"Forked at step {step:,} of a run that was deleted.")
            return
        label = escaped(parent.experiment.arms[arm].label)
        st.caption(f"Forked from {label} at step {step:,} of", width="content")
        st.button(
            escaped(parent.name), type="tertiary", icon=":material/fork_right:", key=f"origin-{run_id}",
            on_click=chooser.look_at, args=(me, run_id), help="Look at the run this one was forked from.",
        )  # fmt: skip


def fork(me: session.Session, run_id: str, arm: int, step: int, changes: dict, more: int) -> None:
    """Make the fork and let it train; what is wrong with it is said on the page."""
    if not chooser.is_shown(me, run_id):
        return
    try:
        run = opened.store().fork(run_id, arm, step, changes, more)
    except (KeyError, ValueError) as error:
        me.unforked = me.sentence(error, run_id)
        return
    if steering.let_train(me, run, "start"):
        me.open_run(run.id)
        me.forked = True
    else:
        me.unforked = me.take("said")
