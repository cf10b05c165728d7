"""Runs are made, opened, told apart, steered, forked and asked again."""

import pytest
from lab_page import address, button, chooser, drawn, errors, page, typed, widget
from lab_page import opened as another
from streamlit.proto.WidgetStates_pb2 import WidgetStates

from bnlab import database, opened
from bnlab.database import FULL, Full
from bnlab.experiment import Experiment
from bnlab.run import UNDER_WAY
from bnlab.settings import Settings
from bnlab.store import RunStore

pytestmark = pytest.mark.usefixtures("lab")


def test_train_makes_a_run_and_the_address_opens_it():
    at = page(("depth", "3"))
    drawn(button(at, "train").click())
    (run,) = opened.store().runs()
    assert run.experiment == Experiment(settings=Settings(depth=3))
    assert run.status == "queued"
    assert address(at) == [("depth", "3"), ("run", run.id)]
    again = page(("run", run.id))
    assert widget(again, "depth").value == 3
    assert chooser(again).value == run.id


def test_train_says_that_a_run_goes_on_and_what_is_in_the_background_is_one_click_away():
    at = page(("depth", "3"))
    assert button(at, "train").label == "Train"
    drawn(button(at, "train").click())
    (first,) = opened.store().runs()
    assert button(at, "train").label == "Train another"
    assert "goes on in the background" in button(at, "train").help
    assert not [text for text in at.caption if "in the background" in text.value]
    drawn(button(at, "train").click())
    second, _ = opened.store().runs()
    assert [text.value for text in at.caption if "in the background" in text.value] == [
        "1 other run in the background:"
    ]
    assert not [text for text in page().caption if "in the background" in text.value], "in another visitor's session"
    assert first.name in button(at, f"beside-{first.id}").label.replace("\\", "").replace("\u2060", "")
    drawn(button(at, f"beside-{first.id}").click())
    assert address(at)[-1] == ("run", first.id)
    opened.jobs().stop(second.id)
    drawn(button(at, "stop").click())
    assert button(at, "train").label == "Train"
    assert not [text for text in at.caption if "in the background" in text.value]


@pytest.mark.parametrize("key", ["train", "step", "reset", "train-whole"])
def test_a_press_on_a_page_that_does_not_show_the_run_yet_begins_no_other(key):
    if key == "reset":
        at = page(("run", opened.store().create(Experiment(settings=Settings(depth=3))).id))
    else:
        at = another("inference.py") if key == "train-whole" else page()
    before = len(opened.store().runs())
    pressed = WidgetStates(widgets=[button(at, key).click()._widget_state])  # of the page as it is now
    for _ in range(3):
        assert not at._run(pressed).exception
    assert len(opened.store().runs()) == before + 1
    assert address(at)[-1] == ("run", opened.store().runs()[0].id)


def test_a_name_that_a_full_disk_cannot_keep_is_said(monkeypatch):
    run = opened.store().create(Experiment(settings=Settings(depth=3)))

    def full(*_):
        raise Full(FULL)

    at = page(("run", run.id))
    monkeypatch.setattr(opened.store(), "rename", full)
    drawn(at.text_input(key=f"name-{run.id}").set_value("mine"))
    assert any("The disk is full" in error.value for error in at.error)


def test_a_run_that_a_full_disk_can_neither_queue_nor_delete_is_said(monkeypatch):
    def full(*_, **__):
        raise Full(FULL)

    at = page(("depth", "3"))
    for name in ("change", "delete"):
        monkeypatch.setattr(opened.store(), name, full)
    drawn(button(at, "train").click())
    assert any("The disk is full" in error.value for error in at.error)
    assert [run.status for run in opened.store().runs()] == ["queued"], "as nobody holds it, it is interrupted later"


