"""The upper half of the Lab: which run is looked at, the buttons that steer it, and its board."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import streamlit as st

from bnlab import opened
from bnlab.database import Error, Unkept, told
from bnlab.experiment import Experiment
from bnlab.run import RESTING, UNDER_WAY, Run

from . import live, naming, session
from .session import Session
from .words import capital, escaped, listed, several

NEWEST = 30  # runs offered in the list; the page Runs has all
CHOOSER = f"The run shown on every page, with its settings. The {NEWEST} newest are listed; the page Runs has all."
BESIDE = 3  # runs that train beside the one shown, each with a button


def show(me: Session, experiment: Experiment | None, wrong: list[str]) -> Run | None:
    """Name, buttons and board of the run that is looked at; returns it. None where there is no run at all."""
    grant(me, experiment)
    run = looked_at(me)
    chooser(me, run)
    buttons(me, run, wrong, experiment is not None and run is not None and run.experiment != experiment)
    with st.container():  # always there, as those below: what comes and goes must not move the chart to another place
        if wrong:
            st.error(f"Not ready to train:\n\n{listed(wrong)}", icon=":material/error:")
    say(me)
    with st.container():
        beside(me, run)
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


def looked_at(me: Session) -> Run | None:
    """The run of this session, or the shipped example; that the run was deleted in another tab is said on the page."""
    if me.run:
        try:
            return opened.holder(me.run).run(me.run)
        except KeyError as error:
            me.said, me.run = me.sentence(error, me.run), None
    return opened.example_run()


def beside(me: Session, run: Run | None) -> None:
    """The visitor's other runs that train, with a way to them: Train begins a run of its own and stops none."""
    found = [other for other in opened.store().runs(*UNDER_WAY) if not other.abandoned]  # not what a killed server left
    others = [other for other in found if other.id in me.begun and other.id != (run and run.id)]
    if others:
        with st.container(horizontal=True, vertical_alignment="center", key="beside"):
            st.caption(f"{several(len(others), 'other run')} in the background:", width="content")
            for run_id, label in list(naming.told_apart(others).items())[:BESIDE]:
                st.button(
                    escaped(label), type="tertiary", key=f"beside-{run_id}", on_click=look_at, args=(me, run_id),
                    help="Look at this run.",
                )  # fmt: skip


def is_example(run: Run | None) -> bool:
    example = opened.example_run()
    return run is not None and example is not None and run.id == example.id


def chooser(me: Session, run: Run | None, title: str | None = "Batch Normalization Lab") -> None:
    """The runs there are, newest first, and the name of this one."""
    found = opened.store().runs(limit=NEWEST)
    example = opened.example_run()
    if run is not None and not is_example(run) and run.id not in [other.id for other in found]:
        found.append(run)
    me.names |= {other.id: other.name for other in found}
    names = naming.told_apart(found)
    if example is not None:
        names[example.id] = f"Example: {example.name}"
    shown = run.id if run else None
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        if title:
            st.title(title, anchor=False, width="content")
        if not names:
            return
        st.selectbox(
            "Run",
            list(names),
            index=list(names).index(shown) if shown else None,
            placeholder="Choose a run",
            format_func=names.get,
            label_visibility="collapsed",
            key=(key := f"run-{shown}-{names.get(shown)}"),  # under a new name it is another box: it holds a label
            on_change=choose,
            args=(me, shown, key),
        )
        st.markdown("", help=CHOOSER, width="content")  # the list has no label to stand at
        naming.rename_box(me, run, fixed=is_example(run))


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


def choose(me: Session, shown: str | None, key: str) -> None:
    """Open what was chosen beside the run `shown`."""
    if is_shown(me, shown):
        look_at(me, session.value(key))


def is_shown(me: Session, run_id: str | None) -> bool:
    """Whether a run, or none, is still the one shown: what is pressed beside another, which a run that was begun has
    replaced on the way here, is the second press of an impatient hand."""
    example = opened.example_run()
    return run_id == (me.run or (example and example.id))


def look_at(me: Session, run_id: str) -> None:
    """Open a run; that it was deleted in another tab is said on the page."""
    try:
        me.open_run(run_id)
    except KeyError as error:
        me.said = me.sentence(error, run_id)


def buttons(me: Session, run: Run | None, wrong: list[str], other: bool) -> None:
    """What can be done with the run that is looked at, and whether the controls ask for an `other`: beside the buttons,
    where it moves nothing when it comes."""
    status = "example" if is_example(run) or run is None else run.status
    alive, paused = status in UNDER_WAY, status == "paused"
    train = "Train another" if alive or paused else "Train"
    resumes = paused and not other  # what is next: to go on with it, not to begin anew
    goes_on = " The run shown goes on in the background; Stop ends it." if alive else ""
    shown = run and run.id  # in the key of what begins a run: a press comes from the page that showed this one, or not
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
    if fork := opened.store().origin(run.id):
        begins = f"{train} begins at step 0 with them, not from the weights of step {fork[2]:,}."
        return f"These settings are not those of the fork shown: {begins}"
    return f"These settings are not those of the run shown: press {train}."


def stop_button(me: Session, run: Run | None, key: str, shortcut: str | None = None) -> None:
    """The button that ends a run; None where there is none to end."""
    st.button(
        "Stop", icon=":material/stop:", key=key, on_click=steer, args=(me, "stop", run and run.id), shortcut=shortcut,
        disabled=run is None, help="End this run; what was recorded stays.",
    )  # fmt: skip


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


def steps_to(status: str) -> str:
    """What Step does beside a run of this status, or the example or none."""
    if status in RESTING or status in UNDER_WAY:
        return f"Makes a single update{'. Pause first.' if status in UNDER_WAY else ' of the run shown.'}"
    ended = "" if status == "example" else ": the run shown has ended"
    return f"Begins a new run with these settings and pauses it after a step{ended}."


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
