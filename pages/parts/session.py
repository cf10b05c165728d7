"""What one visitor's session keeps, and its address. The only file that touches st.session_state and st.query_params.

A click may be answered while another is on its way, and Streamlit gives up a script at any access to its own state. So
all that is ours is one plain object, `mine()`: what a button's function does to it is done as a whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import streamlit as st
from pydantic import ValidationError

from bnlab import opened
from bnlab.address import from_query, question, repeats, to_query
from bnlab.experiment import Experiment
from bnlab.problems import problems
from bnlab.settings import MAX_ARMS, SHARED, Settings

RUN, VIEW = "run", "view"
Query = list[tuple[str, str]]


@dataclass
class Session:
    """One visitor's session.

    draft: the question as it is being written, plain values, possibly wrong: {"settings": {name: value},
    "arms": [{"uid", "label", "changes"}], "seeds": [...]}; change it in place.
    edition: rises when a whole question is loaded; every widget's key carries it, so that widgets show the new values.
    run: the id of the run that is looked at. begun: those of the runs that this session started or resumed. wish: how
    to begin a new run, "start" or "step", once the page has read all its controls. names: what the runs are called that
    it was shown, by id: of one that was deleted nothing else is left. said: something to say at the next drawing of the
    page. forked: a fork was just made. unforked: why one was not. chosen: which arm, by the name of the choice.
    written: the query this session wrote last; another one in the address bar is a question to load, unless it is among
    late: the queries that the browser may still send because it has not heard of `written` yet. page: where it is.
    to_open: the view that the address asks for, until it or another is open. view: this page's, None for its first.
    wrong_address: what is wrong with that of the bar and not shown by the controls. opened_as: the question and the run
    that it was opened as; while they are asked, it stays in the bar as the visitor wrote it.
    """

    draft: dict[str, Any] = field(default_factory=dict)
    edition: int = 0
    next_arm: int = 0
    run: str | None = None
    begun: list[str] = field(default_factory=list)
    wish: str | None = None
    names: dict[str, str] = field(default_factory=dict)
    said: str | None = None
    forked: bool | None = None
    unforked: str | None = None
    chosen: dict[str, int] = field(default_factory=dict)
    written: Query = field(default_factory=list)
    late: list[Query] = field(default_factory=list)
    page: str | None = None
    to_open: str | None = None
    view: str | None = None
    wrong_address: list[str] = field(default_factory=list)
    opened_as: tuple[Experiment | None, str | None] = (None, None)

    def __post_init__(self):
        self.load(Experiment())

    def load(self, experiment: Experiment) -> None:
        """Make a whole question the draft; every widget shows its values."""
        self.show(experiment.model_dump())

    def show(self, question: dict[str, Any]) -> None:
        """Make a question the draft, right or wrong: what it leaves out is as by default, and what no control can hold
        is left out."""
        asked = Experiment().model_dump() | question
        self.draft = {
            "settings": Settings().model_dump() | held(asked["settings"]),
            "arms": [self.new_arm(arm["label"], held(arm["changes"], SHARED)) for arm in asked["arms"][:MAX_ARMS]],
            "seeds": list(asked["seeds"]),
        }
        self.edition += 1

    def new_arm(self, label: str, changes: dict[str, Any]) -> dict[str, Any]:
        """An arm of the draft; its `uid` names its widgets as long as it lives."""
        self.next_arm += 1
        return {"uid": self.next_arm, "label": label, "changes": dict(changes)}

    def key(self, name: str) -> str:
        """The key of the widget called `name` in this edition of the draft."""
        return f"{name}-{self.edition}"

    def open_run(self, run_id: str) -> None:
        """Look at a run, on every page, with its question in the controls. Raises KeyError where there is none."""
        experiment = opened.holder(run_id).run(run_id).experiment
        self.run = run_id
        self.load(experiment)

    def asked(self) -> tuple[Experiment | None, list[str]]:
        """The draft as an Experiment, or None and the sentences that say why not."""
        arms = [{"label": arm["label"], "changes": arm["changes"]} for arm in self.draft["arms"]]
        question = {"settings": self.draft["settings"], "arms": arms, "seeds": self.draft["seeds"]}
        try:
            return Experiment.model_validate(question), []
        except ValidationError as error:
            return None, problems(error)

    def misread(self, experiment: Experiment | None) -> list[str]:
        """What is wrong with the address, as long as nothing else is asked than it was opened as."""
        if (experiment, self.run) != self.opened_as:
            self.wrong_address = []
        return self.wrong_address

    def sentence(self, error: Exception, run_id: str) -> str:
        """What went wrong with a run; of one that is gone with the name that this session knew it by."""
        if isinstance(error, KeyError) and run_id in self.names:
            return f"The run {self.names[run_id]!r} was deleted. Choose another run."
        return str(error.args[0])

    def take(self, name: str) -> Any:
        """`wish`, `said`, `forked` or `unforked`, which is gone then."""
        value = getattr(self, name)
        setattr(self, name, None)
        return value


def mine() -> Session:
    """This visitor's session."""
    if "mine" not in st.session_state:
        st.session_state.mine = Session()
    return st.session_state.mine