def test_what_is_paused_is_resumed_by_the_button_that_stands_out_unless_the_settings_have_changed():
    run = opened.store().create(Experiment(settings=Settings(depth=3)))
    opened.store().change(run.id, status="paused")
    at = page(("run", run.id))
    look = lambda: [button(at, key).proto.type for key in ("train", "resume")]  # noqa: E731
    assert look() == ["secondary", "primary"] and button(at, "train").label == "Train another"
    drawn(widget(at, "depth").set_value(4))
    assert look() == ["primary", "secondary"]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (None, "Begins a new run with these settings and pauses it after a step."),
        ("queued", "Makes a single update. Pause first."),
        ("running", "Makes a single update. Pause first."),
        ("paused", "Makes a single update of the run shown."),
        ("stopped", "Makes a single update of the run shown."),
        ("done", "Begins a new run with these settings and pauses it after a step: the run shown has ended."),
        ("diverged", "Begins a new run with these settings and pauses it after a step: the run shown has ended."),
    ],
)
def test_step_says_whether_it_goes_on_with_the_run_shown_or_begins_a_new_one(status, told):
    run = status and opened.store().create(Experiment(settings=Settings(depth=3)))
    if run:
        opened.store().change(run.id, status=status)
    at = page(("run", run.id)) if run else page()
    assert button(at, "step").help == told and button(at, "step").disabled == (status in UNDER_WAY)


def test_escape_stops_a_run_only_where_it_was_begun_or_resumed():
    """Where a class watches, Stop is there for everyone, its key only for those who let the run train."""
    mine = drawn(button(page(("depth", "3")), "train").click())
    (run,) = opened.store().runs()
    theirs = page(("run", run.id))
    assert [button(at, "stop").proto.shortcut for at in (mine, theirs)] == ["escape", ""]
    assert not button(theirs, "stop").disabled
    drawn(button(theirs, "stop").click())
    assert opened.store().run(run.id).status == "stopped"
    for key in ("resume", "step"):
        theirs = page(("run", run.id))
        drawn(button(theirs, key).click())
        assert button(theirs, "stop").proto.shortcut == "escape", key
        opened.jobs().stop(run.id)


def test_reset_asks_the_same_question_again():
    at = page(("depth", "3"))
    drawn(button(at, "train").click())
    drawn(button(at, "reset").click())
    newer, older = opened.store().runs()
    assert newer.experiment == older.experiment
    assert older.status == "stopped"
    assert newer.status == "queued"


def test_a_page_switch_keeps_the_question_and_the_run():
    at = page()
    drawn(widget(at, "depth").set_value(11))
    typed(at, "learning_rate", "0.07")
    drawn(button(at, "train").click())
    (run,) = opened.store().runs()
    at.switch_page("runs.py")
    drawn(at)
    assert any(run.name in m.value.replace("\\", "") for m in at.header)
    at.switch_page("lab.py")
    drawn(at)
    assert widget(at, "depth").value == 11
    assert widget(at, "learning_rate").value == "0.07"
    assert address(at) == [("depth", "11"), ("learning_rate", "0.07"), ("run", run.id)]


@pytest.mark.parametrize("name", ["x" * 121, " "])
def test_a_name_that_cannot_be_taken_is_told_and_stands_there(name):
    run = opened.store().create(Experiment(), name="first")
    at = page(("run", run.id))
    box = at.text_input(key=f"name-{run.id}")
    assert not box.proto.max_chars, "the browser drops a longer text that is pasted, and says nothing"
    at.session_state[f"rename-{run.id}"] = True
    drawn(box.set_value(name))
    assert at.session_state[f"rename-{run.id}"], "the box stays open"
    assert f"The name has {len(name.strip())} characters; allowed are 1 to 120." in errors(at)
    assert opened.store().run(run.id).name == "first" and at.text_input(key=f"name-{run.id}").value == name


def test_runs_of_one_name_are_told_apart():
    asked = Experiment(settings=Settings(depth=3))
    runs = [opened.store().create(asked, name="twin") for _ in range(3)]
    for run in runs:
        at = page(("run", run.id))
        offered = chooser(at).options
        assert len(set(offered)) == len(offered) == 4, "the three and the example"
        drawn(at)
        assert address(at) == [("depth", "3"), ("run", run.id)]


