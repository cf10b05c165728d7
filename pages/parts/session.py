"""What one visitor's session keeps, and its address. The only file that touches st.session_state and st.query_params.

draft: the question as it is being written: plain values, possibly wrong.
edition: rises when a whole question is loaded; every widget's key carries it, so that widgets show the new values.
run: the id of the run that is looked at.
written: the query this session wrote last; another one in the address bar is a question to load, unless it is among
late: the queries that the browser may still send because it has not heard of `written` yet.
"""

from __future__ import annotations

from typing import Any

import streamlit as st
from pydantic import ValidationError

from bnlab import opened
from bnlab.address import from_query, to_query
from bnlab.experiment import Experiment
from bnlab.settings import problems

STATE = st.session_state
RUN = "run"


def begin() -> list[str]:
    """Load what the address asks for, once; sentences on what in it is wrong."""
    if "draft" not in STATE:
        STATE.edition, STATE.run, STATE.next_arm = 0, None, 0
        load(Experiment())
        STATE.written, STATE.late = [], []
        STATE.wrong_address = []
    asked = [(name, value) for name in st.query_params for value in st.query_params.get_all(name)]
    if asked == STATE.written:
        STATE.late = []
    elif asked and asked not in STATE.late:  # none: a page was switched, which drops the query
        STATE.written, STATE.late = asked, []
        STATE.wrong_address = opened_address(asked)
    return STATE.wrong_address


def opened_address(asked: list[tuple[str, str]]) -> list[str]:
    """Load the question and the run of an address; sentences on what is wrong with it."""
    run_id = dict(asked).get(RUN)
    said = []
    if run_id is not None:
        try:
            experiment = opened.holder(run_id).run(run_id).experiment
        except KeyError as error:
            said.append(str(error.args[0]))
        else:
            watch(run_id)
            load(experiment)
    question = [pair for pair in asked if pair[0] != RUN]
    if question:
        try:
            load(from_query(question))
        except ValidationError as error:
            said += problems(error)
    return said


def forget_wrong_address() -> None:
    STATE.wrong_address = []


def write_address(experiment: Experiment | None) -> None:
    """Put the question (None: as it was) and the run into the address bar."""
    pairs = [p for p in STATE.written if p[0] != RUN] if experiment is None else to_query(experiment)
    pairs = pairs + ([(RUN, STATE.run)] if STATE.run else [])
    query = {name: [value for other, value in pairs if other == name] for name, _ in pairs}
    if {name: st.query_params.get_all(name) for name in st.query_params} != query:
        st.query_params.from_dict(query)
    pairs = [(name, value) for name in query for value in query[name]]
    if pairs != STATE.written:
        STATE.late.append(STATE.written)
        STATE.written = pairs


def load(experiment: Experiment) -> None:
    """Make a whole question the draft; every widget shows its values."""
    STATE.draft = {
        "settings": experiment.settings.model_dump(),
        "arms": [new_arm(arm.label, arm.changes) for arm in experiment.arms],
        "seeds": list(experiment.seeds),
    }
    STATE.edition += 1


def draft() -> dict[str, Any]:
    """{"settings": {name: value}, "arms": [{"uid", "label", "changes"}], "seeds": [...]}; change it in place."""
    return STATE.draft


def new_arm(label: str, changes: dict[str, Any]) -> dict[str, Any]:
    """An arm of the draft; its `uid` names its widgets as long as it lives."""
    STATE.next_arm += 1
    return {"uid": STATE.next_arm, "label": label, "changes": dict(changes)}


def key(name: str) -> str:
    """The key of the widget called `name` in this edition of the draft."""
    return f"{name}-{STATE.edition}"


def asked() -> tuple[Experiment | None, list[str]]:
    """The draft as an Experiment, or None and the sentences that say why not."""
    told = STATE.draft
    arms = [{"label": arm["label"], "changes": arm["changes"]} for arm in told["arms"]]
    try:
        return Experiment.model_validate({"settings": told["settings"], "arms": arms, "seeds": told["seeds"]}), []
    except ValidationError as error:
        return None, problems(error)


def run_id() -> str | None:
    return STATE.run


def watch(run_id: str | None) -> None:
    """Look at this run from now on, on every page."""
    STATE.run = run_id


def option(name: str, default: Any = None) -> Any:
    """A choice of the page's own (the open view, a view's option) that outlives a page switch."""
    return STATE.setdefault("options", {}).get(name, default)


def choose(name: str, value: Any) -> None:
    STATE.setdefault("options", {})[name] = value


def widget(name: str) -> Any:
    """What the widget called `name` holds now; for the functions that buttons call."""
    return STATE.get(key(name))


def value(key: str) -> Any:
    """What the widget with this whole key holds now."""
    return STATE.get(key)


def open_run(run_id: str) -> None:
    """Look at a run, with its question in the controls."""
    watch(run_id)
    load(opened.holder(run_id).run(run_id).experiment)


def put(name: str, what: Any) -> None:
    """Something to say at the next drawing of the page."""
    STATE[name] = what


def take(name: str) -> Any:
    return STATE.pop(name, None)
