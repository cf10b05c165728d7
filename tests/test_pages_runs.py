"""Runs are made, opened, told apart, renamed, deleted and asked again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lab_page import address, button, chooser, drawn, errors, page, typed, widget
from lab_page import opened as another
from streamlit.proto.WidgetStates_pb2 import WidgetStates

from bnlab import cards, database, opened
from bnlab.__main__ import read
from bnlab.database import FULL, Full
from bnlab.executing import execute
from bnlab.experiment import Arm, Experiment
from bnlab.export import asked
from bnlab.process import ABOVE
from bnlab.run import UNDER_WAY, Taken, run_in
from bnlab.settings import Settings
from bnlab.store import RunStore
from pages.parts.views import INFERENCE

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


def test_the_list_of_runs_stops_those_that_are_under_way_or_paused_as_the_lab_does():
    store = opened.store()
    left = ("queued", "paused", "done", "stopped", "diverged", "failed", "interrupted")
    runs = {status: store.create(Experiment(settings=Settings(depth=3))).id for status in left}
    for status, run_id in runs.items():
        store.change(run_id, status=status)
    opened.jobs().start(runs["queued"])
    at = another("runs.py")
    there = [b.key for b in at.button if b.key.startswith("stop-")]
    assert sorted(there) == sorted(f"stop-{runs[status]}" for status in ("queued", "paused"))
    theirs = button(page(("run", runs["queued"])), "stop")
    for key in there:
        own = button(at, key)
        assert (own.label, own.icon, own.help, own.proto.shortcut) == (theirs.label, theirs.icon, theirs.help, "")
        assert not own.disabled and not theirs.disabled
        drawn(own.click())
    assert {store.run(runs[status]).status for status in ("queued", "paused")} == {"stopped"}
    assert not opened.jobs().holds(runs["queued"]) and not [b for b in at.button if b.key.startswith("stop-")]


def test_what_keeps_a_run_from_being_stopped_is_said_in_the_list_of_all():
    run = opened.store().create(Experiment(settings=Settings(depth=3)))
    opened.store().change(run.id, status="running")  # by a process that is not this server's
    at = drawn(button(another("runs.py"), f"stop-{run.id}").click())
    assert errors(at) == "R" + str(Taken(run.id))[1:] and opened.store().run(run.id).status == "running"


def test_a_run_that_is_still_at_its_last_step_is_stopping(monkeypatch):
    run = opened.store().create(Experiment(settings=Settings(depth=3)))
    monkeypatch.setattr(opened.jobs(), "stopping", {run.id})
    told = lambda: [text.value.partition(",")[0] for text in another("runs.py").caption]  # noqa: E731
    assert told() == ["Stopping"]
    opened.store().change(run.id, status="stopped")
    assert told()[0] == "Stopped", "while it is scored"


def test_the_list_of_runs_calls_a_status_as_the_board_does():
    store = opened.store()
    states = ("queued", "running", "paused", "done", "stopped", "diverged", "failed", "interrupted")
    for status in states:
        store.change(store.create(Experiment(settings=Settings(depth=3))).id, status=status)
    told = [text.value.partition(",")[0] for text in another("runs.py").caption if " arms, " in text.value]
    assert told == [re.match(r"\w+", cards.words(run, 0))[0] for run in store.runs()]
    assert told[-2:] == ["Training", "Waiting"]


def test_runs_of_one_name_are_told_apart_in_the_list_of_all():
    store = opened.store()
    runs = [store.create(Experiment(), name="twin") for _ in range(3)]
    for run, when in zip(runs, (0, 0, 3600), strict=True):  # 1970, two of them in the same second
        store.db.execute("update runs set created = ? where id = ?", (when, run.id))
    at = page()
    at.switch_page("runs.py")
    drawn(at)
    titles = [text.value.replace("\\", "").replace("\u2060", "") for text in at.header if "twin" in text.value]
    assert len(set(titles)) == 3 and all(" · **twin" in title for title in titles)
    assert titles[0].startswith(f"{store.run(runs[2].id).created:%b %d 1970, %H:%M:%S}")


def test_however_many_runs_there_are_a_page_reads_those_it_shows(monkeypatch):
    store, read = opened.store(), set()
    newest = [store.create(Experiment(), name=f"run {i}").id for i in range(45)][::-1]
    for run_id in newest:
        store.change(run_id, status="done")
    monkeypatch.setattr("bnlab.store.run_in", lambda row: (read.add(row[0]), run_in(row))[1])
    at = page()
    example = opened.example_run().id
    assert read == {*newest[:30], example} and len(chooser(at).options) == 31
    at.switch_page("runs.py")
    drawn(at)
    for number, shown in ((1, newest[:20]), (2, newest[20:40]), (3, newest[40:])):
        at.session_state["page"] = number
        read.clear()
        drawn(at)
        assert read <= {*shown, example}
        assert [box.key for box in at.text_input] == [f"name-{run_id}" for run_id in shown]


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


def test_runs_are_renamed_opened_and_deleted():
    store = opened.store()
    run = store.create(Experiment(settings=Settings(depth=9)), name="first")
    at = page()
    at.switch_page("runs.py")
    drawn(at)
    at.session_state[f"rename-{run.id}"] = True
    drawn(at.text_input(key=f"name-{run.id}").set_value("[second](x)"))
    assert store.run(run.id).name == "[second](x)"
    assert at.session_state[f"rename-{run.id}"] is False, "the box is shut"
    drawn(button(at, f"open-{run.id}").click())
    assert widget(at, "depth").value == 9
    store.change(run.id, status="stopped")
    at.switch_page("runs.py")
    drawn(at)
    assert [text.value for text in at.text] == ["[second](x)\n\nIts 0 recorded steps will be gone for good."]
    assert button(at, f"delete-{run.id}").proto.type == "secondary", "Train is the one that stands out"
    drawn(button(at, f"delete-{run.id}").click())
    assert not store.runs()


def test_a_run_s_id_its_experiment_file_and_the_command_for_its_tables_are_in_its_row(tmp_path, monkeypatch):
    store = opened.store()
    run = store.create(Experiment(settings=Settings(depth=2, width=4, steps=3)))
    execute(store, run.id, lambda: None)
    at = another("runs.py")
    assert not at.code, "made only while they are open"
    at.session_state[f"export-{run.id}"] = True
    drawn(at)
    run_id, line = (code.value for code in at.code)
    assert run_id == run.id
    assert line.endswith(f" --out tables-{run.id}")
    assert str(opened.directory()) not in line, "a visitor is not told where it is"
    line = line.replace(" DIR ", f" {opened.directory()} ").replace("tables-", f"{tmp_path}/tables-")
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(line, shell=True, cwd=ABOVE, check=True, env={**os.environ, "PATH": path})
    monkeypatch.setenv("BNLAB_STORE", "runs")
    assert " export runs --run " in asked.command(run, opened.directory()), "as it is by default"
    monkeypatch.chdir(tmp_path)
    for elsewhere in ("../secret", "runs/../../secret", tmp_path / "runs"):
        assert " export DIR --run " in asked.command(run, Path(elsewhere)), "seen from the lab's own directory"
    assert (tmp_path / f"tables-{run.id}" / "steps.csv").exists()
    (file,) = at.get("download_button")
    assert file.proto.label == "Experiment file" and "a fork begins" not in file.proto.help
    (tmp_path / "asked.json").write_text(asked.file(run), encoding="utf-8")
    assert read(tmp_path / "asked.json") == run.experiment


def test_where_a_run_is_forked_its_file_is_told_to_begin_anew():
    store = opened.store()
    parent = store.create(Experiment(settings=Settings(depth=3)))
    store.db.execute("insert into snapshots values (?, 0, 50, x'00')", (parent.id,))
    fork = store.fork(parent.id, 1, 50, {"learning_rate": 0.5})
    at = another("runs.py")
    at.session_state[f"export-{fork.id}"] = True
    (file,) = drawn(at).get("download_button")
    assert file.proto.help.endswith("a fork begins at step 0, not from the weights it was forked from.")


def test_to_delete_a_fork_is_told_to_lose_its_own_steps_not_its_parents():
    store = opened.store()
    parent = store.create(Experiment(settings=Settings(depth=2, width=4, steps=9)))
    execute(store, parent.id, lambda: None)
    fork = store.fork(parent.id, 0, 9, {"learning_rate": 0.01}, 3)
    execute(store, fork.id, lambda: None)
    at = page()
    at.switch_page("runs.py")
    drawn(at)
    told = [text.value.splitlines()[-1] for text in at.text]
    assert told == [f"Its {steps} recorded steps will be gone for good." for steps in (3, 9)]


def test_who_deletes_a_run_is_told_what_its_forks_lose():
    store = opened.store()
    arms = (Arm(label="BN", changes={"norm": "batch"}),)
    run = store.create(Experiment(settings=Settings(depth=2, width=4, steps=9), arms=arms))
    execute(store, run.id, lambda: None)
    said = ("1 fork loses steps before its own; its charts", "2 forks lose steps before their own; their charts")
    for losing, alpha in zip(said, (0.5, 0.7), strict=True):
        run = store.fork(run.id, 0, store.run(run.id).made, {"alpha": alpha}, 3)
        execute(store, run.id, lambda: None)
        *_, told = [text.value.partition("for good.\n\n")[2] for text in another("runs.py").text]
        assert told == f'{losing} under "Any alpha" and "Why they are off" need every step from the first.'
    assert {"Any alpha", "Why they are off"} <= INFERENCE.keys()


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
