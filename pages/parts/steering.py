"""The buttons that begin a run and steer it, and what they do."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from bnlab import opened
from bnlab.database import Unkept
from bnlab.experiment import Experiment
from bnlab.run import RESTING, UNDER_WAY, Run

from .chooser import is_example, is_shown, looked_at
from .session import Session


def buttons(me: Session, run: Run | None, wrong: list[str], other: bool) -> None:
    """What can be done with the run that is looked at, and whether the controls ask for an `other`: beside the buttons,
    where it moves nothing when it comes."""
    status = "example" if is_example(run) or run is None else run.status
    alive, paused = status in UNDER_WAY, status == "paused"
    train = "Train another" if alive or paused else "Train"
    resumes = paused and not other  # what is next: to go on with it, not to begin anew
    goes_on = " The run shown goes on in the background; Stop ends it." if alive else ""
    shown = run and run.id  # in the keys of what begins a run: a press is known by the run that it was made beside
    with st.container(horizontal=True, vertical_alignment="center", key="buttons"):
        st.button(
            train, type="secondary" if resumes else "primary",
            icon=":material/play_arrow:", key=f"train-{shown}", shortcut="Ctrl+Enter", on_click=wish,
            args=(me, "start", shown), disabled=bool(wrong),
            help="Train a new run with these settings. A fork whose settings are unchanged starts again from the "
            f"weights it was forked from.{goes_on}",
        )  # fmt: skip
        if status in RESTING:
            st.button(
                "Resume", icon=":material/resume:", key="resume", on_click=steer, args=(me, "resume", run.id),
                type="primary" if resumes else "secondary",
                help="Continue from where it stopped, as if it had never been interrupted.",
            )  # fmt: skip
        else:
            st.button(
                "Pause", icon=":material/pause:", key="pause", on_click=steer, args=(me, "pause", run and run.id),
                disabled=not alive, help="Pause after the current step; Resume continues.",
            )  # fmt: skip
        st.button(
            "Step", icon=":material/skip_next:", key="step", on_click=step, args=(me, run, status),
            disabled=alive or (status not in RESTING and bool(wrong)),
            help=steps_to(status),
        )  # fmt: skip
        # in a class, a key of one must not stop all
        stop_button(me, run if alive or paused else None, "stop", "Esc" if run and run.id in me.begun else None)
        st.button(
            "Reset", icon=":material/replay:", key=f"reset-{shown}", on_click=reset, args=(me, run),
            disabled=run is None or is_example(run),
            help="Back to the weights it began with, the initial ones or for a fork those it was forked from: the "
            "experiment of the run shown starts again as a new run. Same seeds, so the same curves to the last bit.",
        )  # fmt: skip
        if other:
            st.caption(differs(run, train), width="stretch")


def differs(run: Run, train: str) -> str:
    """That other settings are asked for than those of the run shown; of a fork also that it does not go on with them.
    `train`: what the button is called that begins a run."""
    if forked := opened.store().origin(run.id):
        _, _, at = forked
        begins = f"{train} begins at step 0 with them, not from the weights of step {at:,}."
        return f"These settings are not those of the fork shown: {begins}"
    return f"These settings are not those of the run shown: press {train}."


def stop_button(me: Session, run: Run | None, key: str, shortcut: str | None = None) -> None:
    """The button that ends a run; None where there is none to end."""
    st.button(
        "Stop", icon=":material/stop:", key=key, on_click=steer, args=(me, "stop", run and run.id), shortcut=shortcut,
        disabled=run is None, help="End this run; what was recorded stays.",
    )  # fmt: skip


def steps_to(status: str) -> str:
    """What Step does beside a run of this status, or the example or none."""
    if status in RESTING or status in UNDER_WAY:
        return f"Makes a single update{'. Pause first.' if status in UNDER_WAY else ' of the run shown.'}"
    ended = "" if status == "example" else ": the run shown has ended"
    return f"Begins a new run with these settings and pauses it after a step{ended}."


def whole(me: Session, run: Run) -> None:
    """For the example, which is shipped thin: a button that trains the same with every step kept."""
    with st.container(horizontal=True, vertical_alignment="center", key="whole"):
        if is_example(run):
            st.button(
                "Train the example", icon=":material/play_arrow:", key="train-whole",
                on_click=train_whole, args=(me, run), help="Starts it as a run of your own and opens it.",
            )  # fmt: skip
            st.caption(
                "The shipped copy keeps only some steps of the units' statistics, and some charts need all of them. "
                "Training it here takes a few seconds and keeps every step."
            )


def train_whole(me: Session, run: Run) -> None:
    """Begin what the example asks as a run of the visitor's own."""
    if is_shown(me, run.id):
        begin(me, run.experiment, "start")


def wish(me: Session, how: str, shown: str | None) -> None:
    """Begin a new run of what the controls say beside the run `shown`; they are known when the page has read them."""
    if is_shown(me, shown):
        me.wish = how


def grant(me: Session, experiment: Experiment | None) -> None:
    """Begin the run that was wished for. Nothing in here lets Streamlit give up halfway."""
    how = me.take("wish")
    if how and experiment is not None:
        run = looked_at(me)
        me.take("said")  # that it was deleted in another tab: the new run takes its place
        fork = run is not None and run.experiment == experiment and opened.holder(run.id).origin(run.id) is not None
        begin(me, run.id if fork else experiment, how)


def step(me: Session, run: Run | None, status: str) -> None:
    if status in RESTING:
        steer(me, "step", run.id)
    else:
        wish(me, "step", run and run.id)


def reset(me: Session, run: Run) -> None:
    """Begin a run anew, and end it where it is under way; where it cannot begin anew it is left alone."""
    if is_shown(me, run.id) and begin(me, run.id, "start") and (run.status == "paused" or opened.jobs().holds(run.id)):
        steer(me, "stop", run.id)


def begin(me: Session, asked: Experiment | str, how: str) -> bool:
    """A new run of a question, or of what a run asked and from the weights it began with; this session looks at it."""
    try:
        run = opened.store().again(asked) if isinstance(asked, str) else opened.store().create(asked)
    except (KeyError, ValueError) as error:
        me.said = me.sentence(error, asked) if isinstance(asked, str) else str(error.args[0])
        return False
    if begun := let_train(me, run, how):
        me.run = run.id
    return begun


def let_train(me: Session, run: Run, how: str) -> bool:
    """Let a run that was just made train; one that cannot, as the queue is full, is gone again, and why is said."""
    if not steer(me, how, run.id):
        with suppress(KeyError, Unkept):  # it was deleted meanwhile; or nobody holds it, and it is interrupted later
            opened.store().delete(run.id)
        return False
    return True


def steer(me: Session, what: str, run_id: str) -> bool:
    """Ask the jobs to start, pause, resume, step or stop a run; what is wrong with it is said on the page."""
    try:
        getattr(opened.jobs(), what)(run_id)
    except (KeyError, ValueError) as error:
        me.said = me.sentence(error, run_id)
        return False
    if what in ("start", "resume", "step") and run_id not in me.begun:
        me.begun.append(run_id)
    return True


def delete(me: Session, run: Run) -> None:
    """Forget a run that rests, with all that was recorded; what is in the way of it is said on the page."""
    try:
        opened.store().delete(run.id, at_rest=True)
    except ValueError as error:  # it was resumed in another tab
        me.said = str(error.args[0])
        return
    except KeyError as error:  # it was deleted in another tab
        me.said = me.sentence(error, run.id)
    if me.run == run.id:
        me.run = None