def turn(page: str) -> None:
    """Note which page is opened. A link to one drops the query, so what comes with another page is no late one: the
    browser went back to it."""
    me = mine()
    if me.page != page:
        me.page, me.late, me.to_open, me.view = page, [], None, None


def begin() -> Session:
    """This visitor's session, with what the address asks for loaded, once."""
    me = mine()
    asked = [(name, value) for name in st.query_params for value in st.query_params.get_all(name)]
    if asked == me.written:
        me.late = []
    elif asked and asked not in me.late:  # none: a page was switched, which drops the query
        me.written, me.late = asked, []
        me.wrong_address = opened_address(me, asked)
        me.opened_as = me.asked()[0], me.run
    return me


def held(asked: dict[str, Any], but: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of these that have a control, which is a switch for what is true or false only."""
    kinds = {name: field.annotation for name, field in Settings.model_fields.items() if name not in but}
    return {name: v for name, v in asked.items() if name in kinds and isinstance(v, bool) == (kinds[name] is bool)}


def opened_address(me: Session, asked: Query) -> list[str]:
    """Load the question and the run of an address; sentences on what is wrong with it that the controls do not show."""
    run_id, me.to_open = (dict(asked).get(name) for name in (RUN, VIEW))
    said = repeats([pair for pair in asked if pair[0] in (RUN, VIEW)])
    if run_id is not None:
        try:
            me.open_run(run_id)
        except KeyError as error:
            said.append(me.sentence(error, run_id))
    pairs = [pair for pair in asked if pair[0] not in (RUN, VIEW)]
    if pairs:
        me.show(question(pairs))
        try:
            from_query(pairs)
        except ValidationError as error:
            shown = me.asked()[1]
            known = (*Settings.model_fields, "arm", "seeds", RUN, VIEW)
            said += [sentence for sentence in problems(error, known) if sentence not in shown]
    return said


def write_address(me: Session, experiment: Experiment | None) -> None:
    """Put the question (None: as it was), the run and the view into the address bar; a wrong one stays until it is
    changed."""
    if me.misread(experiment):
        pairs = me.written
    else:
        pairs = [p for p in me.written if p[0] != RUN] if experiment is None else to_query(experiment)
        pairs = pairs + ([(RUN, me.run)] if me.run else [])
    write(me, pairs)


def write(me: Session, pairs: Query) -> None:
    """Put these pairs, and the view that is open or asked for in vain, into the address bar."""
    view = me.view if me.to_open is None else me.to_open
    pairs = [pair for pair in pairs if pair[0] != VIEW] + ([] if view is None else [(VIEW, view)])
    query = {name: [value for other, value in pairs if other == name] for name, _ in pairs}
    pairs = [(name, value) for name in query for value in query[name]]
    if pairs != me.written:
        me.late.append(me.written)
        me.written = pairs
    if {name: st.query_params.get_all(name) for name in st.query_params} != query:
        st.query_params.from_dict(query)


def open_view(me: Session, key: str, views: list[str]) -> str | None:
    """Let the widget with this key open on the view that the address asks for; returns it where it is none of these."""
    if me.to_open in views:
        st.session_state[key], me.to_open = me.to_open, None
    return me.to_open


def show_view(me: Session, key: str, first: str) -> None:
    """Another view was chosen in the widget with this key: the address says so at once."""
    me.to_open, me.view = None, value(key) if value(key) != first else None
    write(me, me.written)


def value(key: str) -> Any:
    """What the widget with this key holds now."""
    return st.session_state.get(key)


def shut(key: str) -> None:
    """Close the popover with this key."""
    st.session_state[key] = False


def choose(name: str, key: str) -> None:
    """Keep what was chosen in the widget with this key: another one that is made in its place opens on it."""
    mine().chosen[name] = value(key)


def keep(key: str, leave: Any = None, held: Any = None) -> None:
    """Let the widget with this key have the value it has, written by the server; `leave` means what it `held`. Another
    widget may be made of it: an expander is another one under another title, and what was typed is one of the choices
    then."""
    if key in st.session_state:
        now = st.session_state[key]
        st.session_state[key] = held if now == leave else now