def test_what_tells_runs_of_one_name_apart_stands_first():
    """The chooser cuts off the end of a long label."""
    runs = [opened.store().create(Experiment(), name="twin " * 20) for _ in range(2)]
    options = chooser(page()).options
    for run in runs:
        assert any(option.startswith(f"{run.created:%b %d, %H:%M:%S} · twin") for option in options)


def test_a_fork_starts_again_as_a_fork_and_with_another_question_as_a_run_of_its_own():
    store = opened.store()
    parent = store.create(Experiment(settings=Settings(depth=3)))
    store.db.execute("insert into snapshots values (?, 0, 50, x'00')", (parent.id,))
    fork = store.fork(parent.id, 1, 50, {"learning_rate": 0.5})
    at = page(("run", fork.id))
    for key in ("reset", "train"):
        drawn(button(at, key).click())
        newest = store.runs()[0]
        assert address(at)[-1] == ("run", newest.id) and newest.id != fork.id
        assert store.origin(newest.id) == (parent.id, 1, 50), key
    told = lambda: [text.value for text in at.caption if text.value.startswith("These settings")]  # noqa: E731
    assert not told()
    typed(at, "learning_rate", "0.03")
    assert told() == [
        "These settings are not those of the fork shown: Train another begins at step 0 with them, not from the "
        "weights of step 50."
    ]
    drawn(button(at, "train").click())
    assert store.origin(store.runs()[0].id) is None
    typed(at, "learning_rate", "0.04")
    assert told() == ["These settings are not those of the run shown: press Train another."]
    store.delete(parent.id)
    at = page(("run", fork.id))
    opened.jobs().start(fork.id)
    runs = len(store.runs())
    drawn(button(at, "reset").click())
    assert "The weights of step 50 that this fork began with are gone" in errors(at) and len(store.runs()) == runs
    assert store.run(fork.id).status == "queued" and opened.jobs().holds(fork.id), "it goes on"


def test_a_fork_says_where_it_was_forked_from_with_a_way_there_while_it_is_there():
    store = opened.store()
    parent = store.create(Experiment(settings=Settings(depth=3)), name="[one](x)")
    store.db.execute("insert into snapshots values (?, 0, 50, x'00')", (parent.id,))
    fork = store.fork(parent.id, 1, 50, {"learning_rate": 0.5})

    def said(at) -> list[str]:
        return [text.value.replace("\\", "") for text in at.caption if text.value.startswith("Forked")]

    at = page(("run", fork.id))
    assert said(at) == [f"Forked from {parent.experiment.arms[1].label} at step 50 of"]
    to = button(at, f"origin-{parent.id}")
    assert to.label == "\\[one\\]\\(x\\)"
    drawn(to.click())
    assert address(at)[-1] == ("run", parent.id) and not said(at)
    store.delete(parent.id)
    at = page(("run", fork.id))
    assert said(at) == ["Forked at step 50 of a run that was deleted."]
    assert not [b for b in at.button if b.key.startswith("origin-")]


@pytest.mark.parametrize("file", ["lab.py", "inference.py", "why.py", "runs.py"])
def test_a_store_that_cannot_be_read_is_a_sentence_on_every_page(file, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes(b"no database at all" * 1000)
    monkeypatch.setattr(opened.store(), "path", broken)
    at = page(closed=True) if file == "lab.py" else another(file)
    assert at.error[0].value.replace("\\", "") == (
        "The file of the runs cannot be used: file is not a database. It may be gone, damaged, read-only or on a full "
        "disk. Put it right, then start again."
    )


@pytest.mark.parametrize("key", ["train", "stop"])
def test_a_click_while_another_process_writes_is_answered_with_a_sentence(key, monkeypatch):
    run = opened.store().create(Experiment(settings=Settings(depth=3)))
    at = page(("run", run.id), closed=True)
    monkeypatch.setattr(database, "PATIENCE", 50)
    other = RunStore(opened.directory())
    opened.store().close()
    with other.transaction():
        at = drawn(button(at, key).click())
    assert [error.value.replace("\\", "") for error in at.error] == [database.BUSY]
